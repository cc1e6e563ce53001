package pgwire

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func copyAll(cp *Copy, data []byte, step int) ([][]any, error) {
	pieces := data
	r := newCopyReader(cp, NewStyle(nil), 1<<20, func() ([]byte, error) {
		if len(pieces) == 0 {
			return nil, io.EOF
		}
		n := min(step, len(pieces))
		p := append([]byte(nil), pieces[:n]...)
		pieces = pieces[n:]
		return p, nil
	})
	var rows [][]any
	for {
		row := make([]any, len(cp.Columns))
		if err := r.Next(row); errors.Is(err, io.EOF) {
			if again := r.Next(row); !errors.Is(again, io.EOF) {
				return rows, errors.New("a row behind the end")
			}
			return rows, nil
		} else if err != nil {
			return rows, err
		}
		rows = append(rows, row)
	}
}

func text(names ...string) []Column {
	columns := make([]Column, len(names))
	for i, n := range names {
		columns[i] = Column{Name: n, OID: OIDText}
	}
	return columns
}

func TestCopyReader(t *testing.T) {
	empty := ""
	ab := text("a", "b")
	row := func(values ...any) []any { return values }
	for name, test := range map[string]struct {
		cp   Copy
		data string
		want [][]any
		code string
	}{
		"text":               {Copy{Columns: ab}, "1\tx\n\\N\t\n", [][]any{row("1", "x"), row(nil, "")}, ""},
		"last line open":     {Copy{Columns: ab}, "1\tx", [][]any{row("1", "x")}, ""},
		"CRLF":               {Copy{Columns: ab}, "1\tx\r\n2\ty\r\n", [][]any{row("1", "x"), row("2", "y")}, ""},
		"escapes":            {Copy{Columns: text("a")}, `\b\f\n\r\t\v\\\a\101\x41\xg\` + "\n" + "\n", [][]any{row("\b\f\n\r\t\v\\aAAxg\n")}, ""},
		"escaped NULL":       {Copy{Columns: ab}, "\\\\N\t\\N\n", [][]any{row(`\N`, nil)}, ""},
		"escaped delimiter":  {Copy{Columns: ab}, "a\\\tb\tc\n", [][]any{row("a\tb", "c")}, ""},
		"end marker":         {Copy{Columns: ab}, "1\tx\n\\.\nignored\n", [][]any{row("1", "x")}, ""},
		"own delimiter":      {Copy{Columns: ab, Delimiter: '|', Null: &empty}, "1||\n", nil, "22P04"},
		"own null":           {Copy{Columns: ab, Delimiter: '|', Null: &empty}, "1|\n", [][]any{row("1", nil)}, ""},
		"header":             {Copy{Columns: ab, Header: true}, "x\ty\n1\t2\n", [][]any{row("1", "2")}, ""},
		"header only":        {Copy{Columns: ab, Header: true}, "a\tb\n", nil, ""},
		"no data":            {Copy{Columns: ab, Header: true}, "", nil, ""},
		"missing":            {Copy{Columns: ab}, "1\n", nil, "22P04"},
		"extra":              {Copy{Columns: ab}, "1\t2\t3\n", nil, "22P04"},
		"many extra":         {Copy{Columns: ab}, strings.Repeat("\t", 10_000) + "\n", nil, "22P04"},
		"one empty column":   {Copy{Columns: text("a")}, "\n\n", [][]any{row(""), row("")}, ""},
		"not UTF-8":          {Copy{Columns: ab}, "\xff\tx\n", nil, "22021"},
		"octal zero":         {Copy{Columns: ab}, "\\000\tx\n", nil, "22021"},
		"csv":                {Copy{Format: CopyCSV, Columns: ab}, "1,\"x, \"\"y\"\"\nz\"\n,\"\"\n", [][]any{row("1", "x, \"y\"\nz"), row(nil, "")}, ""},
		"csv part quoted":    {Copy{Format: CopyCSV, Columns: ab}, "a\"b,c\"d,e\r\n", [][]any{row("ab,cd", "e")}, ""},
		"csv escape":         {Copy{Format: CopyCSV, Columns: ab, Escape: '\\'}, `"a\"b","c\\"` + "\n", [][]any{row(`a"b`, `c\`)}, ""},
		"csv quote":          {Copy{Format: CopyCSV, Columns: ab, Quote: '\'', Delimiter: ';'}, "'a;b';\"\n", [][]any{row("a;b", `"`)}, ""},
		"csv force not null": {Copy{Format: CopyCSV, Columns: ab, ForceNotNull: []bool{true}}, ",\n", [][]any{row("", nil)}, ""},
		"csv force null":     {Copy{Format: CopyCSV, Columns: ab, ForceNull: []bool{false, true}}, `"",""` + "\n", [][]any{row("", nil)}, ""},
		"csv end marker":     {Copy{Format: CopyCSV, Columns: text("a")}, "x\n\\.\n", [][]any{row("x")}, ""},
		"csv open quote":     {Copy{Format: CopyCSV, Columns: ab}, "1,\"x\n", nil, "22P04"},
		"csv header match":   {Copy{Format: CopyCSV, Columns: ab, Header: true, MatchHeader: true}, "a,\"b\"\n1,2\n", [][]any{row("1", "2")}, ""},
		"csv header differs": {Copy{Format: CopyCSV, Columns: ab, Header: true, MatchHeader: true}, "a,c\n1,2\n", nil, "22P04"},
		"csv header short":   {Copy{Format: CopyCSV, Columns: ab, Header: true, MatchHeader: true}, "a\n", nil, "22P04"},
		"binary":             {Copy{Format: CopyBinary, Columns: ab}, "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x01!\x00\x02\x00\x00\x00\x01x\xff\xff\xff\xff\xff\xff", [][]any{row("x", nil)}, ""},
		"binary no trailer":  {Copy{Format: CopyBinary, Columns: ab}, "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00", nil, ""},
		"binary OIDs":        {Copy{Format: CopyBinary, Columns: ab}, "PGCOPY\n\xff\r\n\x00\x00\x01\x00\x00\x00\x00\x00\x00", nil, "22P04"},
		"binary flags":       {Copy{Format: CopyBinary, Columns: ab}, "PGCOPY\n\xff\r\n\x00\x80\x00\x00\x00\x00\x00\x00\x00", nil, "22P04"},
		"binary extension":   {Copy{Format: CopyBinary, Columns: ab}, "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x7f\xff\xff\xff", nil, "54000"},
		"binary huge field":  {Copy{Format: CopyBinary, Columns: ab}, "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x7f\xff\xff\xff", nil, "54000"},
		"binary bad size":    {Copy{Format: CopyBinary, Columns: ab}, "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\xff\xff\xff\xfe", nil, "22P04"},
		"binary count":       {Copy{Format: CopyBinary, Columns: ab}, "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff", nil, "22P04"},
		"binary cut":         {Copy{Format: CopyBinary, Columns: ab}, "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x05ab", nil, "22P04"},
		"too long":           {Copy{Columns: ab}, strings.Repeat("x", 1<<20+2<<16), nil, "54000"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, step := range []int{1, 2, 3, 7, 1 << 16} {
				if step < 1<<16 && len(test.data) > 1<<16 {
					continue
				}
				cp := test.cp
				rows, err := copyAll(&cp, []byte(test.data), step)
				if wireCode(err) != test.code {
					t.Fatalf("in pieces of %d: %v, want %q", step, err, test.code)
				}
				if test.code == "" && !reflect.DeepEqual(rows, test.want) {
					t.Fatalf("in pieces of %d: %q, want %q", step, rows, test.want)
				}
			}
		})
	}
}

func TestCopyWriterQuotes(t *testing.T) {
	null := "NULL"
	one := text("a")
	for _, test := range []struct {
		cp   Copy
		v    any
		want string
	}{
		{Copy{Format: CopyCSV}, "", `""`}, {Copy{Format: CopyCSV}, nil, ""}, {Copy{Format: CopyCSV}, `\.`, `"\."`}, {Copy{Format: CopyCSV}, `a"b`, `"a""b"`},
		{Copy{Format: CopyCSV, Escape: '\\'}, `a"\b`, `"a\"\\b"`}, {Copy{Format: CopyCSV, ForceQuote: []bool{true}}, "x", `"x"`}, {Copy{Format: CopyCSV, ForceQuote: []bool{true}}, nil, ""},
		{Copy{Format: CopyCSV, Null: &null}, "NULL", `"NULL"`}, {Copy{Format: CopyCSV, Null: &null}, nil, "NULL"}, {Copy{Format: CopyCSV, Delimiter: ';'}, "a,b", "a,b"},
		{Copy{}, "a\tb\\\n", `a\tb\\\n`}, {Copy{Delimiter: '|'}, "a|b", `a\|b`}, {Copy{}, nil, `\N`}, {Copy{}, `\N`, `\\N`},
	} {
		w := copyWriter{copyOptions: test.cp.options(), style: NewStyle(nil), columns: one}
		got, err := w.appendRow(nil, []any{test.v})
		if err != nil || string(got) != test.want+"\n" {
			t.Errorf("%+v %q: %q %v, want %q", test.cp, test.v, got, err, test.want)
		}
	}
}

// What the writer writes, the reader reads, however it is cut.
func FuzzCopyRoundTrip(f *testing.F) {
	f.Add("a", "b\t,\"\\\n", uint8(3), uint8(0))
	f.Add(`\N`, "", uint8(1), uint8(1))
	f.Add(`\.`, "\r\n", uint8(2), uint8(2))
	f.Fuzz(func(t *testing.T, a, b string, step, format uint8) {
		if !validText([]byte(a)) || !validText([]byte(b)) {
			return
		}
		cp := &Copy{Format: CopyFormat(format % 3), Columns: text("a", "b")}
		w := copyWriter{copyOptions: cp.options(), style: NewStyle(nil), columns: cp.Columns}
		data := w.appendHead(nil)
		want := [][]any{{a, b}, {nil, a}, {b, nil}}
		for _, row := range want {
			var err error
			if data, err = w.appendRow(data, row); err != nil {
				t.Fatal(err)
			}
		}
		got, err := copyAll(cp, data, int(step)+1)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %q %v, want %q", data, got, err, want)
		}
	})
}

// No data makes the reader panic or run on.
func FuzzCopyReader(f *testing.F) {
	for i, s := range []string{"1\tx\n\\N\ty\n", "1,\"x\"\"\"\n", "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x01x\xff\xff\xff\xff"} {
		f.Add([]byte(s), uint8(i), uint8(5))
	}
	f.Fuzz(func(t *testing.T, data []byte, format, step uint8) {
		cp := &Copy{Format: CopyFormat(format % 3), Header: format&4 != 0, MatchHeader: format&8 != 0, Columns: []Column{{Name: "a", OID: OIDText}, {Name: "b", OID: OIDInt4}}}
		whole, errWhole := copyAll(cp, data, len(data)+1)
		cut, errCut := copyAll(cp, data, int(step)+1)
		if wireCode(errWhole) != wireCode(errCut) || !reflect.DeepEqual(whole, cut) {
			t.Fatalf("whole: %v %v; in pieces of %d: %v %v", whole, errWhole, int(step)+1, cut, errCut)
		}
	})
}
