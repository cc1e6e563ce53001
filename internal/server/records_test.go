package server

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/fsys"
)

// A record is followed from its put to its file, a reject to its error object
// and back through the stream.
func TestTraceAndReplay(t *testing.T) {
	s := open(t, testConfig(t))
	aws := client(t, s)
	operator, err := console.Dial(t.Context(), fsys.OS, s.cfg.Data)
	if err != nil {
		t.Fatal(err)
	}
	defer operator.Close()
	one := func(doc string) string {
		t.Helper()
		var out struct{ RecordId string }
		if err := aws.Call(t.Context(), "PutRecord", jsonObject{"DeliveryStreamName": "executions", "Record": jsonObject{"Data": []byte(doc)}}, &out); err != nil {
			t.Fatal(err)
		}
		return out.RecordId
	}
	good := string(newLeg("ME1-EXE", 1).document(t))
	bad := strings.Replace(string(newLeg("ME1-EXE", 2).document(t)), `"price":`, `"price":"x","was":`, 1)
	goodID, badID, nothingID := one(good), one(bad), one("no json")
	trace := func(id string) (console.Trace, console.TracePlace) {
		t.Helper()
		v, err := operator.Trace(t.Context(), console.TraceRequest{RecordID: id})
		if err != nil || len(v.Places) != 1 {
			t.Fatalf("%+v %v", v, err)
		}
		return v, v.Places[0]
	}
	if v, p := trace(goodID); v.Stream != "executions" || p.Outcome != "row" || p.File != "" || v.Record == "" || v.ArrivedAt == nil {
		t.Errorf("%+v", v)
	}
	if _, p := trace(badID); p.Outcome != "rejected" || p.Code == "" || len(p.Objects) != 0 {
		t.Errorf("%+v", p)
	}
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	v, p := trace(goodID)
	if p.File == "" || p.Snapshot == 0 || p.State != "a row of the table" {
		t.Errorf("%+v", p)
	}
	if _, err := os.Stat(p.File); err != nil {
		t.Error(err)
	}
	var shown strings.Builder
	if err := v.WriteText(&shown); err != nil || !strings.Contains(shown.String(), p.File) {
		t.Error(shown.String(), err)
	}
	_, p = trace(badID)
	if p.State != "in the error output" || len(p.Objects) != 1 {
		t.Fatalf("%+v", p)
	}
	if _, err := os.Stat(filepath.Join(s.dir("lake"), p.Objects[0])); err != nil {
		t.Error(err)
	}
	if v, err := operator.Trace(t.Context(), console.TraceRequest{RecordID: one(good)}); err != nil || !strings.HasPrefix(v.State, "a duplicate") {
		t.Errorf("%+v %v", v, err)
	}
	if _, err := operator.Trace(t.Context(), console.TraceRequest{RecordID: "x"}); !console.IsCode(err, console.CodeInvalid) {
		t.Error(err)
	}

	// As it is, the object fails again and resolves nothing.
	conn := connect(t, s)
	rows := func() string { return text(t, conn, "SELECT count(*) FROM executions") }
	replay := func(q console.ReplayRequest, put, known, refused int64) {
		t.Helper()
		q.Stream = "executions"
		v, err := operator.Replay(t.Context(), q)
		if err != nil || v.Put != put || v.Known != known || v.RefusedCount != refused {
			t.Errorf("%+v: %+v %v", q, v, err)
		}
	}
	line := func(id string, doc []byte) json.RawMessage {
		return json.RawMessage(fmt.Sprintf(`{"recordId":%q,"data":%s}`, id, doc))
	}
	fixed := console.ReplayRequest{Lines: []json.RawMessage{line(badID, newLeg("ME1-EXE", 2).document(t)), line(nothingID, newLeg("ME1-EXE", 3).document(t)), json.RawMessage(`{}`)}}
	replay(fixed, 2, 0, 1)
	replay(fixed, 0, 2, 1)
	replay(console.ReplayRequest{Object: p.Objects[0]}, 0, 2, 0) // their records have been replaced
	if n := rows(); n != "3" {
		t.Error(n, "rows")
	}
	if left := s.ledger.Unkeyed(); len(left) != 0 {
		t.Errorf("unresolved: %v", left)
	}
	for _, q := range []console.ReplayRequest{{Stream: "nobody", Object: "x"}, {Stream: "executions", Object: "errors/none"}, {Stream: "executions", From: &console.ReplayRange{Stream: "nobody"}}} {
		if _, err := operator.Replay(t.Context(), q); !console.IsCode(err, console.CodeNotFound) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	// A range of the log goes through another stream, once.
	if err := aws.Call(t.Context(), "CreateDeliveryStream", extended("copy", jsonObject{"Prefix": "copy/"}), nil); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int64{3, 0} {
		v, err := operator.Replay(t.Context(), console.ReplayRequest{Stream: "copy", From: &console.ReplayRange{Stream: "executions", First: 0, Last: 2}})
		if err != nil || v.Put != want {
			t.Errorf("range, time %d: %+v %v", i, v, err)
		}
	}
	if files := flushed(t, s, "copy", "copy"); len(files) != 1 {
		t.Errorf("%d objects", len(files))
	}
}
