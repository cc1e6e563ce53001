package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tapehouse/tapehouse/internal/record"
)

// fakeFiles is a lake elsewhere: far://name lies as a file in far, and is
// linked into near while it is held.
type fakeFiles struct {
	far, near string

	mu    sync.Mutex
	held  map[string]int
	holds int
	err   error
}

func (f *fakeFiles) Local(path string) (string, bool) {
	name, ok := strings.CutPrefix(path, "far://")
	return filepath.Join(f.near, "copy-of-"+name), ok
}

func (f *fakeFiles) Hold(ctx context.Context, paths []string) (func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	f.holds++
	for _, p := range paths {
		if f.held[p]++; f.held[p] == 1 {
			at, _ := f.Local(p)
			if err := os.Link(filepath.Join(f.far, strings.TrimPrefix(p, "far://")), at); err != nil {
				return nil, err
			}
		}
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, p := range paths {
			if f.held[p]--; f.held[p] == 0 {
				at, _ := f.Local(p)
				_ = os.Remove(at)
			}
		}
	}, nil
}

func (f *fakeFiles) count() (held, holds int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.held {
		held += n
	}
	return held, f.holds
}

// TestRemoteFiles: files of a lake elsewhere are there for as long as their
// relation is pinned and read, and no longer; position deletes find theirs.
func TestRemoteFiles(t *testing.T) {
	f := &fakeFiles{held: map[string]int{}}
	e, dir := newEngine(t, func(o *Options) {
		root := filepath.Dir(o.AllowedDirs[0])
		f.far, f.near = filepath.Join(root, "far"), filepath.Join(root, "near")
		for _, d := range []string{f.far, f.near} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		o.AllowedDirs = append(o.AllowedDirs, f.near)
		o.Files = f
	})
	// Written where the engine may write, then moved away from it.
	away := func(name string, file File) File {
		t.Helper()
		if err := os.Rename(file.Path, filepath.Join(f.far, name)); err != nil {
			t.Fatal(err)
		}
		file.Path = "far://" + name
		return file
	}
	one := away("one.parquet", writeTrades(t, e, filepath.Join(dir, "one.parquet"), 0, 100))
	two := away("two.parquet", writeTrades(t, e, filepath.Join(dir, "two.parquet"), 100, 200))
	three := writeTrades(t, e, filepath.Join(dir, "three.parquet"), 200, 250)
	deletes := filepath.Join(dir, "deletes.parquet")
	schema := record.Schema{Fields: []record.Field{{ID: 2147483546, Name: "file_path", Type: record.Type{Kind: record.String}}, {ID: 2147483545, Name: "pos", Type: record.Type{Kind: record.Long}}}}
	if _, err := e.Export(t.Context(), Query{SQL: "SELECT 'far://two.parquet' AS file_path, i AS pos FROM range(10) r(i)"}, ExportSpec{Path: deletes, Schema: schema}); err != nil {
		t.Fatal(err)
	}
	two.Deletes = []string{away("deletes.parquet", File{Path: deletes}).Path}

	s := newSession(t, e)
	query := Query{SQL: `SELECT count(*) FROM equities.executions`, Pin: NewPin(map[Name]Relation{tradesName: {Schema: trades, Files: []File{one, two, three}}})}
	if held, holds := f.count(); held != 0 || holds != 0 {
		t.Errorf("%d files are held before anything is read", held)
	}
	var wg sync.WaitGroup
	for range 4 {
		own := newSession(t, e)
		wg.Go(func() {
			if got, err := collectRows(t.Context(), own, query); err != nil || len(got) != 1 || got[0] != "240" {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
	wg.Wait()
	if !e.Pinned("far://one.parquet") || e.Pinned(filepath.Join(f.near, "copy-of-one.parquet")) {
		t.Error("a pin is asked for by the path that the caller gave")
	}
	if held, _ := f.count(); held != 3 {
		t.Errorf("%d files are held while they are pinned, want 3", held)
	}
	rows, err := s.Query(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	query.Pin.Release()
	if held, _ := f.count(); held != 3 {
		t.Errorf("%d files are held while rows are open, want 3", held)
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	if held, _ := f.count(); held != 0 {
		t.Errorf("%d files are held by nobody", held)
	}
	// The view is still there, its files are not: they are held anew.
	query.Pin = NewPin(map[Name]Relation{tradesName: {Schema: trades, Files: []File{one, two, three}}})
	wantRows(t, s, query, "240")
	query.Pin.Release()

	for _, x := range []struct {
		err  error
		kind ErrorKind
		text string
	}{
		{errors.New("https://secret.example/one.parquet: reset"), IO, "could not be fetched"},
		{&Error{Kind: OutOfMemory, Message: "too much"}, OutOfMemory, "too much"},
	} {
		f.err = x.err
		query.Pin = NewPin(map[Name]Relation{tradesName: {Schema: trades, Files: []File{one}}})
		_, err := collectRows(t.Context(), s, query)
		var known *Error
		if !errors.As(err, &known) || known.Kind != x.kind || !strings.Contains(known.Message, x.text) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v: %v", x.err, err)
		}
		query.Pin.Release()
	}
	f.err = nil
	if held, _ := f.count(); held != 0 {
		t.Errorf("%d files are held after failures", held)
	}
}
