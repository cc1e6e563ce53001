package delivery

import (
	"errors"
	"testing"

	"github.com/tapehouse/tapehouse/internal/record"
)

func TestTrace(t *testing.T) {
	h := startStream(t, routedStream)
	if _, err := h.m.Create(t.Context(), Config{Name: "d", Namespace: "n", Table: "v", SizeBytes: 1 << 30, Interval: 1 << 60}); err != nil {
		t.Fatal(err)
	}
	s, _ := h.m.Stream("s")
	d, _ := h.m.Stream("d")
	docs := []string{doc(1, 1), "u:" + doc(2, 2), "fail", "drop", "no json"}
	r, err := h.put(docs...)
	if err != nil {
		t.Fatal(err)
	}
	direct, err := d.Put(t.Context(), docsOf(doc(5, 5), "nothing", doc(5, 6)))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.processed(t.Context()); err != nil {
		t.Fatal(err)
	}
	outcome := func(r Receipt, i int, role, table string) TraceDestination {
		t.Helper()
		id, err := record.ParseID(string(r.AppendRecordID(nil, i)))
		if err != nil {
			t.Fatal(err)
		}
		tr, err := h.m.Trace(t.Context(), id)
		if err != nil || !tr.Known {
			t.Fatal(tr, err)
		}
		for _, d := range tr.Destinations {
			if d.Role == role && d.Table.Table == table {
				return d
			}
		}
		t.Fatalf("no destination %s %s: %+v", role, table, tr)
		return TraceDestination{}
	}
	check := func(delivered bool) {
		t.Helper()
		for _, c := range []struct {
			r           Receipt
			i           int
			role, table string
			want        TraceOutcome
			code        string
		}{
			{r, 0, "table", "t", TraceRow, ""}, {r, 0, "table", "u", TraceNothing, ""}, {r, 1, "table", "u", TraceRow, ""},
			{r, 2, roleErrors, "", TraceFailed, "Lambda.FunctionError"}, {r, 3, roleErrors, "", TraceDropped, ""}, {r, 4, "table", "t", TraceRejected, "NotAnObject"},
			{direct, 0, "table", "v", TraceRow, ""}, {direct, 1, "table", "v", TraceRejected, "NotAnObject"}, {direct, 2, "table", "v", TraceConflict, SequenceConflict},
		} {
			got := outcome(c.r, c.i, c.role, c.table)
			if got.Outcome != c.want || got.Code != c.code || got.Delivered != delivered {
				t.Errorf("record %d in %s%s: %+v, want %s %s", c.i, c.role, c.table, got, c.want, c.code)
			}
		}
	}
	check(false)
	if err := h.m.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(true)

	id, _ := record.ParseID(string(r.AppendRecordID(nil, 0)))
	tr, err := h.m.Trace(t.Context(), id)
	if err != nil || string(tr.Document) != docs[0] || !tr.InLog || tr.ArrivedAt.IsZero() {
		t.Fatalf("%+v %v", tr, err)
	}
	id.Offset = 99
	if tr, err := h.m.Trace(t.Context(), id); err != nil || tr.Known {
		t.Errorf("a record that was never put: %+v %v", tr, err)
	}
	id.Key.Incarnation = record.Incarnation{1}
	if _, err := h.m.Trace(t.Context(), id); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestTraceNamesObjects(t *testing.T) {
	h := startStream(t, objectStream)
	s, _ := h.m.Stream("s")
	r, err := h.put("a", "two")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := h.put("more"); err != nil {
			t.Fatal(err)
		}
	}
	id, _ := record.ParseID(string(r.AppendRecordID(nil, 1)))
	tr, err := h.m.Trace(t.Context(), id)
	if err != nil || len(tr.Destinations) != 2 {
		t.Fatalf("%+v %v", tr, err)
	}
	for _, d := range tr.Destinations {
		if d.Outcome != TraceObject || !d.Delivered || d.ObjectTotal != 1 || len(d.Objects) != 1 {
			t.Errorf("%+v", d)
		}
	}
}
