package columnar

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/record"
)

// base is a document of the wide schema up to the column under test.
const base = `{"source":"a","session":"s","epoch":1,"seq":7`

func TestDecodeValues(t *testing.T) {
	l := compile(t, wideSchema(), "")
	for _, c := range []struct {
		member string
		column string
		want   any // a reject's code as code(…)
	}{
		{`"flag":true`, "flag", int64(1)},
		{`"flag":false`, "flag", int64(0)},
		{`"flag":null`, "flag", nil},
		{`"flag":1`, "flag", code(WrongType)},
		{`"flag":"true"`, "flag", code(WrongType)},
		{`"flag":tru`, "flag", code(MalformedJSON)},
		{`"count":2147483647`, "count", int64(2147483647)},
		{`"count":-2147483648`, "count", int64(-2147483648)},
		{`"count":2147483648`, "count", code(OutOfRange)},
		{`"count":-0`, "count", int64(0)},
		{`"count":1.0`, "count", int64(1)},
		{`"count":1e2`, "count", int64(100)},
		{`"count":1.5`, "count", code(Inexact)},
		{`"count":"12"`, "count", int64(12)},
		{`"count":"012"`, "count", code(WrongType)},
		{`"count":012`, "count", code(MalformedJSON)},
		{`"count":+1`, "count", code(MalformedJSON)},
		{`"count":true`, "count", code(WrongType)},
		{`"big":9223372036854775807`, "big", int64(9223372036854775807)},
		{`"big":-9223372036854775808`, "big", int64(-9223372036854775808)},
		{`"big":9223372036854775808`, "big", code(OutOfRange)},
		{`"big":99999999999999999999`, "big", code(OutOfRange)},
		{`"big":1234567890123456`, "big", int64(1234567890123456)},
		{`"big":12345678`, "big", int64(12345678)},
		{`"big":123456789`, "big", int64(123456789)},
		{`"big":1e-400000000000000000000`, "big", code(Inexact)},
		{`"big":1e400000000000000000000`, "big", code(OutOfRange)},
		{`"big":0e400000000000000000000`, "big", int64(0)},
		{`"fee":12.34`, "fee", int64(123400)},
		{`"fee":"12.34"`, "fee", int64(123400)},
		{`"fee":"-12.3400"`, "fee", int64(-123400)},
		{`"fee":12.34000`, "fee", int64(123400)},
		{`"fee":12.34001`, "fee", code(Inexact)},
		{`"fee":99999.9999`, "fee", int64(999999999)},
		{`"fee":100000`, "fee", code(OutOfRange)},
		{`"fee":-100000`, "fee", code(OutOfRange)},
		{`"fee":1.5e1`, "fee", int64(150000)},
		{`"fee":"NaN"`, "fee", code(WrongType)},
		{`"fee":NaN`, "fee", code(MalformedJSON)},
		{`"fee":"1,5"`, "fee", code(WrongType)},
		{`"fee":""`, "fee", code(WrongType)},
		{`"fee":.5`, "fee", code(MalformedJSON)},
		{`"fee":5.`, "fee", code(MalformedJSON)},
		{`"price":"123456789012.123456"`, "price", int64(123456789012123456)},
		{`"price":-0.000001`, "price", int64(-1)},
		{`"ratio":1e999`, "ratio", code(OutOfRange)},
		{`"ratio":[]`, "ratio", code(WrongType)},
		{`"note":""`, "note", ""},
		{`"note":"12345678"`, "note", "12345678"},
		{`"note":"123456789"`, "note", "123456789"},
		{`"note":"a\u0000b"`, "note", "a\x00b"},
		{`"note":"\u0000"`, "note", "\x00"},
		{`"note":"\ud83d\ude00\n\/"`, "note", "😀\n/"},
		{`"note":"Zürich, Straße 5"`, "note", "Zürich, Straße 5"},
		{`"note":"\ud83d"`, "note", code(InvalidUTF8)},
		{`"note":"\ud83d\u0041"`, "note", code(InvalidUTF8)},
		{"\"note\":\"\xff\"", "note", code(InvalidUTF8)},
		{"\"note\":\"a long string \xff\"", "note", code(InvalidUTF8)},
		{"\"note\":\"a\nb\"", "note", code(MalformedJSON)},
		{"\"note\":\"a long string\twith a tab\"", "note", code(MalformedJSON)},
		{`"note":"\x"`, "note", code(MalformedJSON)},
		{`"note":5`, "note", code(WrongType)},
		{`"note":"`, "note", code(MalformedJSON)},
		{`"settled":"2024-02-29"`, "settled", int64(19782)},
		{`"settled":"2023-02-29"`, "settled", code(BadDate)},
		{`"settled":"1900-02-29"`, "settled", code(BadDate)},
		{`"settled":"0000-01-01"`, "settled", int64(-719528)},
		{`"settled":"2024-2-29"`, "settled", code(BadDate)},
		{`"settled":20240229`, "settled", code(WrongType)},
		{`"at":"2026-11-23T14:30:00.123456789Z"`, "at_ns", int64(1795444200123456789)},
		{`"at":"2026-11-23T14:30:00.123456789Z"`, "at", int64(1795444200123456)},
		{`"at":"2026-11-23T14:30:00.123456789Z"`, "trade_date", int64(20780)},
		{`"at":"2026-11-23T09:30:00-05:00"`, "at", int64(1795444200000000)},
		{`"at":"2026-11-23T14:30:00.5Z"`, "at_ns", int64(1795444200500000000)},
		{`"at":"2026-11-23T14:30:00.1234567891Z"`, "at", code(BadTimestamp)},
		{`"at":"2026-11-23T14:30:00"`, "at", code(BadTimestamp)},
		{`"at":"2026-11-23 14:30:00Z"`, "at", code(BadTimestamp)},
		{`"at":"2026-11-23T24:00:00Z"`, "at", code(BadTimestamp)},
		{`"at":"2026-11-23T14:30:60Z"`, "at", code(BadTimestamp)},
		{`"at":"2026-11-23T14:30:00.Z"`, "at", code(BadTimestamp)},
		{`"at":"2026-11-23T14:30:00,5Z"`, "at", code(BadTimestamp)},
		{`"at":"2026-11-22T14:30:00Z"`, "at", code(OutsideSession)},
		{`"at":"2026-11-23T03:59:59.999999999Z"`, "at", code(OutsideSession)},
		{`"at":"1600-11-22T14:30:00Z"`, "at", code(OutOfRange)},
		{`"at":null`, "trade_date", nil},
		{`"at":null`, "at_ns", nil},
		{"\"at\":\"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00:00Z\"", "at", code(MalformedJSON)},
		{`"seen_at_the_gateway_of_the_exchange":"1600-01-01T00:00:00.000001Z"`, "seen_at_the_gateway_of_the_exchange", int64(-11676095999999999)},
		{"\"\x00een_at_the_gateway_of_the_exchange\":\"1600-01-01T00:00:00.000001Z\"", "note", code(MalformedJSON)},
		{`"seen_at_the_gateway_of_the_exchangX":null`, "note", nil},
		{`"fraction":0.1234`, "fraction", int64(1234)},
		{`"fraction":1`, "fraction", code(OutOfRange)},
		{`"note":"x","note":"x"`, "note", code(DuplicateMember)},
		{`"n\u006fte":"x"`, "note", "x"},
		{`"Note":"x"`, "note", nil},
		{`"other":{"a":[1,2,{"b":null}]},"other":1`, "note", nil},
		{`"other":[1,]`, "note", code(MalformedJSON)},
		{`"other":` + strings.Repeat("[", 63) + strings.Repeat("]", 63), "note", nil},
		{`"other":` + strings.Repeat("[", 64) + strings.Repeat("]", 64), "note", code(TooDeep)},
	} {
		doc := []byte(base + "," + c.member + "}")
		d := l.NewDecoder()
		b := d.DecodeDocs([][]byte{doc}, 1)
		var got any
		if len(b.Rejects) > 0 {
			got = code(b.Rejects[0].Code)
			if !b.Rejects[0].HasSequence && b.Rejects[0].Code != MalformedJSON && b.Rejects[0].Code != InvalidUTF8 {
				t.Errorf("%s: no sequence in %+v", doc, b.Rejects[0])
			}
		} else {
			got = b.cell(0, l.schema.Index(c.column))
		}
		if got != c.want {
			t.Errorf("%s: %v, want %v (%v)", doc, got, c.want, b.Rejects)
		}
		checkAgainstReference(t, l, d, doc)
	}
}

type code string

func TestDecodeDocuments(t *testing.T) {
	l := compile(t, wideSchema(), "")
	for _, c := range []struct {
		doc   string
		code  string
		exact bool
	}{
		{base + `}`, "", true},
		{" \n" + base + "}\r\n\t", "", true},
		{base + "}\n", "", true},
		{base + "} x", MalformedJSON, true},
		{base + "}}", MalformedJSON, true},
		{base, MalformedJSON, true},
		{``, MalformedJSON, true},
		{`{}`, MissingMember, true},
		{`[]`, NotAnObject, true},
		{`null`, NotAnObject, true},
		{`{"seq":7,"epoch":1,"session":"s","source":"a"}`, "", true},
		{`{ "source" : "a" , "session" : "s" , "epoch" : 1 , "seq" : 7 }`, "", true},
		{`{"source":"a","session":null,"epoch":1,"seq":7}`, MissingMember, true},
		{base + `,"trade_date":"2026-11-23"}`, "", false},
		{base + `,"unknown":null}`, "", false},
		{base + `,"seen_at_the_gateway_of_the_exchange":"2026-11-23T14:30:00.123456001Z"}`, "", false},
		{base + `,"at":"2026-11-23T14:30:00.123456001Z"}`, "", true},
		{base + `,}`, MalformedJSON, true},
		{`{,"source":"a","session":"s","epoch":1,"seq":7}`, MalformedJSON, true},
		{`{"source":"a""session":"s","epoch":1,"seq":7}`, MalformedJSON, true},
	} {
		b := l.NewDecoder().DecodeDocs([][]byte{[]byte(c.doc)}, 1)
		got := ""
		if len(b.Rejects) == 1 {
			got = b.Rejects[0].Code
		}
		if got != c.code || b.Exact != c.exact || b.Rows+len(b.Rejects) != 1 {
			t.Errorf("%s: code %q exact %t rows %d, want %q %t", c.doc, got, b.Exact, b.Rows, c.code, c.exact)
		}
	}
}

func TestRejectMessageAndSequence(t *testing.T) {
	l := compile(t, wideSchema(), "")
	b := l.NewDecoder().DecodeDocs([][]byte{[]byte(base + `,"fee":12.34567}`), []byte(`{"seq":"9","epoch":"x"`)}, 1)
	r := b.Rejects[0]
	if want := `member "fee" at byte 52: has digits beyond the scale of decimal(9, 4)`; r.Message != want {
		t.Errorf("message %q, want %q", r.Message, want)
	}
	if r.Source != "a" || r.Session != "s" || r.Epoch != 1 || r.Sequence != 7 || !r.HasSequence {
		t.Errorf("sequence of %+v", r)
	}
	if r := b.Rejects[1]; r.Sequence != 9 || r.HasSequence {
		t.Errorf("sequence of %+v", r)
	}
}

// TestDecodeTrades compares fast path and reference on generated records, and
// sees to it that they do take the fast path.
func TestDecodeTrades(t *testing.T) {
	l := compile(t, tradeSchema(), "trade_date")
	d := l.NewDecoder()
	arena, ends := trades(2000, 3)
	for _, doc := range split(arena, ends)[:200] {
		checkAgainstReference(t, l, d, doc)
	}
	d = l.NewDecoder()
	d.parser.stamp = 5
	b := d.Decode(arena, ends, 1)
	if b.Rows != 2000 || !b.Exact {
		t.Fatalf("%d rows, exact %t, %v", b.Rows, b.Exact, b.Rejects)
	}
	if d.parser.stamp != 5 || d.givenUp > 0 {
		t.Errorf("%d records left the program's order, %d went through the general parser", d.parser.stamp-5, d.givenUp)
	}
}

// TestScannerDeviates: what the scanner takes though it is not in the program's
// order or form, and what it must leave to the general parser; both give the
// reference's rows.
func TestScannerDeviates(t *testing.T) {
	l := compile(t, wideSchema(), "")
	for _, c := range []struct {
		doc   string
		exact bool
		given bool // up, to the general parser
	}{
		{base + `,"fee":1.5}`, true, false},
		{base + `,"note":"x","fee":1.5}`, true, false},
		{`{"fee":1.5,"seq":7,"epoch":1,"session":"s","source":"a"}`, true, false},
		{`{"fee": 1.5, "seq": 7, "epoch": 1, "session": "s", "source": "a"}`, true, false},
		{"{ \"source\" :\t\"a\" ,\n\"session\":\"s\",\"epoch\":1,\"seq\":7 }", true, false},
		{base + `,"note":null,"fee":null,"flag":null,"count":null,"at":null,"settled":null,"ratio":null}`, true, false},
		{`{"source":"a","seq":null,"note":null}`, true, true}, // a sequence column is required
		{base + `,"unknown":{"a":[1,"x",{"b":null}],"c":"\u00e9"}}`, false, false},
		{`{"unknown":1,"source":"a","other":[],"session":"s","epoch":1,"seq":7,"x":"y"}`, false, false},
		{base + `,"note":"a \"quoted\" \\ string \u20ac"}`, true, false},
		{base + `,"note":"\n"}`, true, false},
		{base + `,"note":"Grüße aus Köln, 東京"}`, true, false},
		{base + `,"fee":12345.5,"price":"123456789012.123456","big":"17"}`, true, false},
		{base + `,"fee": null,"price": "1.5","big": 17}`, true, false},
		{base + `,"fee":12345.5,"price":"123456789012.123456"}`, true, false},
		{base + `,"fee":-1.25,"price":"-0.5"}`, true, false},
		{base + `,"fee":-1.25e2}`, true, true},
		{base + `,"count":1e2,"big":"1`, true, true},
		{base + `,"seen_at_the_gateway_of_the_exchange":"2026-11-23T14:30:00Z","note":"x"}`, true, false},
		{base + `,"n\u006fte":"x"}`, true, true},
		{base + `,"note":"x","note":"y"}`, true, true},
		{base + `,"source":"a"}`, true, true},
		{base + `,"fee":1.00001}`, true, true},
		{base + `,"unknown":}`, true, true},
		{base + `,"unknown":"` + "\xff" + `"}`, true, true},
		{base + `,"un` + "\xff" + `known":1}`, true, true},
		{base + `,"un\"known":1}`, false, true},
		{base + `,}`, true, true},
		{base + `}}`, true, true},
		{base + `,"note"}`, true, true},
		{base + `,"note`, true, true},
		{base + `,`, true, true},
		{base, true, true},
		{`{}`, true, true},
		{`{ }`, true, true},
	} {
		d := l.NewDecoder()
		b := d.DecodeDocs([][]byte{[]byte(c.doc)}, 1)
		if (d.givenUp > 0) != c.given {
			t.Errorf("%s: given up %t, want %t", c.doc, d.givenUp > 0, c.given)
		}
		if b.Rows > 0 && b.Exact != c.exact {
			t.Errorf("%s: exact %t, want %t", c.doc, b.Exact, c.exact)
		}
		checkAgainstReference(t, l, l.NewDecoder(), []byte(c.doc))
		// The same behind a document that left its marks.
		d = l.NewDecoder()
		d.DecodeDocs([][]byte{[]byte(`{"fee":null,"note":null,"x":1,"flag":true,"seq":1,"epoch":1,"session":"s","source":"z"}`)}, 1)
		checkAgainstReference(t, l, d, []byte(c.doc))
	}
}

// TestDecoderLearns sees a producer's other order compiled after a few records.
func TestDecoderLearns(t *testing.T) {
	l := compile(t, wideSchema(), "")
	d := l.NewDecoder()
	doc := []byte(`{"seq":7,"epoch":1,"note":"x","session":"s","source":"a","fee":null}`)
	docs := slices.Repeat([][]byte{doc}, 100)
	b := d.DecodeDocs(docs, 1)
	if b.Rows != 100 || !b.Exact {
		t.Fatal(b.Rejects)
	}
	if d.parser.stamp != learnAfter || d.givenUp > 0 {
		t.Errorf("%d records left the program's order, want %d; %d went through the general parser", d.parser.stamp, learnAfter, d.givenUp)
	}
	if b.Hash[0] != b.Hash[99] || !reflect.DeepEqual(b.rows()[0][:14], b.rows()[99][:14]) {
		t.Error("rows differ before and after learning")
	}
	checkAgainstReference(t, l, d, []byte(base+`,"note":"y"}`))
}

func TestHashIsOfValues(t *testing.T) {
	l := compile(t, wideSchema(), "")
	hash := func(doc string) uint64 {
		b := l.NewDecoder().DecodeDocs([][]byte{[]byte(doc)}, 1)
		if b.Rows != 1 {
			t.Fatal(b.Rejects)
		}
		return b.Hash[0]
	}
	same := []string{base + `,"fee":1.5,"note":"abc"}`, `{"note":"\u0061bc","fee":"1.50","seq":7,"epoch":1,"session":"s","source":"a"}`, base + `,"fee":1.5,"note":"abc","at":null}`}
	for _, doc := range same[1:] {
		if hash(doc) != hash(same[0]) {
			t.Errorf("%s hashes otherwise", doc)
		}
	}
	for _, doc := range []string{base + `,"fee":1.6,"note":"abc"}`, base + `,"fee":1.5,"note":"abd"}`, base + `,"fee":1.5}`, base + `,"price":1.5,"note":"abc"}`,
		base + `,"fee":1.5,"note":"abc","at":"2026-11-23T14:30:00.000000001Z"}`, base + `,"fee":1.5,"note":"abc","at":"2026-11-23T14:30:00.000000002Z"}`} {
		if hash(doc) == hash(same[0]) {
			t.Errorf("%s hashes the same", doc)
		}
	}
	// The ledger stores hashes: the function must not change.
	if got, want := hash(same[0]), uint64(0x1aaff42905ba22fd); got != want {
		t.Errorf("hash %#x, want %#x", got, want)
	}
}

func TestRuns(t *testing.T) {
	l := compile(t, wideSchema(), "trade_date")
	doc := func(source, session string, epoch, seq int, at string) []byte {
		return fmt.Appendf(nil, `{"source":%q,"session":%q,"epoch":%d,"seq":%d,"at":%q}`, source, session, epoch, seq, at)
	}
	const monday, tuesday = "2026-11-23T14:30:00Z", "2026-11-24T14:30:00Z"
	b := l.NewDecoder().DecodeDocs([][]byte{
		doc("a", "s", 1, 1, monday), doc("a", "s", 1, 2, monday), []byte("bad"), doc("a", "s", 1, 3, tuesday),
		doc("a", "s", 2, 4, tuesday), doc("b", "s", 2, 5, tuesday), doc("b", "s", 2, 7, tuesday), doc("b", "t", 2, 8, tuesday),
	}, 1)
	got := slices.Collect(b.Runs)
	want := []Run{{0, 2, "a", "s", 1, 1, 20780}, {2, 1, "a", "s", 1, 3, 20781}, {3, 1, "a", "s", 2, 4, 20781},
		{4, 1, "b", "s", 2, 5, 20781}, {5, 1, "b", "s", 2, 7, 20781}, {6, 1, "b", "t", 2, 8, 20781}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("runs %v\nwant %v", got, want)
	}
}

func TestDropAndOrigin(t *testing.T) {
	l := compile(t, wideSchema(), "")
	docs := func(exact bool) (docs [][]byte) {
		for i := range 10 {
			switch {
			case i == 4 && !exact:
				docs = append(docs, []byte("bad"))
			case i%3 == 1:
				docs = append(docs, fmt.Appendf(nil, `%s%d,"note":"note %d"}`, base, i, i))
			default:
				docs = append(docs, fmt.Appendf(nil, `%s%d}`, base, i))
			}
		}
		return docs
	}
	k := record.Key{Incarnation: uuid.New(), Shard: 3}
	for _, exact := range []bool{true, false} {
		d := l.NewDecoder()
		b := d.DecodeDocs(docs(exact), 1)
		b.Drop([]int32{0, 3, 8})
		b.SetOrigin(k, 100)
		if b.Docs() != 7 {
			t.Fatalf("%d documents", b.Docs())
		}
		wantDoc, wantOffset := []int32{1, 2, 4, 5, 6, 7, 9}, []record.Offset{100, 101, 102, 103, 104, 105, 106}
		if !exact {
			wantDoc, wantOffset = []int32{1, 2, 5, 6, 7, 8}, []record.Offset{100, 101, 103, 104, 105, 106}
		}
		var offsets []record.Offset
		for r := range b.Rows {
			offsets = append(offsets, b.Offset(r))
		}
		if !slices.Equal(b.Doc, wantDoc) || !slices.Equal(offsets, wantOffset) {
			t.Errorf("documents %v offsets %v, want %v %v", b.Doc, offsets, wantDoc, wantOffset)
		}
		checkReplay(t, d, b)
	}
}

// checkReplay writes the batch's payload, and the raw form of it, and compares
// what comes back.
func checkReplay(t *testing.T, d *Decoder, b *Batch) {
	t.Helper()
	b.SetOrigin(record.Key{Shard: 9}, 1000)
	kind, payload := b.AppendPayload(nil)
	payloads := map[string][]byte{"chosen": payload}
	if kind == PayloadColumnar && len(b.spans) > 0 {
		exact := b.Exact
		b.Exact = false
		_, payloads["raw"] = b.AppendPayload(nil)
		b.Exact = exact
	}
	for name, p := range payloads {
		k := kind
		if name == "raw" {
			k = PayloadRaw
		}
		c, err := d.DecodePayload(k, p, b.Docs(), b.arrivedAt)
		if err != nil {
			t.Fatalf("%s payload: %v", name, err)
		}
		c.SetOrigin(record.Key{Shard: 9}, 1000)
		if !reflect.DeepEqual(c.rows(), b.rows()) || !slices.Equal(c.Hash, b.Hash) {
			t.Fatalf("%s payload replays other rows:\n%v\n%v", name, c.rows(), b.rows())
		}
		if len(c.Rejects) != len(b.Rejects) || c.Exact != b.Exact && len(b.dropped) == 0 {
			t.Fatalf("%s payload replays %d rejects, exact %t; want %d, %t", name, len(c.Rejects), c.Exact, len(b.Rejects), b.Exact)
		}
		checkDocuments(t, d.layout, c)
		for i, r := range c.Rejects {
			w := b.Rejects[i]
			if r.Code != w.Code || r.Message != w.Message || string(r.Raw) != string(w.Raw) || r.Sequence != w.Sequence || r.HasSequence != w.HasSequence {
				t.Fatalf("%s payload replays reject %+v, want %+v", name, r, w)
			}
		}
		c.Release()
	}
}

// TestReplayKeepsTradeDates replays under a calendar that answers otherwise.
func TestReplayKeepsTradeDates(t *testing.T) {
	l := compile(t, wideSchema(), "trade_date")
	moved, err := Compile(wideSchema(), Options{Calendar: noSession{}, Sequence: sequence, Partition: "trade_date"})
	if err != nil {
		t.Fatal(err)
	}
	for _, last := range []string{`}`, `,"unknown":1}`} {
		docs := [][]byte{[]byte(base + `,"at":"2026-11-23T14:30:00Z"` + last), []byte(base + `,"at":"2026-11-22T14:30:00Z"}`), []byte(base + "}")}
		if last == `}` {
			docs = [][]byte{docs[0], docs[2]}
		}
		b := l.NewDecoder().DecodeDocs(docs, 1)
		kind, p := b.AppendPayload(nil)
		c, err := moved.NewDecoder().DecodePayload(kind, p, b.Docs(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(c.rows(), b.rows()) || len(c.Rejects) != len(b.Rejects) {
			t.Errorf("kind %d: %v\n%v", kind, c.rows(), b.rows())
		}
	}
}

type noSession struct{}

func (noSession) Version() string { return "none" }
func (noSession) Interval(int64) (from, to int64, date int32, ok bool) {
	return -1 << 63, 1<<63 - 1, 0, false
}

// TestPayloadProperty replays batches of random documents.
// checkDocuments writes every row as a document again and decodes that.
func checkDocuments(t *testing.T, l *Layout, b *Batch) {
	t.Helper()
	var docs [][]byte
	for row := range b.Rows {
		docs = append(docs, b.AppendDocument(nil, row))
	}
	again := l.NewDecoder().DecodeDocs(docs, b.arrivedAt)
	defer again.Release()
	if len(again.Rejects) > 0 {
		t.Fatalf("a row's document is rejected: %s: %s", again.Rejects[0].Raw, again.Rejects[0].Message)
	}
	if !slices.Equal(again.Hash, b.Hash) {
		t.Fatalf("rows' documents have other content: %s", docs)
	}
}

func TestPayloadProperty(t *testing.T) {
	l := compile(t, wideSchema(), "")
	d := l.NewDecoder()
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var docs [][]byte
		for range r.IntN(40) {
			docs = append(docs, randomDoc(r, r.IntN(4) == 0))
		}
		b := d.DecodeDocs(docs, 5)
		for _, r := range b.Rejects {
			if r.Code == MalformedJSON {
				t.Fatalf("%s: %s", r.Raw, r.Message)
			}
		}
		var drop []int32
		for row := range b.Rows {
			if r.IntN(10) == 0 {
				drop = append(drop, int32(row))
			}
		}
		b.Drop(drop)
		checkReplay(t, d, b)
		b.Release()
	}
}

// randomDoc makes a document of the wide schema; wild ones leave the expected
// order and forms, and may be rejects.
func randomDoc(r *rand.Rand, wild bool) []byte {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	members := []string{
		`"source":"` + pick("a", "match-1", "the long name of a source") + `"`,
		`"session":"` + pick("s", "20261123") + `"`,
		`"epoch":` + pick("1", "2"),
		fmt.Sprintf(`"seq":%d`, r.IntN(1000)),
	}
	optional := []string{
		`"flag":` + pick("true", "false", "null"),
		fmt.Sprintf(`"count":%d`, int32(r.Uint32())),
		fmt.Sprintf(`"big":%d`, int64(r.Uint64())>>r.IntN(64)),
		fmt.Sprintf(`"fee":%d.%04d`, r.IntN(100), r.IntN(10000)),
		fmt.Sprintf(`"price":"%d.%0*d"`, r.IntN(100000), 1+r.IntN(6), r.IntN(10)),
		fmt.Sprintf(`"ratio":%g`, r.NormFloat64()),
		`"note":"` + pick("", "x", "IBM", "Straße", "12345678", "a much longer note", `esc\"aped`) + `"`,
		fmt.Sprintf(`"settled":"20%02d-%02d-%02d"`, r.IntN(100), 1+r.IntN(12), 1+r.IntN(28)),
		fmt.Sprintf(`"at":"2026-11-%02dT%02d:30:%02d.%0*dZ"`, 20+r.IntN(6), r.IntN(24), r.IntN(60), 1+r.IntN(9), r.IntN(10)),
		fmt.Sprintf(`"seen_at_the_gateway_of_the_exchange":"2026-11-23T10:30:%02d%s"`, r.IntN(60), pick("Z", ".123Z", "+02:00", ".123456Z", ".1234567Z")),
		fmt.Sprintf(`"fraction":0.%0*d`, 1+r.IntN(4), r.IntN(10)),
	}
	for _, m := range optional {
		if r.IntN(3) > 0 {
			members = append(members, m)
		}
	}
	sep, pad := ",", ""
	if wild {
		r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		if r.IntN(3) == 0 {
			members = append(members, pick(`"unknown":{"a":[1,"x"]}`, `"note":5`, `"fee":1.00001`, `"count":1e1`, `"big":"17"`))
		}
		sep, pad = pick(",", " ,\n"), pick("", " ")
	}
	return []byte(pad + "{" + pad + strings.Join(members, sep) + "}" + pad)
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	l := compile(t, tradeSchema(), "trade_date")
	d := l.NewDecoder()
	arena, ends := trades(500, 9)
	var out []byte
	once := func() {
		b := d.Decode(arena, ends, 1)
		for range b.Runs {
		}
		_, out = b.AppendPayload(out[:0])
		b.Release()
	}
	once()
	if n := testing.AllocsPerRun(100, once); n > 4 {
		t.Errorf("%v allocations a batch of 500", n)
	}
}

func TestCompileRefuses(t *testing.T) {
	ok := func() record.Schema { return wideSchema() }
	for name, change := range map[string]func(*record.Schema, *Options){
		"no fields":         func(s *record.Schema, _ *Options) { s.Fields = nil },
		"name twice":        func(s *record.Schema, _ *Options) { s.Fields[1].Name = "source" },
		"id twice":          func(s *record.Schema, _ *Options) { s.Fields[1].ID = 100 },
		"quote in name":     func(s *record.Schema, _ *Options) { s.Fields[5].Name = `a"b` },
		"bad decimal":       func(s *record.Schema, _ *Options) { s.Fields[7].Type.Precision = 19 },
		"no calendar":       func(_ *record.Schema, o *Options) { o.Calendar = nil },
		"no source column":  func(s *record.Schema, _ *Options) { s.Fields[14].From = "nowhere" },
		"derived from long": func(s *record.Schema, _ *Options) { s.Fields[14].From = "big" },
		"wrong kind":        func(s *record.Schema, _ *Options) { s.Fields[15].Type.Kind = record.Long },
		"sequence a string": func(_ *record.Schema, o *Options) { o.Sequence.Sequence = "note" },
		"no sequence":       func(_ *record.Schema, o *Options) { o.Sequence.Sequence = "" },
		"partition a long":  func(_ *record.Schema, o *Options) { o.Partition = "big" },
		"zstd level":        func(_ *record.Schema, o *Options) { o.ZstdLevel = 9 },
	} {
		s, o := ok(), Options{Calendar: weekdays{}, Sequence: sequence}
		change(&s, &o)
		if _, err := Compile(s, o); err == nil {
			t.Errorf("%s: compiled", name)
		}
	}
}

func FuzzDecodeAgainstEncodingJSON(f *testing.F) {
	r := rand.New(rand.NewPCG(4, 4))
	for range 30 {
		f.Add(randomDoc(r, false))
		f.Add(randomDoc(r, true))
	}
	f.Add([]byte(base + `,"note":"\ud83d\ude00","fee":"1e-2","big":-9223372036854775808}`))
	l := compile(f, wideSchema(), "")
	f.Fuzz(func(t *testing.T, doc []byte) {
		checkAgainstReference(t, l, l.NewDecoder(), doc)
	})
}

func FuzzDecodePayload(f *testing.F) {
	l := compile(f, wideSchema(), "")
	r := rand.New(rand.NewPCG(5, 5))
	for i := range 10 {
		var docs [][]byte
		for range 1 + r.IntN(20) {
			docs = append(docs, randomDoc(r, i > 7))
		}
		b := l.NewDecoder().DecodeDocs(docs, 1)
		kind, p := b.AppendPayload(nil)
		f.Add(kind, uint16(b.Docs()), p)
	}
	f.Fuzz(func(t *testing.T, kind uint8, count uint16, p []byte) {
		d := l.NewDecoder()
		b, err := d.DecodePayload(kind, p, int(count), 1)
		if err != nil {
			return
		}
		// What was accepted must be usable.
		b.SetOrigin(record.Key{}, 0)
		for range b.Runs {
		}
		builder := l.NewBuilder()
		builder.Append(b)
		if _, err := builder.Flush(); err != nil {
			t.Fatal(err)
		}
		checkReplay(t, d, b)
	})
}
