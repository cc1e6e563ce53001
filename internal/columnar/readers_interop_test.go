//go:build interop

package columnar

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/readertest"
	"github.com/tapehouse/tapehouse/internal/record"
)

// cellText is a cell of Batch.rows in readertest's text.
func cellText(f record.Field, v any) any {
	switch x := v.(type) {
	case nil:
		return nil
	case string:
		return x
	case int64:
		switch f.Type.Kind {
		case record.Boolean:
			return fmt.Sprint(x == 1)
		case record.Decimal:
			return decimalText(big.NewInt(x), f.Type.Scale)
		case record.Double:
			return fmt.Sprintf("%016x", uint64(x))
		}
		return fmt.Sprint(x)
	}
	panic(fmt.Sprintf("a cell of type %T", v))
}

func decimalText(unscaled *big.Int, scale int) string {
	digits := new(big.Int).Abs(unscaled).String()
	if pad := scale + 1 - len(digits); pad > 0 {
		digits = strings.Repeat("0", pad) + digits
	}
	if scale > 0 {
		digits = digits[:len(digits)-scale] + "." + digits[len(digits)-scale:]
	}
	if unscaled.Sign() < 0 {
		digits = "-" + digits
	}
	return digits
}

// sumsOf are readertest's sums, by math/big.
func sumsOf(fields []record.Field, rows [][]any) map[string]string {
	sums := map[string]string{}
	for c, f := range fields {
		scale := 0
		switch f.Type.Kind {
		case record.Int, record.Long:
		case record.Decimal:
			scale = f.Type.Scale
		default:
			continue
		}
		sum, any := new(big.Int), false
		for _, r := range rows {
			if r[c] != nil {
				sum.Add(sum, big.NewInt(r[c].(int64)))
				any = true
			}
		}
		if sums[f.Name] = ""; any {
			sums[f.Name] = decimalText(sum, scale)
		}
	}
	return sums
}

// checkReaders has every reader read a file that must hold rows, in this order.
func checkReaders(t *testing.T, fields []record.Field, data []byte, rows [][]any) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.parquet")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	want := sumsOf(fields, rows)
	for _, reader := range readertest.ParquetReaders {
		t.Run(reader, func(t *testing.T) {
			got := readertest.Read(t, reader, path)
			if !maps.Equal(got.Sums, want) {
				t.Errorf("sums %v\nwant %v", got.Sums, want)
			}
			if len(got.Rows) != len(rows) || len(got.Columns) != len(fields) {
				t.Fatalf("%d rows of %d columns, want %d of %d", len(got.Rows), len(got.Columns), len(rows), len(fields))
			}
			for r, row := range rows {
				for c, v := range row {
					if w := cellText(fields[c], v); got.Rows[r][c] != w {
						t.Fatalf("row %d, %s: %#v, want %#v", r, fields[c].Name, got.Rows[r][c], w)
					}
				}
			}
		})
	}
}

// everyType has each type at each width, required and optional.
func everyType() record.Schema {
	var f []record.Field
	for _, x := range []record.Type{typ(record.Boolean), typ(record.Int), typ(record.Long), typ(record.Double), typ(record.String), typ(record.Date), typ(record.TimestampTZ),
		dec(1, 0), dec(4, 4), dec(9, 0), dec(9, 9), dec(10, 2), dec(18, 0), dec(18, 4), dec(18, 18)} {
		name := strings.NewReplacer("(", "_", ", ", "_", ")", "").Replace(x.String())
		f = append(f, record.Field{ID: len(f) + 1, Name: name, Type: x}, record.Field{ID: len(f) + 2, Name: name + "_required", Type: x, Required: true})
	}
	f = append(f, record.Field{ID: len(f) + 1, Name: "never", Type: typ(record.Long)}, record.Field{ID: len(f) + 2, Name: "Ünïcode name", Type: typ(record.String)})
	return record.Schema{ID: 1, Fields: f}
}

// value is a JSON value of a type, often at an end of its range. shape leads to
// each of the encodings: few values (dictionary), steps (delta), any (plain).
func value(r *rand.Rand, x record.Type, shape string, row int) string {
	integer := func(low, high int64) int64 {
		switch {
		case r.IntN(50) == 0:
			return []int64{low, high, 0, -1}[r.IntN(4)]
		case shape == "few":
			return int64(r.IntN(7)) % (high/2 + 1)
		case shape == "steps":
			return (int64(row)*3 + int64(r.IntN(3))) % (high/2 + 1)
		}
		return int64(r.Uint64N(uint64(high)+1)) * int64(1-2*r.IntN(2))
	}
	switch x.Kind {
	case record.Boolean:
		return fmt.Sprint(r.IntN(3) == 0)
	case record.Int:
		return fmt.Sprint(integer(math.MinInt32, math.MaxInt32))
	case record.Long:
		return fmt.Sprint(integer(math.MinInt64, math.MaxInt64))
	case record.Decimal:
		high := int64(math.Pow10(x.Precision)) - 1
		return decimalText(big.NewInt(integer(-high, high)), x.Scale)
	case record.Double:
		return []string{"-0.0", "1e-320", "1.7976931348623157e308", fmt.Sprintf("%d.125", r.IntN(9)), fmt.Sprint(r.NormFloat64())}[r.IntN(5)]
	case record.Date:
		return fmt.Sprintf(`"%04d-%02d-%02d"`, []int{1900, 1970, 2026, 2299}[r.IntN(4)], 1+r.IntN(12), 1+r.IntN(28)) // what ClickHouse holds
	case record.TimestampTZ:
		return fmt.Sprintf(`"%04d-%02d-%02dT%02d:%02d:%02d.%06dZ"`, []int{1900, 1969, 2026, 2262}[r.IntN(4)], 1+r.IntN(3), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), r.IntN(1e6))
	}
	switch shape {
	case "few":
		return []string{`""`, `"A"`, `"naïve \u0000 😀"`, `"\"\\\/\b\f\n\r\t"`}[r.IntN(4)]
	case "steps":
		return fmt.Sprintf(`"prefix-of-a-key-%08d"`, row)
	}
	return fmt.Sprintf(`"%s%d"`, strings.Repeat("é", 300+r.IntN(200)), r.Uint64())
}

// TestOtherReaders has programs that nobody here wrote read our files: every
// type, encoding and null, the bench's records, several row groups, and groups
// of several files copied into one.
func TestOtherReaders(t *testing.T) {
	for _, shape := range []string{"few", "steps", "any"} {
		t.Run(shape, func(t *testing.T) {
			r := rand.New(rand.NewPCG(14, 3))
			schema := everyType()
			l, err := Compile(schema, Options{})
			if err != nil {
				t.Fatal(err)
			}
			var rows [][]any
			var sources []Source
			for group := range 3 { // one without nulls, one with some, one with many
				var docs [][]byte
				for range 3000 {
					var b bytes.Buffer
					b.WriteByte('{')
					for i, f := range schema.Fields {
						if f.Name == "never" || !f.Required && group > 0 && r.IntN(4) < group {
							continue
						}
						if b.Len() > 1 {
							b.WriteByte(',')
						}
						fmt.Fprintf(&b, "%q:%s", f.Name, value(r, f.Type, shape, len(rows)+len(docs)+i))
					}
					b.WriteByte('}')
					docs = append(docs, b.Bytes())
				}
				batch := l.NewDecoder().DecodeDocs(docs, 1)
				if len(batch.Rejects) > 0 {
					t.Fatalf("%s in %s", batch.Rejects[0].Message, docs[batch.Rejects[0].Doc])
				}
				rows = append(rows, batch.rows()...)
				for _, p := range build(t, l, batch) {
					sources = append(sources, Source{ReaderAt: bytes.NewReader(p.Data), Size: int64(len(p.Data)), Meta: p.Meta})
				}
			}
			var file bytes.Buffer
			if _, err := Concat(&file, sources); err != nil {
				t.Fatal(err)
			}
			if got := readParquet(t, file.Bytes()); !slices.EqualFunc(got, rows, slices.Equal) {
				t.Error("arrow-go reads other rows")
			}
			checkReaders(t, schema.Fields, file.Bytes(), rows)
		})
	}
	t.Run("trades", func(t *testing.T) {
		l := compile(t, tradeSchema(), "")
		arena, ends := trades(20_000, 5)
		batch := l.NewDecoder().DecodeDocs(split(arena, ends), 1_795_787_939_464_000)
		batch.SetOrigin(record.Key{Incarnation: [16]byte{1, 2, 3}}, 77)
		rows := batch.rows()
		parts := build(t, l, batch)
		if len(parts) != 1 || len(rows) != 20_000 {
			t.Fatalf("%d parts, %d rows", len(parts), len(rows))
		}
		checkReaders(t, tradeSchema().Fields, parts[0].Data, rows)
	})
}
