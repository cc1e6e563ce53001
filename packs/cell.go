package packs

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/record"
)

// checkCell checks the text of one cell against its column's type. An empty
// cell is null.
func checkCell(f record.Field, s string) error {
	if s == "" {
		if f.Required {
			return errors.New("empty, but required")
		}
		return nil
	}
	switch f.Type.Kind {
	case record.String:
		if !utf8.ValidString(s) {
			return fmt.Errorf("%q is not UTF-8", s)
		}
		return nil
	case record.Boolean:
		if s != "true" && s != "false" {
			return fmt.Errorf("%q: want true or false", s)
		}
		return nil
	case record.Int:
		_, err := strconv.ParseInt(s, 10, 32)
		return err
	case record.Long:
		_, err := strconv.ParseInt(s, 10, 64)
		return err
	case record.Decimal:
		_, err := ParseDecimal(s, f.Type)
		return err
	case record.Date:
		_, err := calendar.ParseTradeDate(s)
		return err
	case record.TimestampTZ:
		_, err := time.Parse(time.RFC3339Nano, s)
		return err
	default:
		return fmt.Errorf("a reference table cannot hold %s", f.Type)
	}
}

// ParseDecimal reads an exact decimal and returns its value times 10^Scale.
// Digits beyond the scale are refused unless they are 0; nothing is rounded.
func ParseDecimal(s string, t record.Type) (int64, error) {
	digits, negative := strings.CutPrefix(s, "-")
	whole, fraction, _ := strings.Cut(digits, ".")
	if len(fraction) > t.Scale {
		if strings.Trim(fraction[t.Scale:], "0") != "" {
			return 0, fmt.Errorf("%q has more than %d digits after the point", s, t.Scale)
		}
		fraction = fraction[:t.Scale]
	}
	all := whole + fraction + strings.Repeat("0", t.Scale-len(fraction))
	if whole == "" || strings.Trim(all, "0123456789") != "" {
		return 0, fmt.Errorf("%q is no decimal", s)
	}
	all = strings.TrimLeft(all, "0")
	if len(all) > t.Precision {
		return 0, fmt.Errorf("%q has more digits than %s", s, t)
	}
	if all == "" {
		return 0, nil
	}
	v, err := strconv.ParseInt(all, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q: %w", s, err)
	}
	if negative {
		v = -v
	}
	return v, nil
}
