package crawler

import (
	"encoding/csv"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func columnsText(columns []Field) string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = c.Name + " " + c.State.typeText()
	}
	return strings.Join(out, ", ")
}

func TestReadCSV(t *testing.T) {
	for _, c := range []struct {
		name, data, want string // want: dialect: columns
	}{
		{"comma", "id,price,at\n1,2.50,2026-11-25\n2,3,2026-11-26\n", `"," header: id bigint, price decimal(18,4), at date`},
		{"tab, CR LF", "a\tb\r\n1\tx\r\n2\ty\r\n", `"\t" header: a bigint, b string`},
		{"pipe, CR only", "a|b\r1|x\r2|y\r", `"|" header: a bigint, b string`},
		{"semicolon with commas within", "a;b\n1;x, y\n2;z, w\n", `";" header: a bigint, b string`},
		{"control-A", "1\x01x\n2\x01y\n", `"\x01": col0 bigint, col1 string`},
		{"byte order mark", "\xef\xbb\xbfid,n\n1,2\n", `"," header: id bigint, n bigint`},
		{"no header", "1,2.5\n3,4.5\n", `",": col0 bigint, col1 decimal(18,4)`},
		{"quotes", "id,name\n1,\"a, b\"\n2,\"say \"\"x\"\"\"\n3,\"two\nlines\"\n", `"," quote "\"" header: id bigint, name string`},
		{"escapes", "id,name\n1,\"a \\\" b, c\"\n2,\"d\"\n", `"," quote "\"" escape "\\" header: id bigint, name string`},
		{"single quotes", "id,name\n1,'a, b'\n2,'c'\n", `"," quote "'" header: id bigint, name string`},
		{"numbers in quotes", "\"id\",\"n\"\n\"1\",\"007\"\n\"2\",\"008\"\n", `"," quote "\"" header: id bigint, n string`},
		{"leading zeros", "zip,n\n01234,1\n98765,2\n", `"," header: zip string, n bigint`},
		{"empty is null", "a,b,c\n1,,\n,2,\n", `"," header: a bigint, b bigint, c string`},
		{"Hive's null", "a,b\n\\N,1\n2,\\N\n", `"," header: a bigint, b bigint`},
		{"all text, header in another case", "symbol,name\nAAPL,APPLE\nMSFT,MICROSOFT\nIBM,IBM\n", `"," header: symbol string, name string`},
		{"all text, no header to be seen", "anna,paris\nbert,rome\ncarl,oslo\n", `",": col0 string, col1 string`},
		{"trailer", "Symbol|Name|Lot\nAAPL|Apple|100\nMSFT|Microsoft|100\nZZ|Zed|10\nFile Creation Time: 1125202617:02||\n", `"|" header: symbol string, name string, lot bigint`},
		{"odd header names", "Trade Date,Größe,%,Price ($),price\n2026-11-25,1,2,3.5,4\n", `"," header: trade_date date, gr__e bigint, col2 bigint, price____ decimal(18,4), price bigint`},
		{"last line without an end", "a,b\n1,2\n3,4", `"," header: a bigint, b bigint`},
	} {
		form, columns, _, err := readCSV([]byte(c.data), true, nil)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := formText(form) + ": " + columnsText(columns); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

// TestQuotesBeyondTheRows: a quote after the rows that are looked at counts.
func TestQuotesBeyondTheRows(t *testing.T) {
	data := "id,name\n" + strings.Repeat("1,x\n", 2*csvRowsMax) + "2,\"a, b\"\n"
	form, _, _, err := readCSV([]byte(data), true, nil)
	if err != nil || form.Quote != `"` {
		t.Errorf("%+v, %v", form, err)
	}
}

func formText(f csvForm) string {
	s := fmt.Sprintf("%q", f.Delimiter)
	if f.Quote != "" {
		s += fmt.Sprintf(" quote %q", f.Quote)
	}
	if f.Escape != "" {
		s += fmt.Sprintf(" escape %q", f.Escape)
	}
	if f.Header {
		s += " header"
	}
	return s
}

func TestReadCSVRefuses(t *testing.T) {
	for _, c := range []struct {
		name, data string
		want       error
	}{
		{"nothing", " \n\n", errEmpty},
		{"only a header", "a,b\n", errEmpty},
		{"one row", "a,1\n", nil},
		{"prose", "Dear reader,\nthis is no table at all.\nBut: it has, commas, here\nand there.\nRegards\n", errNotCSV},
		{"one column", "a\nb\nc\n", errNotCSV},
		{"binary", "a,b\n\x00\x01,2\n", errUnknownFormat},
	} {
		_, _, _, err := readCSV([]byte(c.data), true, nil)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, _, _, err := readCSV([]byte("a,b\n\xff\xfe,\xc3\n"), true, nil); err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("Latin-1: %v", err)
	}
	if _, _, _, err := readCSV([]byte("a,b\n1,é\n2,\xc3"), false, nil); err != nil {
		t.Errorf("a sample that ends within a character: %v", err)
	}
}

func TestCSVClassifier(t *testing.T) {
	for _, c := range []struct {
		name string
		c    CSVClassifier
		data string
		want string
	}{
		{"names", CSVClassifier{Name: "c", Delimiter: "~", Header: []string{"Id", "N"}, ContainsHeader: HeaderAbsent}, "1~2\n3~4\n", `"~": id bigint, n bigint`},
		{"names in place of the header's", CSVClassifier{Name: "c", Header: []string{"x", "y"}, ContainsHeader: HeaderPresent}, "a,b\n1,2\n", `"," header: x bigint, y bigint`},
		{"types", CSVClassifier{Name: "c", Delimiter: ",", Header: []string{"x", "y"}, ContainsHeader: HeaderAbsent, CustomDatatypes: []string{"STRING", "LONG"}}, "1,2\n", `",": x string, y bigint`},
		{"one column", CSVClassifier{Name: "c", AllowSingleColumn: true, ContainsHeader: HeaderPresent}, "a\n1\n2\n", `"," header: a bigint`},
		{"quote", CSVClassifier{Name: "c", Delimiter: ",", QuoteSymbol: "!"}, "a,b\n1,!x, y!\n2,z\n", `"," quote "!" header: a bigint, b string`},
	} {
		form, columns, _, err := readCSV([]byte(c.data), true, &c.c)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if got := formText(form) + ": " + columnsText(columns); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if _, _, _, err := readCSV([]byte("1,2,3\n"), true, &CSVClassifier{Name: "c", Delimiter: ",", Header: []string{"x"}}); err == nil {
		t.Error("a classifier of one column took a file of three")
	}
}

// FuzzCSV holds the parser against encoding/csv where that reads the text at all, and
// against itself: a sample that is cut gives the same first rows.
func FuzzCSV(f *testing.F) {
	f.Add("a,b\n1,\"x\ny\"\n", 5)
	f.Add("a\tb\r\n\"\"\"q\"\t2\r\n", 3)
	f.Add("é|\xff\n|\n", 2)
	f.Fuzz(func(t *testing.T, text string, cut int) {
		form := csvForm{Delimiter: ",", Quote: `"`}
		rows, _, _ := csvRows(text, form, true, 1000)
		for _, row := range rows {
			if len(row) == 0 {
				t.Fatal("a row without fields")
			}
		}
		if cut >= 0 && cut < len(text) {
			some, _, _ := csvRows(text[:cut], form, false, 1000)
			for i, row := range some {
				if i < len(rows) && !reflect.DeepEqual(row, rows[i]) && !strings.HasSuffix(text[:cut], "\r") && !strings.HasSuffix(text[:cut], `"`) {
					t.Fatalf("row %d is %q in a sample, %q in all", i, row, rows[i])
				}
			}
		}
		if !strings.Contains(text, "\r") {
			in := csv.NewReader(strings.NewReader(text))
			in.FieldsPerRecord = -1
			if want, err := in.ReadAll(); err == nil {
				var kept [][]string
				for _, r := range want {
					if len(r) > 1 || strings.TrimSpace(r[0]) != "" {
						kept = append(kept, r)
					}
				}
				if !reflect.DeepEqual(rows, kept) && len(rows)+len(kept) > 0 {
					t.Fatalf("%q: rows %q, encoding/csv has %q", text, rows, kept)
				}
			}
		}
		if form, columns, n, err := readCSV([]byte(text), true, nil); err == nil {
			if n < 0 || len(columns) == 0 || len(form.Delimiter) != 1 {
				t.Fatalf("%q: %d rows, %d columns, %+v", text, n, len(columns), form)
			}
		}
		_, _, _, _ = readCSV([]byte(text), false, nil)
	})
}
