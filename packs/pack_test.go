package packs_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	_ "time/tzdata"

	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/packs"
)

func load(t testing.TB) *packs.Pack {
	t.Helper()
	p, err := packs.Load(packs.Equities())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEquitiesLoads(t *testing.T) {
	p := load(t)
	if p.Name != "equities" || p.Namespace != "equities" || len(p.Hash) != 32 {
		t.Errorf("name %q, namespace %q, hash %q", p.Name, p.Namespace, p.Hash)
	}
	for _, name := range []record.StreamName{"order-events", "executions", "corrections"} {
		s, ok := p.Stream(name)
		if !ok {
			t.Fatalf("no stream %s", name)
		}
		if want := (record.SequenceColumns{Source: "source", Session: "session", Epoch: "epoch", Sequence: "seq"}); s.Sequence != want {
			t.Errorf("%s: sequence %+v", name, s.Sequence)
		}
		if s.Partition != "trade_date" {
			t.Errorf("%s: partition %q", name, s.Partition)
		}
	}
	markers, _ := p.Stream(p.Close.Markers)
	if !markers.Sequence.IsZero() {
		t.Error("markers are control records: they are not numbered")
	}
	if n := strings.Count(p.Views, "CREATE MATERIALIZED VIEW"); n != 3 {
		t.Errorf("%d views", n)
	}
	exec, _ := p.Stream("executions")
	price := exec.Schema.Fields[exec.Schema.Index("price")]
	if price.Type.String() != "decimal(18, 4)" || !price.Required {
		t.Errorf("price is %v", price)
	}
}

// TestReferencesAgree checks what the types cannot: the dimension rows in
// effect on any date are unique, so that no leg is billed twice.
func TestReferencesAgree(t *testing.T) {
	p := load(t)
	for _, tt := range []struct {
		table string
		key   []string
	}{
		{"members", []string{"member_id"}},
		{"mpids", []string{"mpid"}},
		{"fee_schedule", []string{"charge", "fee_code", "tape", "price_band"}},
		{"roster", []string{"source", "session_pattern", "stream"}},
	} {
		r, ok := p.Reference(tt.table)
		if !ok || len(r.Rows) == 0 {
			t.Fatalf("no rows in %s", tt.table)
		}
		type span struct{ from, to string }
		seen := map[string][]span{}
		for _, row := range r.Rows {
			var key []string
			for _, c := range tt.key {
				key = append(key, row[r.Column(c)])
			}
			s := span{row[r.Column("effective_from")], row[r.Column("effective_to")]}
			if s.to == "" {
				s.to = "9999-12-31"
			}
			k := strings.Join(key, "|")
			for _, o := range seen[k] {
				if s.from < o.to && o.from < s.to {
					t.Errorf("%s: %s is in effect twice: %v and %v", tt.table, k, s, o)
				}
			}
			seen[k] = append(seen[k], s)
		}
	}
	members, _ := p.Reference("members")
	known := map[string]bool{}
	for _, row := range members.Rows {
		known[row[0]] = true
	}
	mpids, _ := p.Reference("mpids")
	for _, row := range mpids.Rows {
		if !known[row[mpids.Column("member_id")]] {
			t.Errorf("mpid %s belongs to the unknown member %s", row[0], row[1])
		}
	}
	fees, _ := p.Reference("fee_schedule")
	specific := map[string]bool{}
	for _, row := range fees.Rows {
		if place := row[fees.Column("rounding_place")]; place != "2" && place != "4" {
			t.Errorf("rounding place %s is not known to the statement", place)
		}
		if mode := row[fees.Column("rounding_mode")]; mode != "half-up" && mode != "half-even" && mode != "down" {
			t.Errorf("rounding mode %s is not known to the statement", mode)
		}
		switch row[fees.Column("rate_type")] {
		case "per_share", "basis_points", "per_million":
		default:
			t.Errorf("rate type %s is not known to the statement", row[fees.Column("rate_type")])
		}
		if row[0] == "transaction" {
			specific[strings.Join(row[1:4], "|")] = true
		}
	}
	// Each code has a rate on each tape and band, by name or by *, never both.
	for _, code := range []string{"add", "remove", "hidden", "midpoint", "open", "close", "routed"} {
		for _, band := range []string{"over-1", "under-1"} {
			for _, tape := range []string{"A", "B", "C"} {
				own, all := specific[code+"|"+tape+"|"+band], specific[code+"|*|"+band]
				if own == all {
					t.Errorf("fee code %s, tape %s, %s: rate of its own %v, of all tapes %v", code, tape, band, own, all)
				}
			}
		}
	}
}

// edited returns the embedded pack with one file's text changed.
func edited(t *testing.T, file, from, to string) fs.FS {
	t.Helper()
	out := fstest.MapFS{}
	err := fs.WalkDir(packs.Equities(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(packs.Equities(), name)
		if err != nil {
			return err
		}
		if name == file {
			if !strings.Contains(string(text), from) {
				t.Fatalf("%s does not contain %q", file, from)
			}
			text = []byte(strings.Replace(string(text), from, to, 1))
		}
		out[name] = &fstest.MapFile{Data: text}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestLoadRefuses(t *testing.T) {
	for _, tt := range []struct{ name, file, from, to, want string }{
		{"unknown key", "pack.yaml", "    table: order_events", "    tabel: order_events", "tabel"},
		{"format", "pack.yaml", "format: 1", "format: 9", "format 9"},
		{"type", "pack.yaml", "decimal(18,4)", "decimal(19,4)", "decimal(19,4)"},
		{"column twice", "pack.yaml", "{name: session, type: string", "{name: source, type: string", "stands twice"},
		{"derive", "pack.yaml", "derive: epoch-ns", "derive: epoch-ms", "epoch-ms"},
		{"derive from", "pack.yaml", "from: occurred_at}", "from: happened_at}", "happened_at"},
		{"partition", "pack.yaml", "partition: trade_date", "partition: trade_day", "trade_day"},
		{"sequence", "pack.yaml", "sequence: seq}", "sequence: price}", "price"},
		{"stream name", "pack.yaml", "name: order-events", "name: order/events", "order/events"},
		{"table name", "pack.yaml", "table: order_events", "table: Order", "Order"},
		{"path", "pack.yaml", "file: members.csv", "file: ../members.csv", "../members.csv"},
		{"missing file", "pack.yaml", "file: members.csv", "file: firms.csv", "firms.csv"},
		{"role", "pack.yaml", "role: report", "role: poem", "poem"},
		{"explains", "pack.yaml", "explains: member_statement", "explains: summary", "summary"},
		{"roster", "pack.yaml", "roster: roster", "roster: members", "lacks the column"},
		{"markers", "pack.yaml", "markers: markers", "markers: flags", "flags"},
		{"buffer", "pack.yaml", "size_mib: 128", "size_mib: 129", "129"},
		{"calendar", "calendar.yaml", "time_zone: America/New_York", "time_zone: America/Gotham", "calendar.yaml"},
		{"csv header", "members.csv", "member_id,name", "member,name", "member_id"},
		{"csv date", "members.csv", "2012-01-01", "2012-13-01", "members.csv:3:"},
		{"csv required", "mpids.csv", "ALDR,", ",", "required"},
		{"csv columns", "mpids.csv", "ALDR,M001,", "ALDR,", "wrong number of fields"},
		{"csv decimal", "fee_schedule.csv", "-0.002000", "-0.0020001", "digits after the point"},
		{"roster stream", "roster.csv", "order-events", "orders", "orders"},
		{"no parameter", "reports/summary.sql", "CAST($1 AS DATE)", "CURRENT_DATE", "$1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// The header comment of a SQL file names $1 as well.
			fsys := edited(t, tt.file, tt.from, tt.to)
			if tt.name == "no parameter" {
				fsys.(fstest.MapFS)[tt.file] = &fstest.MapFile{Data: []byte("SELECT 1")}
			}
			_, err := packs.Load(fsys)
			if !errors.Is(err, packs.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want it to name %q", err, tt.want)
			}
		})
	}
}

func TestHashIsContent(t *testing.T) {
	a := load(t)
	b, err := packs.Load(edited(t, "fee_schedule.csv", "0.003000", "0.003001"))
	if err != nil {
		t.Fatal(err)
	}
	if a.Hash == b.Hash {
		t.Error("another fee has the same hash")
	}
}

func TestParseDecimal(t *testing.T) {
	typ := record.Type{Kind: record.Decimal, Precision: 6, Scale: 3}
	for _, tt := range []struct {
		in   string
		want int64
		ok   bool
	}{
		{"1", 1000, true}, {"-1.5", -1500, true}, {"0.0010", 1, true}, {"999.999", 999999, true}, {"-0", 0, true},
		{"0.0001", 0, false}, {"1000", 0, false}, {"", 0, false}, {"-", 0, false}, {".5", 0, false},
		{"1e3", 0, false}, {"+1", 0, false}, {"--1", 0, false}, {"1.2.3", 0, false},
	} {
		got, err := packs.ParseDecimal(tt.in, typ)
		if (err == nil) != tt.ok || got != tt.want {
			t.Errorf("ParseDecimal(%q) = %d, %v", tt.in, got, err)
		}
	}
}
