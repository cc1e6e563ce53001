package firehose

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/awsapi"
)

// slack copies a body into a buffer with room behind it, as awsapi has it.
func slack(body string) []byte {
	return append(make([]byte, 0, len(body)+awsapi.SlackBytes), body...)
}

func scanBody(body string) (*envelope, error) {
	e := &envelope{}
	b := slack(body)
	e.reset(b, make([]byte, 0, len(b)/4*3+3+awsapi.SlackBytes))
	return e, e.scanBatch()
}

func (e *envelope) documents() []string {
	var out []string
	d := Docs{e.arena, e.ends}
	for i := range d.Len() {
		out = append(out, string(d.Doc(i)))
	}
	return out
}

func TestEnvelopeForms(t *testing.T) {
	forms := []string{
		`{"DeliveryStreamName":"s","Records":[{"Data":"YWI="},{"Data":"Y2Rl"},{"Data":""}]}`,
		`{"DeliveryStreamName": "s", "Records": [{"Data": "YWI="}, {"Data": "Y2Rl"}, {"Data": ""}]}`,
		`{"Records":[{"Data":"YWI="},{"Data":"Y2Rl"},{"Data":""}],"DeliveryStreamName":"s"}`,
		" \r\n{\t\"Records\" :\n[ { \"Data\" : \"YWI=\" } ,\n{\"Data\":\"Y2Rl\" }\t,{\"Data\":\"\"} ]\n, \"DeliveryStreamName\":\"s\"\n} \n",
		`{"\u0044eliveryStreamName":"\u0073","Records":[{"D\u0061ta":"YWI\u003d"},{"Data":"\u00592Rl"},{"Data":""}]}`,
		`{"X":{"Records":[1,-2.5e+3,{"a":[]}],"t":true},"Y":[null,false,"\"\\\/\b\f\n\r\t\ud83d\ude00"],"DeliveryStreamName":"s","Records":[{"X":{},"Data":"YWI="},{"Data":"xxxx","Data":"Y2Rl"},{"Data":"","Y":[]}]}`,
		`{"Records":null,"DeliveryStreamName":"other","Records":[{"Data":"eHg="}],"Records":[{"Data":"YWI="},{"Data":"Y2Rl"},{"Data":""}],"DeliveryStreamName":"s"}`,
	}
	for _, f := range forms {
		e, err := scanBody(f)
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		if docs := e.documents(); string(e.stream) != "s" || len(docs) != 3 || docs[0] != "ab" || docs[1] != "cde" || docs[2] != "" || e.violated != 0 {
			t.Errorf("%s: %q %q %d", f, e.stream, docs, e.violated)
		}
	}
}

func TestEnvelopeEscapedBase64(t *testing.T) {
	doc := []byte{0xff, 0xef, 0xbe, 0xfb, 0xff}
	text := base64.StdEncoding.EncodeToString(doc)
	for _, escaped := range []string{text, strings.ReplaceAll(text, "/", `\/`), strings.ReplaceAll(text, "+", `\u002B`), strings.ReplaceAll(text, "=", `\u003d`)} {
		e, err := scanBody(`{"Records":[{"Data":"` + escaped + `"}]}`)
		if err != nil || e.documents()[0] != string(doc) {
			t.Errorf("%s: %v", escaped, err)
		}
	}
}

func TestEnvelopeSyntaxErrors(t *testing.T) {
	for _, body := range []string{
		``, ` `, `[]`, `{`, `{}x`, `{} {}`, `nul`, `"x"`, `{"Records"}`, `{"Records":}`, `{"Records":[}`, `{"Records":[{]}`, `{"Records":[{"Data":"YWI="},]}`,
		`{"Records":[{"Data":"YWI="}`, `{"Records":[{"Data":"YWI="`, `{"Records":[{"Data":"YWI=`, `{"Records":[{"Data":"YWI="}]`, `{"Records":{}}`, `{"Records":[1]}`, `{"Records":[[]]}`,
		`{"Records":[{"Data":1}]}`, `{"Records":[{"Data":"Y"}]}`, `{"Records":[{"Data":"YWI"}]}`, `{"Records":[{"Data":"Y=I="}]}`, `{"Records":[{"Data":"===="}]}`, `{"Records":[{"Data":"YW\nI=YWI"}]}`,
		"{\"Records\":[{\"Data\":\"YWJj\nYWI=\"}]}", "{\"Records\":[{\"Data\":\"YWJj\r\n\r\nYW=\"}]}", `{"Records":[{"Data":"YWI=YWI="}]}`, `{"Records":[{"Data":"-_-_"}]}`,
		`{"DeliveryStreamName":1}`, `{"a":01}`, `{"a":1.}`, `{"a":-}`, `{"a":1e}`, `{"a":tru}`, `{"a":"\x"}`, `{"a":"\u12"}`, "{\"a\":\"\x01\"}", `{a:1}`, `{"a" 1}`, `{"a":1,}`,
		`{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
	} {
		_, err := scanBody(body)
		var e *awsapi.Error
		if !errors.As(err, &e) || e.Code != awsapi.CodeSerialization {
			t.Errorf("%q: %v", body, err)
		}
	}
}

// reference decodes the body with encoding/json, reading tokens because the
// last of several equal members counts and names are case-sensitive.
type reference struct {
	stream  *string
	records []json.RawMessage
	has     bool
	data    [][]byte // nil: missing
}

func lastMembers(raw []byte) (map[string]json.RawMessage, error) {
	if t := bytes.TrimSpace(raw); len(t) == 0 || t[0] != '{' {
		return nil, errors.New("no object")
	}
	var m map[string]json.RawMessage // exact names; a later value replaces an earlier one
	return m, json.Unmarshal(raw, &m)
}

func referenceDecode(body []byte) (*reference, error) {
	r := &reference{}
	m, err := lastMembers(body)
	if err != nil {
		return nil, err
	}
	if raw, ok := m["DeliveryStreamName"]; ok {
		if err := json.Unmarshal(raw, &r.stream); err != nil {
			return nil, err
		}
	}
	if raw, ok := m["Records"]; ok && string(raw) != "null" {
		r.has = true
		if err := json.Unmarshal(raw, &r.records); err != nil {
			return nil, err
		}
	}
	for _, raw := range r.records {
		if string(raw) == "null" {
			r.data = append(r.data, nil)
			continue
		}
		m, err := lastMembers(raw)
		if err != nil {
			return nil, err
		}
		var text *string
		if d, ok := m["Data"]; ok {
			if err := json.Unmarshal(d, &text); err != nil {
				return nil, err
			}
		}
		if text == nil {
			r.data = append(r.data, nil)
			continue
		}
		if strings.ContainsAny(*text, "\r\n") {
			return nil, errors.New("line break in base64")
		}
		doc, err := base64.StdEncoding.DecodeString(*text)
		if err != nil {
			return nil, err
		}
		r.data = append(r.data, append([]byte{}, doc...))
	}
	return r, nil
}

// FuzzEnvelope holds the scanner to encoding/json. It may refuse more (deep
// nesting; a duplicate member that is not what it should be), never less, and
// what it accepts it must read the same.
func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(`{"DeliveryStreamName":"s","Records":[{"Data":"YWI="},{"Data":"Y2Rl"}]}`))
	f.Add([]byte(`{"DeliveryStreamName": "s", "Records": [{"Data": "YWI="}, {"Data": null}, null, {}]}`))
	f.Add([]byte(`{"X":[1,{"y":"\ud83d\ude00\u00zz"}],"Records":[{"Data":"\u0059\/8="}],"Records":null,"DeliveryStreamName":"\u0041"}`))
	f.Add([]byte(`{"Records":[{"Data":"` + strings.Repeat("QUJD", 40) + `"},{"Data":"` + strings.Repeat("/+8=", 1) + `"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := scanBody(string(body))
		want, wantErr := referenceDecode(body)
		if err != nil {
			if wantErr == nil && !bytes.Contains(body, []byte("[[")) && strings.Count(string(body), "[")+strings.Count(string(body), "{") < depthMax &&
				strings.Count(string(body), "Data") <= len(want.records) && strings.Count(string(body), "Records") <= 1 && strings.Count(string(body), "DeliveryStreamName") <= 1 && !bytes.Contains(body, []byte(`\u`)) {
				t.Fatalf("refused %q: %v", body, err)
			}
			return
		}
		if wantErr != nil {
			t.Fatalf("accepted %q, but: %v", body, wantErr)
		}
		if (e.stream == nil) != (want.stream == nil) || want.stream != nil && strings.ToValidUTF8(string(e.stream), "\uFFFD") != strings.ToValidUTF8(*want.stream, "\uFFFD") && !strings.Contains(*want.stream, "\uFFFD") {
			t.Fatalf("%q: stream %q, want %v", body, e.stream, want.stream)
		}
		if e.hasRecords != want.has || e.records != len(want.data) {
			t.Fatalf("%q: %v %d records, want %v %d", body, e.hasRecords, e.records, want.has, len(want.data))
		}
		missing := 0
		for i, d := range want.data {
			if d == nil {
				missing++
			}
			if i < batchRecordsMax && !bytes.Equal((Docs{e.arena, e.ends}).Doc(i), d) {
				t.Fatalf("%q: record %d is %q, want %q", body, i, (Docs{e.arena, e.ends}).Doc(i), d)
			}
		}
		if missing != e.violated && len(want.data) <= batchRecordsMax {
			t.Fatalf("%q: %d violations, want %d", body, e.violated, missing)
		}
	})
}

// batch returns the body of a put of n documents of about 300 bytes, 400 on
// the wire.
func batch(n int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"DeliveryStreamName":"s","Records":[`)
	doc := []byte(strings.Repeat(`{"symbol":"ABCD","price":"12.3400"}`, 9)[:290])
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"Data":"`)
		b.WriteString(base64.StdEncoding.EncodeToString(doc))
		b.WriteString(`"}`)
	}
	b.WriteString(`]}`)
	return slack(b.String())
}

func BenchmarkEnvelope(b *testing.B) {
	body := batch(500)
	for _, c := range []struct {
		name string
		body []byte
	}{
		{"sdk", body},
		{"spaced", slack(strings.ReplaceAll(strings.ReplaceAll(string(body), `":`, `": `), `},`, `}, `))},
		{"general", slack(strings.ReplaceAll(string(body), `"}`, `" }`))},
		{"escaped", slack(strings.ReplaceAll(string(body), `0`, `\u0030`))},
	} {
		b.Run(c.name, func(b *testing.B) {
			arena := make([]byte, 0, len(c.body))
			var e envelope
			b.ReportAllocs()
			for b.Loop() {
				e.reset(c.body, arena)
				if err := e.scanBatch(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500, "ns/record")
		})
	}
	b.Run("encoding-json", func(b *testing.B) {
		for b.Loop() {
			var v struct {
				DeliveryStreamName string
				Records            []struct{ Data []byte }
			}
			if err := json.NewDecoder(io.NopCloser(bytes.NewReader(body))).Decode(&v); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500, "ns/record")
	})
}

func TestPlain(t *testing.T) {
	for n := range 20 {
		for at := range n {
			for c := range 256 {
				b := bytes.Repeat([]byte{'a'}, n)
				b[at] = byte(c)
				want := n
				if c == '"' || c == '\\' || c < ' ' {
					want = at
				}
				if got := plain(b); got != want {
					t.Fatalf("%q: %d, want %d", b, got, want)
				}
				if at > 0 { // a second one before it
					b[at-1] = '"'
					if got := plain(b); got != at-1 {
						t.Fatalf("%q: %d, want %d", b, got, at-1)
					}
				}
			}
		}
	}
}
