package exchange_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/packs"
)

func recordStream(s string) record.StreamName { return record.StreamName(s) }

// canonicalText is the text of docs/formats/manifest.md, made from the document
// and the pack's schema alone. It checks the order of the document's members on
// its way.
func canonicalText(t *testing.T, cal *calendar.Calendar, s *packs.Stream, doc []byte) string {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	values := map[string]any{}
	var names []string
	if _, err := d.Token(); err != nil {
		t.Fatal(err)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		value, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		values[name.(string)] = value
		names = append(names, name.(string))
	}
	var out strings.Builder
	member := 0
	for _, f := range s.Schema.Fields {
		from := f.Name
		switch f.Derive {
		case record.FromJSON:
			if member < len(names) && names[member] == f.Name {
				member++
			} else if f.Required {
				t.Fatalf("%s lacks %s", doc, f.Name)
			}
		case record.TradeDate, record.EpochNanos:
			from = f.From
		default:
			continue
		}
		v, ok := values[from]
		if !ok {
			continue
		}
		text := fmt.Sprint(v)
		switch f.Type.Kind {
		case record.Decimal:
			whole, fraction, _ := strings.Cut(text, ".")
			text = strings.TrimLeft(whole+fraction, "0")
			if len(fraction) != f.Type.Scale {
				t.Fatalf("%s: %s has not %d digits after the point", doc, f.Name, f.Type.Scale)
			}
			if text == "" {
				text = "0"
			}
		case record.TimestampTZ, record.Long, record.Date:
			at, err := time.Parse(time.RFC3339Nano, text)
			if err != nil {
				break
			}
			text = fmt.Sprint(at.UnixMicro())
			if f.Derive == record.EpochNanos {
				text = fmt.Sprint(at.UnixNano())
			}
			if f.Derive == record.TradeDate {
				date, ok := cal.TradeDate(at.UnixNano())
				if !ok {
					t.Fatalf("%s is outside every session", doc)
				}
				text = fmt.Sprint(int32(date))
			}
		}
		if f.Type.Kind == record.Date && f.Derive == record.FromJSON {
			date, err := calendar.ParseTradeDate(text)
			if err != nil {
				t.Fatal(err)
			}
			text = fmt.Sprint(int32(date))
		}
		fmt.Fprintf(&out, "%s=%s\n", f.Name, text)
	}
	if member != len(names) {
		t.Fatalf("%s: member %s is out of order or unknown", doc, names[member])
	}
	return out.String()
}
