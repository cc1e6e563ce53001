package crawler

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/fsys"
)

func object(i int) Object {
	return Object{Name: fmt.Sprintf("folder=%03d/file-%06d", i/100, i), SizeBytes: int64(i), ModifiedAt: epoch.Add(time.Duration(i)), ETag: fmt.Sprint("e", i)}
}

func finding0(i int) finding {
	return finding{Format: formatParquet, Compression: plain, Columns: []Field{{"a", stateNumber}, {fmt.Sprintf("c%d", i%7), stateDate}}}
}

// TestMemory: what is kept is found, by name, size, time and tag; what a crawl that
// was cut short kept is found beside what an earlier one did.
func TestMemory(t *testing.T) {
	const n = 20_000
	fs := fsys.NewMem()
	logger := slog.New(slog.DiscardHandler)
	open := func() (*memory, *interner) {
		in := newInterner()
		m, err := openMemory(fs, "/m", "x", 7, in, logger, false)
		must(t, err)
		return m, in
	}
	m, in := open()
	for i := range n {
		if _, ok := m.lookup(object(i)); ok {
			t.Fatal("an empty memory knows a file")
		}
		m.keep(object(i), learnt{finding: in.intern(finding0(i)), rows: int64(i)}, false)
	}
	m.close(true)

	// A crawl that changes some files, and is cut.
	m, in = open()
	for i := range n / 2 {
		o := object(i)
		if i%10 == 0 {
			o.SizeBytes++
		}
		l, ok := m.lookup(o)
		if ok != (i%10 != 0) || ok && (l.rows != int64(i) || columnsText(l.Columns) != columnsText(finding0(i).Columns)) {
			t.Fatalf("file %d: %t, %+v", i, ok, l)
		}
		if !ok {
			l = learnt{finding: in.intern(finding0(1)), rows: -int64(-1)}
		}
		m.keep(o, l, ok)
	}
	m.close(false)

	m, _ = open()
	reused := 0
	for i := range n {
		o := object(i)
		if i < n/2 && i%10 == 0 {
			o.SizeBytes++
		}
		l, ok := m.lookup(o)
		if ok {
			reused++
			m.keep(o, l, true)
		}
	}
	m.close(true)
	if reused != n {
		t.Errorf("after a crawl that was cut, %d of %d files are known", reused, n)
	}

	// Unchanged: the file stays the one that it is.
	before, err := fs.ReadDir("/m")
	must(t, err)
	m, _ = open()
	for i := range n {
		o := object(i)
		if i < n/2 && i%10 == 0 {
			o.SizeBytes++
		}
		l, ok := m.lookup(o)
		if !ok {
			t.Fatalf("file %d is not known", i)
		}
		m.keep(o, l, true)
	}
	m.close(true)
	after, err := fs.ReadDir("/m")
	must(t, err)
	if len(before) != 1 || len(after) != 1 || before[0].Name() != after[0].Name() {
		t.Errorf("files %v became %v", before, after)
	}

	// Another stamp, and a tag that differs, are not it.
	other, err := openMemory(fs, "/m", "x", 8, newInterner(), logger, false)
	must(t, err)
	if _, ok := other.lookup(object(5)); ok {
		t.Error("a memory of another stamp is used")
	}
	other.close(false)
	m, _ = open()
	o := object(5)
	o.ETag = "other"
	if _, ok := m.lookup(o); ok {
		t.Error("a file with another tag is known")
	}
	m.close(false)
	must(t, forget(fs, "/m", "x"))
	if left, err := fs.ReadDir("/m"); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// TestMemoryTorn: whatever byte a file ends at, or is another one, what is found is
// right.
func TestMemoryTorn(t *testing.T) {
	const n = 300
	fs := fsys.NewMem()
	logger := slog.New(slog.DiscardHandler)
	in := newInterner()
	m, err := openMemory(fs, "/m", "x", 7, in, logger, false)
	must(t, err)
	for i := range n {
		m.keep(object(i), learnt{finding: in.intern(finding0(i)), rows: int64(i)}, false)
	}
	m.close(true)
	path := "/m/x.0.seen"
	whole, err := fsys.ReadFile(fs, path)
	must(t, err)
	write := func(data []byte) {
		f, err := fs.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
		must(t, err)
		_, err = f.Write(data)
		must(t, err)
		must(t, f.Close())
	}
	check := func(what string) {
		m, err := openMemory(fs, "/m", "x", 7, newInterner(), logger, false)
		must(t, err)
		for i := range n {
			if l, ok := m.lookup(object(i)); ok && (l.rows != int64(i) || columnsText(l.Columns) != columnsText(finding0(i).Columns)) {
				t.Fatalf("%s: file %d: %+v", what, i, l)
			}
		}
		m.close(false)
	}
	for cut := 0; cut < len(whole); cut += 7 {
		write(whole[:cut])
		check(fmt.Sprintf("cut at %d", cut))
	}
	for at := 0; at < len(whole); at += 11 {
		flipped := append([]byte(nil), whole...)
		flipped[at] ^= 0x41
		write(flipped)
		check(fmt.Sprintf("byte %d", at))
	}
}

func FuzzMemory(f *testing.F) {
	f.Add([]byte("F\x02{}O\x00\x01a\x05\x06\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, block []byte) {
		s := &memoryStream{intern: newInterner(), block: block, in: emptyReader()}
		last := ""
		for range 1000 {
			if s.advance(); !s.valid {
				return
			}
			if s.cur.name <= last && last != "" {
				t.Fatalf("%q after %q", s.cur.name, last)
			}
			last = s.cur.name
		}
	})
}

func emptyReader() *bufio.Reader { return bufio.NewReader(strings.NewReader("")) }
