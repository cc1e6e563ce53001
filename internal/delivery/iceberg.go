package delivery

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/columnar"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/lake"
	"github.com/tapehouse/tapehouse/internal/record"
)

// Iceberg delivers a stream into a managed table: row groups are copied into
// write-once data files, one a partition, and one commit adds them and moves
// the table's through.
type Iceberg struct {
	Catalog *catalog.Catalog
	Lake    lake.Store
	FS      fsys.FS
	Staging string // local directory for files in the making
	Table   catalog.Name
	Stream  record.StreamName
	Keys    []string       // of a table whose records update and delete
	Engine  *engine.Engine // finds their rows; required with Keys
}

// State implements Destination.
func (d *Iceberg) State(ctx context.Context, key record.Key) (State, error) {
	t, err := d.Catalog.Load(ctx, d.Table)
	if err != nil {
		return State{}, err
	}
	if foreign := t.Foreign(); len(foreign) > 0 {
		return State{}, fmt.Errorf("table %s: column %q has type %s, which a stream cannot fill: use boolean, int, long, decimal, double, string, date or timestamptz", d.Table, foreign[0].Name, foreign[0].Type)
	}
	return State{Schema: t.Schema, Schemas: t.FormerSchemas(), Sequence: t.Sequence, Partition: t.PartitionBy, Through: t.Through()[key]}, nil
}

// Evolve implements Evolver.
func (d *Iceberg) Evolve(ctx context.Context, add, widen []record.Field) error {
	for _, f := range add {
		if _, err := d.Catalog.AddColumn(ctx, d.Table, f); err != nil && !errors.Is(err, catalog.ErrExists) {
			return err
		}
	}
	for _, f := range widen {
		if _, err := d.Catalog.Widen(ctx, d.Table, f.Name, f.Type); err != nil {
			return err
		}
	}
	return nil
}

// Deliver implements Destination.
func (d *Iceberg) Deliver(ctx context.Context, dl Delivery) error {
	t, err := d.Catalog.Load(ctx, d.Table)
	if err != nil {
		return err
	}
	if len(dl.Removals) > 0 {
		return d.publish(ctx, t, dl)
	}
	commit := catalog.Commit{
		Table:          d.Table,
		Through:        record.Vector{dl.Key: dl.To},
		RequireThrough: &record.Vector{dl.Key: dl.From},
		Summary:        d.summary(dl),
	}
	// A file has one partition and one schema.
	type kind struct {
		partition catalog.Partition
		schema    int
	}
	var order []kind
	groups := map[kind][]TailFile{}
	for _, p := range dl.Parts {
		k := kind{p.Partition, p.Meta.SchemaID}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], p)
	}
	for _, k := range order {
		f, err := d.write(ctx, t, dl, k.partition, groups[k])
		if err != nil {
			return err
		}
		commit.Add = append(commit.Add, f)
	}
	_, err = d.Catalog.Commit(ctx, []catalog.Commit{commit})
	return err
}

// write makes one data file of the parts of one partition.
func (d *Iceberg) write(ctx context.Context, t *catalog.Table, dl Delivery, value catalog.Partition, parts []TailFile) (catalog.NewFile, error) {
	id := uuid.NewString()
	name := d.fileName(t, dl, value, id)
	local := filepath.Join(d.Staging, "flush-"+id+".parquet")
	meta, err := concatFiles(d.FS, local, parts)
	if err != nil {
		return catalog.NewFile{}, fmt.Errorf("assemble %s: %w", name, err)
	}
	path, err := d.store(ctx, name, local)
	if err != nil {
		return catalog.NewFile{}, err
	}
	return catalog.NewFile{Path: path, Partition: value, Stats: catalog.StatsOf(meta)}, nil
}

func (d *Iceberg) summary(dl Delivery) map[string]string {
	return map[string]string{"tapehouse.stream": string(d.Stream), "tapehouse.offsets": fmt.Sprintf("%d-%d", dl.From, dl.To)}
}

// fileName is a lake name that was never used before.
func (d *Iceberg) fileName(t *catalog.Table, dl Delivery, value catalog.Partition, id string) string {
	name := t.DataDir() + "/"
	if value.Has {
		name += t.PartitionBy + "=" + calendar.TradeDate(value.Value).String() + "/"
	}
	return name + fmt.Sprintf("%s-%012d-%012d-%s.parquet", d.Stream, dl.From, dl.To, id)
}

// store puts a local file into the lake, and says where it is there.
func (d *Iceberg) store(ctx context.Context, name, local string) (string, error) {
	if err := d.Lake.PutFile(ctx, name, local); err != nil {
		return "", fmt.Errorf("store data file: %w", err)
	}
	if path, ok := d.Lake.LocalPath(name); ok {
		return path, nil
	}
	return d.Lake.URI(name), nil
}

// concatFiles makes one new file of the row groups of parts, in order. It is
// not fsynced; if it fails there is none.
func concatFiles(disk fsys.FS, name string, parts []TailFile) (meta columnar.FileMeta, err error) {
	out, err := disk.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return meta, err
	}
	defer func() {
		if cerr := out.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = disk.Remove(name)
		}
	}()
	sources := make([]columnar.Source, len(parts))
	for i, p := range parts {
		in, err := disk.OpenFile(p.Path, os.O_RDONLY, 0)
		if err != nil {
			return meta, err
		}
		defer in.Close() //nolint:errcheck // read only
		sources[i] = columnar.Source{ReaderAt: in, Size: p.Meta.SizeBytes, Meta: p.Meta}
	}
	w := bufio.NewWriterSize(out, 1<<20)
	if meta, err = columnar.Concat(w, sources); err != nil {
		return meta, err
	}
	return meta, w.Flush()
}
