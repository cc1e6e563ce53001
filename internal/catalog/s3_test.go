package catalog

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/s3test"
)

// TestCommitsThroughFaults: a flush that commits through a network that fails,
// and that decides by the table's through alone whether it was done, loses no
// row and doubles none.
func TestCommitsThroughFaults(t *testing.T) {
	ctx := t.Context()
	server := s3test.Start(t)
	p := s3test.StartProxy(t, server.Endpoint, 100*time.Millisecond)
	w := newS3World(t, server, p.Endpoint)
	c := w.open()
	mustCreate(t, c, executionsSpec(executions))
	p.Plan(s3test.Random(11, 0.5, s3test.Quick()...))
	const flushes, rows = 15, 10
	failed := 0
	for i := range flushes {
		for done := false; !done; {
			now, err := c.Load(ctx, executions)
			if err != nil {
				failed++
				continue
			}
			if int(now.Through()[key0]) == (i+1)*rows {
				break // by an attempt whose answer was an error
			}
			if got := int(now.Through()[key0]); got != i*rows {
				t.Fatalf("through is %d before flush %d", got, i)
			}
			f, err := tryWrite(ctx, c, now, int64(i*rows), rows)
			if err == nil {
				_, err = c.Commit(ctx, []Commit{{Table: executions, Add: []NewFile{f}, Through: through((i + 1) * rows), RequireThrough: ptr(through(i * rows))}})
			}
			if errors.Is(err, ErrPoisoned) {
				t.Fatal(err)
			}
			if err != nil {
				failed++
			}
			done = err == nil
		}
	}
	p.Plan(nil)
	p.Settle()
	fresh := newS3World(t, server, server.Endpoint)
	fresh.dir, fresh.postgres, fresh.database = w.dir, w.postgres, w.database
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = fresh.open()
	tbl, err := c.Load(ctx, executions)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range files(t, c, tbl, At{}) {
		if seen[f.URI()] {
			t.Errorf("%s stands there twice", f.URI())
		}
		seen[f.URI()] = true
		name, _ := fresh.store.Name(f.URI())
		if i, err := fresh.store.Stat(ctx, name); err != nil || i.SizeBytes != f.SizeBytes {
			t.Errorf("%s: %+v, %v", name, i, err)
		}
	}
	if got := rowsOf(files(t, c, tbl, At{})); got != flushes*rows || tbl.Through()[key0] != flushes*rows {
		t.Errorf("%d rows through %d, want %d", got, tbl.Through()[key0], flushes*rows)
	}
	t.Logf("%d faults, %d failed steps", p.Injected(), failed)
	if p.Injected() < 20 {
		t.Errorf("only %d faults", p.Injected())
	}
	// What failed commits left is found and deleted; what is referred to stays.
	fresh.later(48 * time.Hour)
	if _, err := c.DeleteOrphans(ctx, executions, 24*time.Hour, nil); err != nil {
		t.Fatal(err)
	}
	if left, err := c.Orphans(ctx, executions, time.Hour); err != nil || len(left) != 0 {
		t.Errorf("orphans are left: %v, %v", left, err)
	}
	if got := rowsOf(files(t, fresh.open(), tbl, At{})); got != flushes*rows {
		t.Errorf("%d rows after the orphans went", got)
	}
}

// tryWrite puts a data file that nobody reads.
func tryWrite(ctx context.Context, c *Catalog, tbl *Table, first, rows int64) (NewFile, error) {
	f := ghost(tbl, date0, first, rows)
	f.Stats.SizeBytes = 4
	return f, c.store.PutAll(ctx, []lake.Object{{Name: f.Path, Data: []byte("PAR1")}})
}
