package terminal

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	var b bytes.Buffer
	table := Table{Indent: "  ", Columns: []Column{Left("symbol"), Right("shares"), Left("note")}}
	table.Add("ZAAA", "1,000", "")
	table.Add("Zé", "7", "straße")
	table.Add("short")
	if err := table.Write(&b); err != nil {
		t.Fatal(err)
	}
	want := `  symbol  shares  note
  ──────  ──────  ──────
  ZAAA     1,000
  Zé           7  straße
  short
`
	if b.String() != want {
		t.Errorf("have\n%s\nwant\n%s", b.String(), want)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("gone") }

func TestTableTellsOfABrokenWriter(t *testing.T) {
	table := Table{Columns: []Column{Left("x")}}
	for range 10_000 {
		table.Add("some text")
	}
	if err := table.Write(broken{}); err == nil {
		t.Error("no error")
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct{ have, want string }{
		{Count(0), "0"}, {Count(999), "999"}, {Count(1000), "1,000"}, {Count(-1234567), "-1,234,567"}, {Count(-100), "-100"},
		{Amount("1234.5600"), "1,234.5600"}, {Amount("-0.1"), "-0.1"}, {Amount("-1234567"), "-1,234,567"}, {Amount(""), ""}, {Amount("n/a"), "n/a"}, {Amount("1e9"), "1e9"},
		{Bytes(12), "12 B"}, {Bytes(2048), "2.0 KiB"}, {Bytes(300 << 20), "300 MiB"}, {Bytes(3 << 29), "1.5 GiB"},
		{Took(1500 * time.Microsecond), "2 ms"}, {Took(1234 * time.Millisecond), "1.2 s"}, {Took(90 * time.Second), "1m30s"}, {Took(42 * time.Microsecond), "42µs"},
		{Plural(1, "line"), "1 line"}, {Plural(0, "line"), "0 lines"}, {Plural(2000, "line"), "2,000 lines"},
		{ShellWord("a/b-1"), "a/b-1"}, {ShellWord("it's"), `'it'\''s'`}, {ShellWord(""), "''"}, {ShellWord("~x"), "'~x'"},
		{Bar(0, 4), "░░░░"}, {Bar(0.5, 4), "██░░"}, {Bar(2, 4), "████"}, {Bar(-1, 2), "░░"},
	} {
		if c.have != c.want {
			t.Errorf("have %q, want %q", c.have, c.want)
		}
	}
}

func TestProgressOnPaper(t *testing.T) {
	var b bytes.Buffer
	p := NewProgress(&b, time.Hour)
	p.Set("one")
	p.Set("two ")
	p.Above(func() { b.WriteString("text\n") })
	p.Done()
	p.Done()
	if b.String() != "text\ntwo\n" {
		t.Errorf("%q", b.String())
	}
	b.Reset()
	p = NewProgress(&b, 0)
	p.Set("one")
	p.Set("two")
	p.Done()
	if b.String() != "one\ntwo\n" {
		t.Errorf("%q", b.String())
	}
}

func TestProgressInPlace(t *testing.T) {
	var b bytes.Buffer
	p := NewProgress(&b, 0)
	p.redraw = true
	p.Set(strings.Repeat("x", 200))
	if n := strings.Count(b.String(), "x"); n != Width-1 {
		t.Errorf("%d columns", n)
	}
	b.Reset()
	p.Set("50%")
	p.Above(func() { b.WriteString("text\n") })
	p.Clear()
	p.Set("100%")
	p.Done()
	want := "\r50%\x1b[K" + "\r\x1b[K" + "text\n" + "\r50%\x1b[K" + "\r\x1b[K" + "\r100%\x1b[K" + "\n"
	if b.String() != want {
		t.Errorf("have %q\nwant %q", b.String(), want)
	}
}
