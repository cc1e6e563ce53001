package catalog

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tapehouse/tapehouse/internal/hive"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func symbolsTable() *hive.Table {
	return &hive.Table{Type: hive.ExternalTable, Parameters: map[string]string{hive.ParamClassification: "csv"},
		Storage:       &hive.Storage{Location: "s3://lake/symbols/", Columns: []hive.Column{{Name: "symbol", Type: "string"}}},
		PartitionKeys: []hive.Column{{Name: "trade_date", Type: "string"}}}
}

func TestExternalLifeCycle(t *testing.T) {
	c := newFastWorld(t).open()
	ctx := t.Context()
	name := Name{"files", "symbols"}
	create := ExternalChange{Table: name, Define: symbolsTable()}
	if err := c.ChangeExternals(ctx, []ExternalChange{create}); !errors.Is(err, ErrNotFound) {
		t.Fatalf("create without a namespace: %v, want ErrNotFound", err)
	}
	must(t, c.CreateNamespace(ctx, "files", nil))
	must(t, c.ChangeExternals(ctx, []ExternalChange{create}))
	if err := c.ChangeExternals(ctx, []ExternalChange{create}); !errors.Is(err, ErrExists) {
		t.Fatalf("create twice: %v, want ErrExists", err)
	}
	if _, err := c.CreateTable(ctx, executionsSpec(name)); !errors.Is(err, ErrExists) {
		t.Fatalf("a managed table of the same name: %v, want ErrExists", err)
	}
	if err := c.DropNamespace(ctx, "files"); !errors.Is(err, ErrConflict) {
		t.Fatalf("drop a namespace that has an external table: %v, want ErrConflict", err)
	}
	e, err := c.External(ctx, name)
	must(t, err)
	if e.Version != 1 || e.Definition.Storage.Location != "s3://lake/symbols/" || e.Definition.PartitionKeys[0].Name != "trade_date" {
		t.Fatalf("read back %+v", e)
	}

	wider := symbolsTable()
	wider.Storage.Columns = append(wider.Storage.Columns, hive.Column{Name: "lot", Type: "int"})
	must(t, c.ChangeExternals(ctx, []ExternalChange{{Table: name, IfVersion: 1, Define: wider}}))
	err = c.ChangeExternals(ctx, []ExternalChange{{Table: name, IfVersion: 1, Define: wider}})
	if !errors.Is(err, ErrConflict) {
		t.Fatalf("a stale version: %v, want ErrConflict", err)
	}
	must(t, c.ChangeExternals(ctx, []ExternalChange{{Table: name, IfVersion: AnyVersion, Define: wider, Unarchived: true}}))
	versions, err := c.ExternalVersions(ctx, name)
	must(t, err)
	if len(versions) != 2 || versions[0].Version != 3 || versions[1].Version != 1 || len(versions[1].Definition.Storage.Columns) != 1 {
		t.Fatalf("versions %+v, want 3 and 1", versions)
	}
	if err := c.DropExternalVersion(ctx, name, 3); !errors.Is(err, ErrInvalid) {
		t.Fatalf("drop the current version: %v, want ErrInvalid", err)
	}
	must(t, c.DropExternalVersion(ctx, name, 1))
	if err := c.DropExternalVersion(ctx, name, 1); !errors.Is(err, ErrNotFound) {
		t.Fatalf("drop a version twice: %v, want ErrNotFound", err)
	}

	must(t, c.ChangeExternals(ctx, []ExternalChange{{Table: name, IfVersion: AnyVersion, Drop: true}}))
	if _, err := c.External(ctx, name); !errors.Is(err, ErrNotFound) {
		t.Fatalf("read a dropped table: %v, want ErrNotFound", err)
	}
	must(t, c.DropNamespace(ctx, "files"))
}

func TestExternalPartitions(t *testing.T) {
	c := newFastWorld(t).open()
	ctx := t.Context()
	name := Name{"files", "symbols"}
	must(t, c.CreateNamespace(ctx, "files", nil))
	var put []hive.Partition
	for day := range 30 {
		put = append(put, hive.Partition{Values: []string{fmt.Sprintf("2026-11-%02d", day+1)}, Parameters: map[string]string{"n": fmt.Sprint(day)}})
	}
	must(t, c.ChangeExternals(ctx, []ExternalChange{{Table: name, Define: symbolsTable(), Put: put}}))

	// Pages add up to everything, once and in order.
	var seen []string
	var after []string
	for {
		n := 0
		must(t, c.ExternalPartitions(ctx, name, PartitionsPage{After: after}, func(p ExternalPartition) bool {
			seen, after = append(seen, p.Values[0]), p.Values
			n++
			return n < 7
		}))
		if n == 0 {
			break
		}
	}
	if len(seen) != 30 || !slices.IsSorted(seen) {
		t.Fatalf("pages give %q", seen)
	}

	// More than one statement reads or writes.
	many := Name{"files", "many"}
	var thousands []hive.Partition
	for n := range 2*rowsMax + 1 {
		thousands = append(thousands, hive.Partition{Values: []string{fmt.Sprintf("%06d", n)}})
	}
	thousands = append(thousands, hive.Partition{Values: []string{"000000"}, Parameters: map[string]string{"n": "last"}})
	must(t, c.ChangeExternals(ctx, []ExternalChange{{Table: many, Define: symbolsTable(), Put: thousands}}))
	seen = nil
	must(t, c.ExternalPartitions(ctx, many, PartitionsPage{Wanted: func(v []string) bool { return v[0] >= "000100" }}, func(p ExternalPartition) bool {
		seen = append(seen, p.Values[0])
		return true
	}))
	if len(seen) != 2*rowsMax+1-100 || !slices.IsSorted(seen) {
		t.Errorf("%d partitions are visited, want %d", len(seen), 2*rowsMax+1-100)
	}
	if first, err := c.FindPartitions(ctx, many, []string{"000000"}); err != nil || first[0] == nil || first[0].Parameters["n"] != "last" {
		t.Errorf("of two with the same values: %+v, %v, want the last one", first, err)
	}
	var drop [][]string
	for _, p := range thousands[1:] {
		drop = append(drop, p.Values)
	}
	must(t, c.ChangeExternals(ctx, []ExternalChange{{Table: many, IfVersion: AnyVersion, Remove: drop}}))
	must(t, c.ExternalPartitions(ctx, many, PartitionsPage{}, func(p ExternalPartition) bool {
		t.Errorf("partition %v was removed", p.Values)
		return true
	}))

	taken, err := c.AddPartitions(ctx, name, []hive.Partition{{Values: []string{"2026-11-30"}}, {Values: []string{"2026-12-01"}}, {Values: []string{"2026-12-01"}}})
	must(t, err)
	if !slices.Equal(taken, []int{0, 2}) {
		t.Errorf("AddPartitions refused %v, want 0 and 2", taken)
	}
	missing, taken, err := c.UpdatePartitions(ctx, name, []PartitionUpdate{
		{[]string{"2026-11-01"}, hive.Partition{Values: []string{"2026-11-01"}, Parameters: map[string]string{"n": "new"}}},
		{[]string{"2026-11-02"}, hive.Partition{Values: []string{"2027-01-01"}}},
		{[]string{"2026-11-03"}, hive.Partition{Values: []string{"2026-11-04"}}},
		{[]string{"1999-01-01"}, hive.Partition{Values: []string{"1999-01-01"}}},
	})
	must(t, err)
	if !slices.Equal(missing, []int{3}) || !slices.Equal(taken, []int{2}) {
		t.Errorf("UpdatePartitions: missing %v taken %v, want 3 and 2", missing, taken)
	}
	missing, err = c.RemovePartitions(ctx, name, []string{"2026-11-05"}, []string{"1999-01-01"})
	must(t, err)
	if !slices.Equal(missing, []int{1}) {
		t.Errorf("RemovePartitions: missing %v, want 1", missing)
	}
	found, err := c.FindPartitions(ctx, name, []string{"2026-11-01"}, []string{"2026-11-02"}, []string{"2027-01-01"}, []string{"2026-11-05"})
	must(t, err)
	if found[0] == nil || found[0].Parameters["n"] != "new" || found[1] != nil || found[2] == nil || found[3] != nil {
		t.Errorf("found %+v", found)
	}

	// A new table of the name has none of the former one's partitions.
	must(t, c.ChangeExternals(ctx, []ExternalChange{{Table: name, IfVersion: AnyVersion, Drop: true}}))
	must(t, c.ChangeExternals(ctx, []ExternalChange{{Table: name, Define: symbolsTable()}}))
	must(t, c.ExternalPartitions(ctx, name, PartitionsPage{}, func(p ExternalPartition) bool {
		t.Errorf("partition %v came back", p.Values)
		return true
	}))
}

// TestExternalChangesAreOneStep: when one change fails, none is made.
func TestExternalChangesAreOneStep(t *testing.T) {
	c := newFastWorld(t).open()
	ctx := t.Context()
	must(t, c.CreateNamespace(ctx, "files", nil))
	a, b := Name{"files", "a"}, Name{"files", "b"}
	must(t, c.ChangeExternals(ctx, []ExternalChange{{Table: b, Define: symbolsTable()}}))
	err := c.ChangeExternals(ctx, []ExternalChange{
		{Table: a, Define: symbolsTable(), Put: []hive.Partition{{Values: []string{"x"}}}},
		{Table: b, IfVersion: 7, Define: symbolsTable()},
	}, DocumentWrite{Kind: "crawl", Key: "k", Body: []byte(`{}`)})
	if !errors.Is(err, ErrConflict) {
		t.Fatalf("got %v, want ErrConflict", err)
	}
	if _, err := c.External(ctx, a); !errors.Is(err, ErrNotFound) {
		t.Errorf("the first change was made: %v", err)
	}
	if _, err := c.GetDocument(ctx, "crawl", "k"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the document was written: %v", err)
	}
}

// TestUpgradeFromVersion1 opens a database as the first version left it.
func TestUpgradeFromVersion1(t *testing.T) {
	dir := newSQLiteWorld(t).dir
	db, err := sql.Open("sqlite", filepath.Join(dir, databaseName))
	must(t, err)
	for _, s := range append(slices.Clone(schema[0]), `INSERT INTO iceberg_namespace_properties VALUES ('tapehouse', 'old', 'exists', 'true')`) {
		_, err := db.Exec(s)
		must(t, err)
	}
	must(t, db.Close())
	o := Options{Dir: dir, Warehouse: newFastWorld(t).store}
	o.ReadOnly = true
	if _, err := Open(t.Context(), o); err == nil {
		t.Error("a former version opened read-only: want an error that says how to upgrade it")
	}
	o.ReadOnly = false
	c, err := Open(t.Context(), o)
	must(t, err)
	defer func() { must(t, c.Close()) }()
	must(t, c.ChangeExternals(t.Context(), []ExternalChange{{Table: Name{"old", "t"}, Define: symbolsTable()}}))
}
