package catalog

import (
	"errors"
	"testing"

	icebergcatalog "github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/catalog/catalogtest"
	"github.com/apache/iceberg-go/table"

	"github.com/tapehouse/tapehouse/internal/record"
)

// TestLibraryConformance runs the library's own suite of catalog tests on ours.
func TestLibraryConformance(t *testing.T) {
	catalogtest.RunCatalogTests(t, catalogtest.Config{
		SupportsNamespaceProperties: true,
		NewCatalog:                  func(t *testing.T) icebergcatalog.Catalog { return newWorld(t).open().Library() },
	})
}

func TestLibraryConflicts(t *testing.T) {
	ctx := t.Context()
	c := newWorld(t).open()
	tbl := mustCreate(t, c, executionsSpec(executions))
	tbl = commit(t, c, Commit{Table: executions, Add: []NewFile{ghost(tbl, date0, 0, 1)}, Through: through(5)})
	id := executions.identifier()
	snapshot := tbl.Snapshot() + 1
	_, _, err := c.Library().CommitTable(ctx, id, []table.Requirement{table.AssertRefSnapshotID("main", &snapshot)},
		[]table.Update{table.NewSetPropertiesUpdate(map[string]string{"a": "b"})})
	if !errors.Is(err, table.ErrCommitFailed) {
		t.Errorf("stale requirement: %v, want ErrCommitFailed", err)
	}
	_, _, err = c.Library().CommitTable(ctx, id, nil, []table.Update{table.NewSetPropertiesUpdate(map[string]string{PropertyThrough: through(4).String()})})
	if !errors.Is(err, ErrConflict) {
		t.Errorf("progress set back by a client: %v", err)
	}
	if _, _, err = c.Library().CommitTable(ctx, table.Identifier{"x", "y"}, nil, nil); !errors.Is(err, icebergcatalog.ErrNoSuchTable) {
		t.Errorf("no table: %v", err)
	}

	// Two tables in one transaction, one of which cannot: neither moves.
	mustCreate(t, c, executionsSpec(corrections))
	set := []table.Update{table.NewSetPropertiesUpdate(map[string]string{"a": "b"})}
	err = c.Library().CommitTransaction(ctx, []table.TableCommit{
		{Identifier: id, Updates: set},
		{Identifier: corrections.identifier(), Updates: set, Requirements: []table.Requirement{table.AssertRefSnapshotID("main", &snapshot)}},
	})
	if !errors.Is(err, table.ErrCommitFailed) {
		t.Errorf("CommitTransaction: %v", err)
	}
	if tbl, err = c.Load(ctx, executions); err != nil || tbl.Properties["a"] != "" {
		t.Errorf("half a transaction was done: %v", err)
	}
	if err := c.Library().CommitTransaction(ctx, []table.TableCommit{{Identifier: id, Updates: set}, {Identifier: corrections.identifier(), Updates: set}}); err != nil {
		t.Error(err)
	}
	if tbl, err = c.Load(ctx, executions); err != nil || tbl.Properties["a"] != "b" || tbl.Through()[key0] != 5 {
		t.Errorf("after the transaction: %v", err)
	}
}

func FuzzDerivation(f *testing.F) {
	f.Add("trade-date(executed_at)")
	f.Add("record-stream")
	f.Fuzz(func(t *testing.T, s string) {
		for _, kind := range []record.Kind{record.Date, record.Long, record.String, record.TimestampTZ} {
			field := record.Field{Name: "x", Type: record.Type{Kind: kind}}
			if parseDerivation(&field, s) != nil {
				continue
			}
			again := record.Field{Name: "x", Type: field.Type}
			if err := parseDerivation(&again, formatDerivation(field)); err != nil || again != field {
				t.Fatalf("%q reads as %+v, then as %+v, %v", s, field, again, err)
			}
		}
	})
}

func FuzzParseType(f *testing.F) {
	for _, s := range []string{"long", "decimal(38, 9)", "fixed[4]", "timestamptz", `{"type":"list","element-id":1,"element":"int","element-required":true}`, `{}`, `{"type":"struct","fields":[]}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		typ, err := parseType(s)
		if err != nil {
			return
		}
		if again, err := parseType(formatType(typ)); err != nil || !again.Equals(typ) {
			t.Fatalf("%q is %v, reads back as %v, %v", s, typ, again, err)
		}
	})
}
