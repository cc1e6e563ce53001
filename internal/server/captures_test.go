package server

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/calendar"
	"github.com/tapehouse/tapehouse/internal/exchange"
)

// capture opens a file of real exchange data, or skips the test.
func capture(t *testing.T, name string) *os.File {
	t.Helper()
	dir := os.Getenv("TAPEHOUSE_TEST_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	f, err := os.Open(filepath.Join(dir, name))
	if os.IsNotExist(err) {
		t.Skipf("SKIPPED: the real capture %s is missing; set TAPEHOUSE_TEST_DATA to the directory that has it", name)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// TestCapturesGoTheWholeWay plays real exchange data through the Firehose API
// and counts it by SQL. The counts are those of the message types that each
// file is known to hold, not what our own player says.
func TestCapturesGoTheWholeWay(t *testing.T) {
	for _, tt := range []struct {
		file    string
		date    calendar.TradeDate
		counts  map[string]int // rows of order_events by event_type
		legs    int            // of executions whose order is known, crosses apart
		unknown int            // rows that name an order which the file never added
	}{
		{"itch50/AAPL_locate13_10k_2020-01-30.itch50", calendar.Date(2020, 1, 30), map[string]int{
			"add": 4758 + 2, "delete": 4083, "execute": 849, "hidden": 240, "participant": 52, "replace": 7, "cancel": 6, "directory": 1, "status": 1, "reg-sho": 1,
		}, 2 * (849 + 240), 0},
		{"itch50/12302019_SNIPPET.NASDAQ_ITCH50", calendar.Date(2019, 12, 30), map[string]int{
			"add": 367 + 193, "replace": 225, "delete": 167, "execute": 28 + 1, "cancel": 6, "imbalance": 4, "hidden": 4, "cross": 4, "system": 1,
		}, -1, 394},
		{"itch50/stock_directory_1k.itch50", calendar.Date(2019, 12, 30), map[string]int{"directory": 993, "status": 3, "reg-sho": 3, "system": 1}, 0, 0},
		{"lobster/GOOG_2012-06-21_34200000_57600000_message_1.csv.gz", calendar.Date(2012, 6, 21), map[string]int{
			"add": 24368, "cancel": 7, "delete": 13429, "execute": 7765, "hidden": 3913,
		}, 2 * (7765 + 3913), 0},
		{"lobster/AAPL_2012-06-21_34200000_37800000_message_50.csv.gz", calendar.Date(2012, 6, 21), map[string]int{
			"add": 44256, "cancel": 469, "delete": 41004, "execute": 4067, "hidden": 2201,
		}, 2 * (4067 + 2201), 0},
	} {
		name := filepath.Base(tt.file)
		t.Run(name, func(t *testing.T) {
			f := capture(t, tt.file)
			s := open(t, testConfig(t))
			conn := connect(t, s)
			cfg := exchange.PlayConfig{Seed: 7, Calendar: s.pack.Calendar, TradeDate: tt.date}
			var player interface {
				exchange.Player
				Report() exchange.Report
			}
			var err error
			if symbol, ok := exchange.SymbolOfFile(name); ok {
				player, err = exchange.NewLOBSTER(f, symbol, cfg)
			} else {
				player, err = exchange.NewITCH(f, cfg)
			}
			if err != nil {
				t.Fatal(err)
			}
			// References that the file names before any message added them, counted
			// here from the documents alone.
			added, unknown := map[int64]bool{}, map[string]int{}
			sideless, offspring := 0, map[int64]bool{} // a replacement of an unknown order has no side either
			counts := playAll(t, s, player, func(stream string, doc []byte) {
				if stream != exchange.StreamOrders || strings.HasPrefix(tt.file, "lobster") {
					return
				}
				var e struct {
					Type string `json:"event_type"`
					Ref  int64  `json:"order_ref"`
					New  int64  `json:"new_order_ref"`
				}
				if err := json.Unmarshal(doc, &e); err != nil {
					t.Fatal(err)
				}
				switch e.Type {
				case "replace", "cancel", "delete", "execute":
					if !added[e.Ref] {
						unknown[fmt.Sprint(e.Ref)]++
					} else if offspring[e.Ref] {
						sideless++
					}
					if e.Type == "replace" {
						offspring[e.New] = !added[e.Ref] || offspring[e.Ref]
						added[e.New] = true
					}
				case "add":
					added[e.Ref] = true
				}
			})
			if lines := errorOutput(t, s); len(lines) != 0 { // and all of it is in the table now
				t.Errorf("%d records in the error output, the first: %+v", len(lines), lines[0])
			}
			total := 0
			for kind, want := range tt.counts {
				total += want
				if got := text(t, conn, "SELECT count(*) FROM order_events WHERE event_type = $1", kind); got != fmt.Sprint(want) {
					t.Errorf("%s: %s rows, want %d", kind, got, want)
				}
			}
			if got := text(t, conn, "SELECT count(*) || ' ' || count(DISTINCT seq) || ' ' || min(seq) || ' ' || max(seq) FROM order_events"); got != fmt.Sprintf("%d %d 1 %d", total, total, total) {
				t.Errorf("order events, of which distinct, first, last: %s; want %d", got, total)
			}
			if got := text(t, conn, "SELECT count(*) FROM order_events WHERE trade_date <> $1", tt.date.String()); got != "0" {
				t.Errorf("%s rows have another trade date", got)
			}
			legs := text(t, conn, "SELECT count(*) FROM executions")
			if tt.legs >= 0 && legs != fmt.Sprint(tt.legs) || legs != fmt.Sprint(counts[exchange.StreamExecutions]) {
				t.Errorf("%s legs, want %d, sent %d", legs, tt.legs, counts[exchange.StreamExecutions])
			}
			if got := table(t, conn, `SELECT match_number FROM executions GROUP BY match_number
				HAVING sum(CASE WHEN side = 'B' THEN quantity ELSE 0 END) <> sum(CASE WHEN side = 'B' THEN 0 ELSE quantity END)`); len(got) != 0 {
				t.Errorf("matches whose legs disagree: %q", got)
			}
			// The markers' own counts are what arrived.
			if got := table(t, conn, `SELECT m.source FROM markers m WHERE m.record_count <>
				(SELECT count(*) FROM (SELECT source FROM order_events UNION ALL SELECT source FROM executions) r WHERE r.source = m.source)`); len(got) != 0 {
				t.Errorf("markers that disagree: %q", got)
			}

			// Unknown references are reported and are rows, with nulls for what only
			// their order could tell.
			report := player.Report()
			if strings.HasPrefix(tt.file, "lobster") { // each line tells its order, but for the hidden ones
				t.Logf("%d orders from before the file", report.Unknown)
				return
			}
			bare := map[string]int{}
			for _, row := range table(t, conn, `SELECT order_ref, count(*) FROM order_events WHERE side IS NULL AND mpid IS NULL AND capacity IS NULL
				AND event_type IN ('replace', 'cancel', 'delete', 'execute') GROUP BY order_ref`) {
				ref, n, _ := strings.Cut(row, "|")
				bare[ref] = atoi(t, n)
			}
			events, rows := 0, 0
			for ref, n := range unknown {
				if bare[ref] != n {
					t.Errorf("unknown reference %s: %d rows without side and participant, want %d", ref, bare[ref], n)
				}
				events, rows = events+n, rows+bare[ref]
			}
			if events != tt.unknown || rows != tt.unknown || report.Unknown != int64(tt.unknown) || len(report.UnknownListed) != tt.unknown {
				t.Errorf("%d unknown references in the documents, %d rows, %d reported, %d listed; want %d", events, rows, report.Unknown, len(report.UnknownListed), tt.unknown)
			}
			if got := text(t, conn, "SELECT count(*) FROM order_events WHERE side IS NULL AND event_type IN ('replace', 'cancel', 'delete', 'execute')"); got != fmt.Sprint(tt.unknown+sideless) {
				t.Errorf("%s events have no side, want %d", got, tt.unknown+sideless)
			}
		})
	}
}
