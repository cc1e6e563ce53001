package catalog

import (
	"errors"
	"path/filepath"
	"testing"
)

// TestCopyTo: a copy has the tables, progress and documents of one instant, and
// names every file that it needs.
func TestCopyTo(t *testing.T) {
	w := newWorld(t)
	c := w.open()
	tbl := mustCreate(t, c, executionsSpec(executions))
	v := through(10)
	commit(t, c, Commit{Table: executions, Add: []NewFile{written(t, c, tbl, 20000, 0, 10)}, Through: v})
	_, err := c.PutDocument(t.Context(), DocumentWrite{Kind: "k", Key: "a", Body: []byte(`1`)})
	must(t, err)
	dir := filepath.Join(t.TempDir(), "copy")
	if inPostgres {
		if err := c.CopyTo(t.Context(), dir); !errors.Is(err, ErrUnsupported) {
			t.Errorf("CopyTo = %v, want ErrUnsupported", err)
		}
		return
	}
	must(t, c.CopyTo(t.Context(), dir))
	commit(t, c, Commit{Table: executions, Add: []NewFile{written(t, c, tbl, 20000, 10, 10)}, Through: through(20)})

	copied, err := Open(t.Context(), Options{Dir: dir, Warehouse: w.store, ReadOnly: true})
	must(t, err)
	defer func() { must(t, copied.Close()) }()
	got, err := copied.Load(t.Context(), executions)
	must(t, err)
	if !got.Through().Covers(v) || got.Through().Covers(through(20)) {
		t.Errorf("the copy has progress %s", got.Through())
	}
	if _, err := copied.GetDocument(t.Context(), "k", "a"); err != nil {
		t.Error(err)
	}
	used, err := copied.Referenced(t.Context())
	must(t, err)
	data := 0
	for name := range used {
		if _, err := w.store.Stat(t.Context(), name); err != nil {
			t.Errorf("%s is referred to: %v", name, err)
		}
		if !InTableDirectory(name) {
			t.Errorf("%s lies in no table's directory", name)
		}
		if filepath.Ext(name) == ".parquet" {
			data++
		}
	}
	if data != 1 || len(used) < 4 {
		t.Errorf("%d files are referred to, %d of data: %v", len(used), data, used)
	}
	if err := c.CopyTo(t.Context(), dir); err == nil {
		t.Error("a copy was overwritten")
	}
}
