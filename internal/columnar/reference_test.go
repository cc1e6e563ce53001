package columnar

import (
	"bytes"
	"encoding/json"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tapehouse/tapehouse/internal/record"
)

// reference decodes a document with encoding/json, math/big and package time:
// slow, and independent of what is tested. It returns the row's cells, without
// the columns of the frame's header, or the code of the reject.
func reference(l *Layout, doc []byte) (row []any, code string) {
	if !utf8.Valid(doc) {
		return nil, InvalidUTF8
	}
	if !json.Valid(doc) {
		return nil, MalformedJSON
	}
	if bytes.TrimLeft(doc, " \t\r\n")[0] != '{' {
		return nil, NotAnObject
	}
	if loneSurrogate(doc) {
		return nil, InvalidUTF8
	}
	if depth(doc) > MaxDepth {
		return nil, TooDeep
	}
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	_, _ = dec.Token()
	members := map[string]any{}
	for dec.More() {
		key, _ := dec.Token()
		var v any
		if err := dec.Decode(&v); err != nil {
			return nil, MalformedJSON
		}
		k := key.(string)
		if _, known := l.byName[k]; known {
			if _, twice := members[k]; twice {
				return nil, DuplicateMember
			}
		}
		members[k] = v
	}
	row = make([]any, len(l.columns))
	for i := range l.columns {
		c := &l.columns[i]
		if c.field.Derive != record.FromJSON {
			continue
		}
		v, ok := members[c.field.Name]
		if !ok || v == nil {
			if c.required {
				return nil, MissingMember
			}
			continue
		}
		if row[i], code = referenceValue(c, v); code != "" {
			return nil, code
		}
	}
	for i := range l.columns {
		c := &l.columns[i]
		if c.from < 0 || row[c.from] == nil {
			continue
		}
		at, _ := time.Parse(time.RFC3339Nano, members[l.columns[c.from].field.Name].(string))
		if c.field.Derive == record.EpochNanos {
			row[i] = at.UnixNano()
			continue
		}
		if at.Year() < 1678 || at.Year() > 2261 {
			return nil, OutsideSession
		}
		ns := at.UnixNano()
		if !l.columns[c.from].nanos {
			ns = at.UnixMicro() * 1000
		}
		_, _, d, ok := weekdays{}.Interval(ns)
		if !ok {
			return nil, OutsideSession
		}
		row[i] = int64(d)
	}
	return row, ""
}

func referenceValue(c *column, v any) (any, string) {
	t := c.field.Type
	switch t.Kind {
	case record.Boolean:
		switch v {
		case true:
			return int64(1), ""
		case false:
			return int64(0), ""
		}
		return nil, WrongType
	case record.String, record.Date, record.TimestampTZ:
		s, ok := v.(string)
		if !ok {
			return nil, WrongType
		}
		if t.Kind == record.String {
			return s, ""
		}
		if t.Kind == record.Date {
			d, err := time.Parse("2006-01-02", s)
			if err != nil {
				return nil, BadDate
			}
			return d.Unix() / 86400, ""
		}
		at, err := time.Parse(time.RFC3339Nano, s)
		if err != nil || strings.Contains(s, ",") || len(s) > 11 && s[12] == ':' {
			return nil, BadTimestamp
		}
		if dot := strings.IndexByte(s, '.'); dot >= 0 && strings.IndexAny(s[dot+1:], "Z+-") > 9 {
			return nil, BadTimestamp
		}
		if c.nanos && !nanosFit(at.Unix()) {
			return nil, OutOfRange
		}
		return at.UnixMicro(), ""
	}
	s, ok := v.(string)
	if ok {
		if !json.Valid([]byte(s)) || s == "" || s[0] != '-' && (s[0] < '0' || s[0] > '9') || strings.TrimRight(s, " \n\r\t") != s {
			return nil, WrongType
		}
	} else if n, isNumber := v.(json.Number); isNumber {
		s = n.String()
	} else {
		return nil, WrongType
	}
	if t.Kind == record.Double {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return nil, OutOfRange
		}
		return int64(math.Float64bits(f)), ""
	}
	// big.Rat would write out an exponent of billions.
	if e := strings.IndexAny(s, "eE"); e >= 0 {
		if x, err := strconv.Atoi(s[e+1:]); err != nil || x > 5000 || x < -5000 {
			if strings.Trim(s[:e], "-0.") == "" {
				return int64(0), ""
			}
			if s[e+1] == '-' {
				return nil, Inexact
			}
			return nil, OutOfRange
		}
	}
	r, _ := new(big.Rat).SetString(s)
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(t.Scale)), nil)))
	if !r.IsInt() {
		return nil, Inexact
	}
	lo, hi := big.NewInt(math.MinInt64), big.NewInt(math.MaxInt64)
	switch t.Kind {
	case record.Int:
		lo, hi = big.NewInt(math.MinInt32), big.NewInt(math.MaxInt32)
	case record.Decimal:
		lo, hi = big.NewInt(1-c.limit), big.NewInt(c.limit-1)
	}
	if r.Num().Cmp(lo) < 0 || r.Num().Cmp(hi) > 0 {
		return nil, OutOfRange
	}
	return r.Num().Int64(), ""
}

// loneSurrogate looks for an escaped half of a surrogate pair in valid JSON.
func loneSurrogate(doc []byte) bool {
	for i := 0; i < len(doc); i++ {
		if doc[i] != '\\' {
			continue
		}
		i++
		if doc[i] != 'u' {
			continue
		}
		x, _ := strconv.ParseUint(string(doc[i+1:i+5]), 16, 16)
		i += 4
		switch {
		case x >= 0xDC00 && x < 0xE000:
			return true
		case x >= 0xD800 && x < 0xDC00:
			if i+6 >= len(doc) || doc[i+1] != '\\' || doc[i+2] != 'u' {
				return true
			}
			if y, _ := strconv.ParseUint(string(doc[i+3:i+7]), 16, 16); y < 0xDC00 || y > 0xDFFF {
				return true
			}
			i += 6
		}
	}
	return false
}

func depth(doc []byte) int {
	n, most, inside := 0, 0, false
	for i := 0; i < len(doc); i++ {
		switch c := doc[i]; {
		case inside && c == '\\':
			i++
		case c == '"':
			inside = !inside
		case inside:
		case c == '{' || c == '[':
			n++
			most = max(most, n)
		case c == '}' || c == ']':
			n--
		}
	}
	return most
}

// checkAgainstReference decodes doc in several surroundings and compares.
func checkAgainstReference(t *testing.T, l *Layout, d *Decoder, doc []byte) {
	t.Helper()
	want, code := reference(l, doc)
	for _, docs := range [][][]byte{{doc}, {doc, doc}, {[]byte(`{`), doc, doc}} {
		b := d.DecodeDocs(docs, 42)
		rejects := map[int32]Reject{}
		for _, r := range b.Rejects {
			rejects[r.Doc] = r
		}
		row := 0
		for i, x := range docs {
			if !bytes.Equal(x, doc) || code != "" && i < len(docs) {
				r, ok := rejects[int32(i)]
				if !ok {
					t.Fatalf("%q accepted, want %s", x, code)
				}
				// A document may have several faults; only what encoding/json calls
				// malformed must never be called otherwise acceptable.
				if r.Code == MalformedJSON && json.Valid(x) {
					t.Fatalf("%q: %s %s", x, r.Code, r.Message)
				}
				continue
			}
			if r, ok := rejects[int32(i)]; ok {
				t.Fatalf("%q rejected: %s %s", x, r.Code, r.Message)
			}
			if int(b.Doc[row]) != i {
				t.Fatalf("%q: row %d is of document %d, want %d", x, row, b.Doc[row], i)
			}
			for c := range l.columns {
				switch l.columns[c].field.Derive {
				case record.RecordStream, record.RecordOffset, record.ArrivedAt:
					continue
				}
				if got := b.cell(row, c); got != want[c] {
					t.Fatalf("%q: column %s is %v, want %v", x, l.columns[c].field.Name, got, want[c])
				}
			}
			row++
		}
		checkReplay(t, d, b)
		b.Release()
	}
}
