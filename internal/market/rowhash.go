package market

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/engine"
	"github.com/tapehouse/tapehouse/internal/record"
)

// rowText is the SQL of a row's canonical text: docs/protocols/seal.md, "The row
// hash". Its form is part of every certificate: it never changes without a new
// certificate format.
func rowText(s record.Schema) (string, error) {
	fields := slices.Clone(s.Fields)
	slices.SortFunc(fields, func(a, b record.Field) int { return a.ID - b.ID })
	items := make([]string, len(fields))
	for i, f := range fields {
		q := engine.QuoteIdentifier(f.Name)
		var v string
		switch f.Type.Kind {
		case record.String:
			v = "CAST(strlen(" + q + ") AS VARCHAR) || ':' || " + q
		case record.Boolean:
			v = "CASE WHEN " + q + " THEN '1' ELSE '0' END"
		case record.Int, record.Long, record.Decimal, record.Double:
			v = "CAST(" + q + " AS VARCHAR)"
		case record.Date:
			v = "CAST(date_diff('day', DATE '1970-01-01', " + q + ") AS VARCHAR)"
		case record.TimestampTZ:
			v = "CAST(epoch_us(" + q + ") AS VARCHAR)"
		default:
			return "", fmt.Errorf("column %q of type %s has no canonical text", f.Name, f.Type)
		}
		if !f.Required {
			v = "CASE WHEN " + q + " IS NULL THEN '~' ELSE " + v + " END"
		}
		items[i] = v
	}
	return "concat_ws(',', " + strings.Join(items, ", ") + ")", nil
}

var (
	half   = new(big.Int).Lsh(big.NewInt(1), 64)
	modulo = new(big.Int).Lsh(big.NewInt(1), 128)
)

// rowHash computes a table's rows and row hash: of partition d, or of all rows
// where the table has no trade date.
func (m *Market) rowHash(ctx context.Context, pin *engine.Pin, s *state, d calendar.TradeDate) (rows int64, hash string, err error) {
	row, err := rowText(s.schema)
	if err != nil {
		return 0, "", fmt.Errorf("hash table %s: %w", s.table.Name, err)
	}
	// The two halves of each digest are summed apart, in 128 bits, which cannot
	// overflow below 2^63 rows; their sum modulo 2^128 is the row hash.
	sql := "SELECT count(*), coalesce(sum(CAST(h >> 64 AS HUGEINT)), 0), coalesce(sum(CAST(h & 18446744073709551615 AS HUGEINT)), 0) FROM (SELECT md5_number(" + row + ") AS h FROM " + s.quoted()
	if s.partition != "" {
		sql += " WHERE " + engine.QuoteIdentifier(s.partition) + " = " + dateLiteral(d)
	}
	err = m.query(ctx, pin, sql+")", func(row []any) error {
		upper, ok := row[1].(engine.Decimal)
		lower, ok2 := row[2].(engine.Decimal)
		if !ok || !ok2 {
			return fmt.Errorf("hash table %s: sums have the types %T, %T", s.table.Name, row[1], row[2])
		}
		sum := new(big.Int).Mul(upper.Unscaled, half)
		sum.Add(sum, lower.Unscaled)
		sum.Mod(sum, modulo)
		rows, hash = integer(row[0]), hex.EncodeToString(sum.FillBytes(make([]byte, 16)))
		return nil
	})
	return rows, hash, err
}
