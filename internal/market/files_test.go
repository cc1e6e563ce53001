package market

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

// After a loss of power at any operation a version's directory is whole or not
// there, and writing again makes it whole.
func TestStatementFilesAppearWhole(t *testing.T) {
	files := []file{{"M001.csv", bytes.Repeat([]byte("a line\n"), 2000)}, {"M002.csv", []byte("b\n")}, {manifestName, []byte("{}\n")}}
	const dir = "/out/2026-11-20/v1"
	whole := func(fsy fsys.FS) error {
		for _, f := range files {
			if have, err := fsys.ReadFile(fsy, filepath.Join(dir, f.name)); err != nil || !bytes.Equal(have, f.data) {
				return fmt.Errorf("%s: %d bytes, %w", f.name, len(have), err)
			}
		}
		return nil
	}
	mem := fsys.NewMem()
	var crashed []*fsys.Mem
	mem.SetHook(func(string, string, int) error {
		for seed := range uint64(4) {
			crashed = append(crashed, mem.Crash(seed))
		}
		return nil
	})
	check(t, (&Market{o: Options{FS: mem}}).writeDir(dir, files))
	mem.SetHook(nil)
	for seed := range uint64(4) {
		check(t, whole(mem.Crash(seed)))
	}
	for i, c := range crashed {
		if _, err := c.Stat(dir); err == nil {
			if err := whole(c); err != nil {
				t.Fatalf("crash %d: there, and not whole: %v", i, err)
			}
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		check(t, (&Market{o: Options{FS: c}}).writeDir(dir, files))
		check(t, whole(c))
		for _, e := range must[[]fs.DirEntry](t)(c.ReadDir(filepath.Dir(dir))) {
			if strings.HasPrefix(e.Name(), ".") {
				t.Fatalf("crash %d: %s was left", i, e.Name())
			}
		}
	}
	if len(crashed) < 40 {
		t.Fatalf("%d crashes", len(crashed))
	}
}

func TestMemberIDsThatNameNoFile(t *testing.T) {
	for _, m := range []string{"", ".", "..", ".x", "a/b", "a\\b", "manifest", "adjustments-1", "ü", strings.Repeat("x", 300)} {
		if _, err := fileName(m); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", m, err)
		}
	}
	if name, err := fileName("M-001_x.1"); err != nil || name != "M-001_x.1" {
		t.Error(err)
	}
}
