package delivery

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/record"
)

// upper is a transform that takes 20 bytes at once.
type upper struct{ batches []int }

func (u *upper) Apply(_ context.Context, records []TransformRecord) ([]TransformResult, error) {
	size := 0
	out := make([]TransformResult, len(records))
	for i, r := range records {
		size += len(r.Data)
		out[i] = TransformResult{Data: bytes.ToUpper(r.Data), Keys: map[string]string{"id": r.ID[len(r.ID)-2:]}, Operation: "insert"}
		switch {
		case string(r.Data) == "drop":
			out[i] = TransformResult{Kind: Dropped}
		case string(r.Data) == "update":
			out[i].Operation = "update"
		case string(r.Data) == "stop":
			return nil, errors.New("stopped")
		}
	}
	u.batches = append(u.batches, size)
	return out, nil
}

func (u *upper) BatchBytesMax() int { return 20 }
func (u *upper) Local() bool        { return false }
func (u *upper) Close() error       { return errors.New("closed") }

func zipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestPipelineSteps(t *testing.T) {
	envelope := `{"messageType":"DATA_MESSAGE","logEvents":[{"message":"{\"n\":1}{\"n\":2}"},{"message":"{\"n\":3}"}]}`
	for name, c := range map[string]struct {
		p    Pipeline
		data []byte
		want string
	}{
		"nothing":         {Pipeline{}, []byte("x"), "x"},
		"gunzip":          {Pipeline{Gunzip: true}, zipped(t, "x"), "x"},
		"not gzip":        {Pipeline{Gunzip: true}, []byte("x"), "!Decompression.InvalidData: the record is not gzip"},
		"cut gzip":        {Pipeline{Gunzip: true}, zipped(t, "x")[:12], "!Decompression.InvalidData: decompress"},
		"bomb":            {Pipeline{Gunzip: true}, zipped(t, strings.Repeat("0", inflatedBytesMax+1)), "!Decompression.InvalidData: the record is larger than"},
		"delimiter":       {Pipeline{Split: &Split{Delimiter: []byte("||")}}, []byte("a||||b||"), "a|b"},
		"documents":       {Pipeline{Split: &Split{}}, []byte(`{"a":1} {"b":2}` + "\n{}"), `{"a":1}|{"b":2}|{}`},
		"no document":     {Pipeline{Split: &Split{}}, []byte(`{"a":1} {`), "!RecordDeAggregation.InvalidData: "},
		"empty":           {Pipeline{Split: &Split{}}, []byte(" "), "!RecordDeAggregation.InvalidData: "},
		"many":            {Pipeline{Split: &Split{}}, bytes.Repeat([]byte("{} "), piecesMax+1), "!RecordDeAggregation.InvalidData: the record holds more than"},
		"messages":        {Pipeline{Gunzip: true, Messages: true, Split: &Split{}}, zipped(t, envelope), `{"n":1}|{"n":2}|{"n":3}`},
		"control":         {Pipeline{Messages: true}, []byte(`{"messageType":"CONTROL_MESSAGE","logEvents":[{"message":"x"}]}`), "-"},
		"no envelope":     {Pipeline{Messages: true}, []byte(`{}`), `!CloudWatchLogProcessing.InvalidData: the record is no envelope of CloudWatch Logs: messageType is ""`},
		"no message":      {Pipeline{Messages: true}, []byte(`{"messageType":"DATA_MESSAGE","logEvents":[{}]}`), "!CloudWatchLogProcessing.InvalidData: event 1"},
		"cannot extract":  {Pipeline{Extract: func([]byte) (Extracted, error) { return Extracted{}, errors.New("no key") }}, []byte("x"), "!DynamicPartitioning.MetadataExtractionFailed: no key"},
		"other operation": {Pipeline{Extract: func([]byte) (Extracted, error) { return Extracted{Operation: "merge"}, nil }}, []byte("x"), `!Iceberg.OperationNotSupported: The operation "merge"`},
	} {
		out, err := c.p.Process(t.Context(), []SourceRecord{{Data: c.data}})
		if err != nil || len(out) != 1 {
			t.Fatal(name, out, err)
		}
		var got []string
		for _, o := range out[0] {
			switch o.Kind {
			case Dropped:
				got = append(got, "-")
			case Failed:
				got = append(got, "!"+o.Code+": "+o.Message)
			default:
				got = append(got, string(o.Data))
			}
		}
		if text := strings.Join(got, "|"); text != c.want && (!strings.HasPrefix(c.want, "!") || !strings.HasPrefix(text, c.want)) {
			t.Errorf("%s: %.200s, want %s", name, text, c.want)
		}
	}
}

func TestPipelineTransformsInBatches(t *testing.T) {
	u := &upper{}
	p := Pipeline{Split: &Split{Delimiter: []byte(",")}, Function: u, Extract: func(b []byte) (Extracted, error) {
		return Extracted{Keys: map[string]string{"n": fmt.Sprint(len(b))}, Table: catalog.Name{Namespace: "n", Table: "t"}}, nil
	}}
	if p.Local() || p.BatchBytesMax() != 20 || p.Close() == nil {
		t.Fatal("the function's figures are not the pipeline's")
	}
	id := record.ID{Key: record.Key{Incarnation: record.Incarnation{1}}}
	out, err := p.Process(t.Context(), []SourceRecord{{ID: id, Data: []byte("aaaaaaaaaa,bbbbbbbbbb,c")}, {ID: id, Data: []byte("drop")}, {ID: id, Data: []byte("update,d")}})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(u.batches) != "[20 12]" {
		t.Errorf("batches of %v bytes", u.batches)
	}
	if len(out[0]) != 3 || string(out[0][2].Data) != "C" || out[0][2].Keys["partitionKeyFromLambda:id"] != ".2" || out[0][2].Keys["partitionKeyFromQuery:n"] != "1" || out[0][2].Table.Table != "t" {
		t.Errorf("%+v", out[0])
	}
	if out[1][0].Kind != Dropped || out[2][0].Operation != "update" || string(out[2][1].Data) != "D" {
		t.Errorf("%+v", out[1:])
	}
	if _, err := p.Process(t.Context(), []SourceRecord{{Data: []byte("stop")}}); err == nil {
		t.Error("an error of the transform is passed over")
	}
}

// Records that decompress to much are processed some at a time.
func TestPipelineIsBoundedInBytes(t *testing.T) {
	const n = 6
	one := zipped(t, strings.Repeat("0", 12<<20))
	records := make([]SourceRecord, n)
	for i := range records {
		records[i].Data = one
	}
	p := Pipeline{Gunzip: true}
	for left := records; len(left) > 0; {
		out, err := p.Process(t.Context(), left)
		if err != nil || len(out) == 0 {
			t.Fatal(len(out), err)
		}
		size := 0
		for _, o := range out {
			if len(o) != 1 || o[0].Kind != Processed {
				t.Fatalf("%+v", o)
			}
			size += len(o[0].Data)
		}
		if size > processBytesMax+inflatedBytesMax {
			t.Fatalf("%d bytes at once", size)
		}
		left = left[len(out):]
	}
}
