package fsys

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestConformance runs every file system through the same behaviour.
func TestConformance(t *testing.T) {
	for name, sys := range map[string]FS{
		"os":     OS,
		"mem":    NewMem(),
		"faulty": NewFaulty(NewMem(), func(string, string, int) error { return nil }),
	} {
		t.Run(name, func(t *testing.T) {
			root := "root"
			if name == "os" {
				root = t.TempDir()
			}
			conform(t, sys, filepath.Join(root, "a", "b"))
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func conform(t *testing.T, sys FS, dir string) {
	p := func(name string) string { return filepath.Join(dir, name) }
	must(t, sys.MkdirAll(dir, 0o755))
	must(t, sys.MkdirAll(dir, 0o755))
	if _, err := sys.OpenFile(p("x"), os.O_RDWR, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("open of nothing: %v", err)
	}
	f, err := sys.OpenFile(p("x"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	must(t, err)
	if _, err := sys.OpenFile(p("x"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("exclusive twice: %v", err)
	}
	_, err = f.Write([]byte("hello"))
	must(t, err)
	_, err = f.WriteAt([]byte("world"), 5000)
	must(t, err)
	_, err = f.Write([]byte("!"))
	must(t, err)
	must(t, f.Sync())
	must(t, f.Datasync())
	if n, err := f.Size(); err != nil || n != 5005 || f.Name() != p("x") {
		t.Fatalf("size %d, %v, name %s", n, err, f.Name())
	}
	b := make([]byte, 10)
	if n, err := f.ReadAt(b, 4998); n != 7 || err != io.EOF || string(b[:n]) != "\x00\x00world" {
		t.Fatalf("read %d %q %v", n, b[:n], err)
	}
	if n, err := f.ReadAt(b, 6000); n != 0 || err != io.EOF {
		t.Fatalf("read behind the end: %d %v", n, err)
	}
	must(t, f.Truncate(3))
	must(t, f.Truncate(6))
	must(t, f.Close())
	if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Fatalf("closed twice: %v", err)
	}
	if got, err := ReadFile(sys, p("x")); err != nil || string(got) != "hel\x00\x00\x00" {
		t.Fatalf("%q %v", got, err)
	}
	f, err = sys.OpenFile(p("x"), os.O_RDONLY, 0)
	must(t, err)
	if _, err := f.Write([]byte("x")); err == nil {
		t.Fatal("wrote to a file open for reading")
	}
	must(t, f.Close())

	must(t, WriteFileAtomic(sys, p("y"), []byte("one"), 0o644))
	must(t, WriteFileAtomic(sys, p("y"), []byte("two"), 0o644))
	must(t, sys.Rename(p("x"), p("z")))
	must(t, sys.Rename(p("y"), p("z")))
	must(t, sys.SyncDir(dir))
	if got, err := ReadFile(sys, p("z")); err != nil || string(got) != "two" {
		t.Fatalf("%q %v", got, err)
	}
	must(t, sys.MkdirAll(p("sub"), 0o755))
	entries, err := sys.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{"sub", "z"}) || !entries[0].IsDir() || entries[1].IsDir() {
		t.Fatalf("%q", names)
	}
	if fi, err := sys.Stat(p("z")); err != nil || fi.Size() != 3 || fi.Name() != "z" || fi.ModTime().IsZero() {
		t.Fatalf("%v %v", fi, err)
	}
	if err := sys.Remove(dir); err == nil {
		t.Fatal("removed a directory that is not empty")
	}
	if err := sys.Rename(p("none"), p("other")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := sys.Remove(p("none")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := sys.MkdirAll(p("z/deeper"), 0o755); err == nil {
		t.Fatal("a directory below a file")
	}
	must(t, sys.Remove(p("z")))
	must(t, sys.Remove(p("sub")))
	if free, err := sys.Free(dir); err != nil || free == 0 {
		t.Fatalf("free %d %v", free, err)
	}

	lock, err := sys.Lock(p("LOCK"))
	must(t, err)
	var held ErrLocked
	if _, err := sys.Lock(p("LOCK")); !errors.As(err, &held) || held.PID != os.Getpid() || !strings.Contains(held.Error(), "stop it") {
		t.Fatalf("second lock: %v", err)
	}
	must(t, lock.Close())
	lock, err = sys.Lock(p("LOCK"))
	must(t, err)
	must(t, lock.Close())
}

func create(t *testing.T, m *Mem, name, content string) File {
	t.Helper()
	f, err := m.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	must(t, err)
	_, err = f.WriteAt([]byte(content), 0)
	must(t, err)
	return f
}

func TestCrashKeepsWhatWasSynced(t *testing.T) {
	for seed := range uint64(40) {
		m := NewMem()
		must(t, m.MkdirAll("d", 0o755))
		f := create(t, m, "d/synced", strings.Repeat("a", 3*memPageBytes))
		must(t, f.Sync())
		must(t, m.SyncDir("d"))
		_, err := f.WriteAt([]byte(strings.Repeat("b", 4*memPageBytes)), 0)
		must(t, err)
		g := create(t, m, "d/named-only", "data")
		must(t, m.SyncDir("d"))
		h := create(t, m, "d/data-only", "data")
		must(t, h.Datasync())
		must(t, m.Rename("d/data-only", "d/renamed"))

		c := m.Crash(seed)
		got, err := ReadFile(c, "d/synced")
		must(t, err)
		old := 0
		for i := 0; i < 3*memPageBytes; i += memPageBytes {
			page := string(got[i : i+memPageBytes])
			switch page {
			case strings.Repeat("a", memPageBytes):
				old++
			case strings.Repeat("b", memPageBytes):
			default:
				t.Fatal("a page is neither old nor new")
			}
		}
		if _, err := c.Stat("d/named-only"); err != nil {
			t.Fatal("a synced name is lost")
		}
		_, before := c.Stat("d/data-only")
		_, after := c.Stat("d/renamed")
		if before == nil && after == nil {
			t.Fatal("a rename half done")
		}
		switch seed % 4 {
		case 0:
			if old != 3 || len(got) != 3*memPageBytes || before == nil || after == nil {
				t.Fatalf("seed %d: something unsynced survived", seed)
			}
		case 1:
			if old != 0 || len(got) != 4*memPageBytes || after != nil {
				t.Fatalf("seed %d: something is lost", seed)
			}
			if b, err := ReadFile(c, "d/renamed"); err != nil || string(b) != "data" {
				t.Fatalf("%q %v", b, err)
			}
		}
		// The copy stands for itself, and so does the original.
		must(t, WriteFileAtomic(c, "d/synced", []byte("new"), 0o644))
		if b, _ := ReadFile(m, "d/synced"); len(b) != 4*memPageBytes {
			t.Fatal("the copy shares with the original")
		}
		if _, err := g.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCrashIsRandomAndRepeatable(t *testing.T) {
	m := NewMem()
	f := create(t, m, "f", strings.Repeat("a", 64*memPageBytes))
	must(t, f.Sync())
	must(t, m.SyncDir("."))
	_, err := f.WriteAt([]byte(strings.Repeat("b", 64*memPageBytes)), 0)
	must(t, err)
	read := func(seed uint64) string {
		b, err := ReadFile(m.Crash(seed), "f")
		must(t, err)
		return string(b)
	}
	if two := read(2); two != read(2) || two == read(3) || !strings.Contains(read(2), "a") || !strings.Contains(read(2), "b") {
		t.Fatal("seeds 2 and 3 must be repeatable mixtures")
	}
}

// TestWriteFileAtomicCrash stops after each operation: the old file or the new.
func TestWriteFileAtomicCrash(t *testing.T) {
	lost := errors.New("power loss")
	for stop := 0; ; stop++ {
		m := NewMem()
		must(t, WriteFileAtomic(m, "f", []byte("old"), 0o644))
		base := m.Ops()
		m.SetHook(func(_, _ string, n int) error {
			if n > base+stop {
				return lost
			}
			return nil
		})
		err := WriteFileAtomic(m, "f", []byte("new"), 0o644)
		for seed := range uint64(8) {
			b, rerr := ReadFile(m.Crash(seed), "f")
			if rerr != nil || (string(b) != "old" && string(b) != "new") || (err == nil && string(b) != "new") {
				t.Fatalf("stop %d seed %d: %q %v", stop, seed, b, rerr)
			}
		}
		if err == nil {
			return
		}
		if !errors.Is(err, lost) {
			t.Fatal(err)
		}
	}
}

func TestCapacity(t *testing.T) {
	m := NewMem()
	m.SetCapacity(1000)
	f := create(t, m, "f", strings.Repeat("x", 900))
	n, err := f.WriteAt(make([]byte, 200), 850)
	if n != 150 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("%d %v", n, err)
	}
	if free, _ := m.Free("."); free != 0 {
		t.Fatalf("free %d", free)
	}
	if _, err := f.WriteAt(make([]byte, 1000), 0); err != nil {
		t.Fatalf("overwriting takes no room: %v", err)
	}
	if err := f.Truncate(1001); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	must(t, m.Remove("f"))
	if free, _ := m.Free("."); free != 1000 {
		t.Fatalf("free %d", free)
	}
}

func TestFaults(t *testing.T) {
	var ops []string
	sys := NewFaulty(NewMem(), func(op, name string, n int) error {
		ops = append(ops, op)
		switch {
		case op == OpWrite && n == 2:
			return &ShortWrite{N: 3, Err: syscall.ENOSPC}
		case op == OpWrite && n == 3:
			return &ShortWrite{N: 1}
		case op == OpDatasync, op == OpRead && n == 2:
			return syscall.EIO
		}
		return nil
	})
	f, err := sys.OpenFile("f", os.O_RDWR|os.O_CREATE, 0o644)
	must(t, err)
	_, err = f.Write([]byte("0123456789"))
	must(t, err)
	if n, err := f.WriteAt([]byte("abcdef"), 0); n != 3 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("%d %v", n, err)
	}
	if n, err := f.WriteAt([]byte("XYZ"), 5); n != 1 || !errors.Is(err, io.ErrShortWrite) {
		t.Fatalf("%d %v", n, err)
	}
	if err := f.Datasync(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if _, err := f.ReadAt(b, 0); err != nil || string(b) != "abc34X6789" {
		t.Fatalf("%q %v", b, err)
	}
	if _, err := f.ReadAt(b, 0); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	want := []string{OpCreate, OpWrite, OpWrite, OpWrite, OpDatasync, OpRead, OpRead}
	if !slices.Equal(ops, want) {
		t.Fatalf("%q", ops)
	}
}

// TestDirOpsKeepOrder: of the changes of one directory a prefix survives.
func TestDirOpsKeepOrder(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(60) {
		m := NewMem()
		create(t, m, "1", "")
		create(t, m, "2", "")
		must(t, m.Remove("1"))
		entries, err := m.Crash(seed).ReadDir(".")
		must(t, err)
		var got string
		for _, e := range entries {
			got += e.Name()
		}
		seen[got] = true
	}
	for _, want := range []string{"", "1", "12", "2"} {
		if !seen[want] {
			t.Errorf("never saw %q", want)
		}
		delete(seen, want)
	}
	if len(seen) != 0 {
		t.Errorf("saw %v", seen)
	}
}
