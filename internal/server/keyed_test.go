package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	icebergtable "github.com/apache/iceberg-go/table"

	"github.com/tapehouse/tapehouse/internal/catalog"
	"github.com/tapehouse/tapehouse/internal/console"
	"github.com/tapehouse/tapehouse/internal/fsys"
	"github.com/tapehouse/tapehouse/internal/maintain"
	"github.com/tapehouse/tapehouse/internal/record"
	"github.com/tapehouse/tapehouse/internal/s3test"
)

// routedBy is a processing that routes records to a table, by their member op.
func routedBy(table string) jsonObject {
	return processors(processor("MetadataExtraction", "MetadataExtractionQuery",
		`{destinationDatabaseName: "equities", destinationTableName: "`+table+`", operation: (.op // "insert")}`, "JsonParsingEngine", "JQ-1.6"))
}

func keyedStream(name, table string, keys ...string) jsonObject {
	return iceberg(name, jsonObject{"ProcessingConfiguration": routedBy(table),
		"DestinationTableConfigurationList": []jsonObject{{"DestinationDatabaseName": "equities", "DestinationTableName": table, "UniqueKeys": keys}}})
}

// Records insert, update and delete rows, which SQL sees at once, before and
// after they are published.
func TestKeyedTable(t *testing.T) {
	s := open(t, testConfig(t))
	conn := connect(t, s)
	aws := client(t, s)
	execute1(t, conn, "CREATE TABLE equities.orders (id bigint NOT NULL, symbol varchar NOT NULL, price decimal(18,4))")
	if err := aws.Call(t.Context(), "CreateDeliveryStream", keyedStream("orders", "orders", "id"), nil); err != nil {
		t.Fatal(err)
	}
	const query = "SELECT id, symbol, price FROM equities.orders ORDER BY id, symbol"
	want := func(when string, rows ...string) {
		t.Helper()
		if got := strings.Join(table(t, conn, query), "\n"); got != strings.Join(rows, "\n") {
			t.Fatalf("%s:\n%s\nwant\n%s", when, got, strings.Join(rows, "\n"))
		}
	}
	flush := func() {
		t.Helper()
		if err := s.delivery.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	put(t, aws, "orders", []byte(`{"id":1,"symbol":"A","price":1.5}`), []byte(`{"id":2,"symbol":"B","price":2}`), []byte(`{"op":"update","id":3,"symbol":"C","price":3}`))
	want("inserts", "1|A|1.5000", "2|B|2.0000", "3|C|3.0000")
	put(t, aws, "orders", []byte(`{"op":"update","id":1,"symbol":"A2","price":null}`), []byte(`{"op":"delete","id":2}`))
	want("in the tail", "1|A2|NULL", "3|C|3.0000")
	flush()
	want("published", "1|A2|NULL", "3|C|3.0000")
	put(t, aws, "orders", []byte(`{"op":"delete","id":1}`), []byte(`{"id":1,"symbol":"A3"}`), []byte(`{"op":"update","id":3,"symbol":"C2"}`), []byte(`{"op":"update","id":3,"symbol":"C3"}`))
	want("over what is published", "1|A3|NULL", "3|C3|NULL")
	flush()
	want("published again", "1|A3|NULL", "3|C3|NULL")
	put(t, aws, "orders", []byte(`{"op":"delete","id":1}`), []byte(`{"op":"delete","id":3}`))
	want("all gone")
	flush()
	want("all gone for good")
}

// The operation may come from a SELECT over the records as well, and a record
// may be taken apart first: its parts are applied in their order.
func TestKeyedTableBySelect(t *testing.T) {
	s := open(t, testConfig(t))
	conn := connect(t, s)
	aws := client(t, s)
	execute1(t, conn, "CREATE TABLE equities.limits (member varchar, amount numeric(18,2))")
	in := keyedStream("limits", "limits", "member")
	in["IcebergDestinationConfiguration"].(jsonObject)["ProcessingConfiguration"] = processors(processor("RecordDeAggregation", "SubRecordType", "JSON"),
		processor("Lambda", "LambdaArn", "sql:SELECT member, amount * 1000 AS amount, CASE WHEN amount IS NULL THEN 'delete' ELSE 'update' END AS _operation FROM records AS r(member varchar, amount decimal(12,2))"))
	if err := aws.Call(t.Context(), "CreateDeliveryStream", in, nil); err != nil {
		t.Fatal(err)
	}
	put(t, aws, "limits", []byte(`{"member":"A","amount":1.5} {"member":"B","amount":2} {"member":"A","amount":3} {"member":"B"} {"member":"C","amount":4}`), []byte(`{"member":"D","amount":1}{"member":"C"}`))
	for _, when := range []string{"in the tail", "published"} {
		if got := strings.Join(table(t, conn, "SELECT member, amount FROM equities.limits ORDER BY member"), " "); got != "A|3000.00 D|1000.00" {
			t.Errorf("%s: %s", when, got)
		}
		if err := s.delivery.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// Records may widen a column of the key: removals and files from before are read
// as the new type.
func TestKeyedTableWidens(t *testing.T) {
	s := open(t, testConfig(t))
	conn := connect(t, s)
	aws := client(t, s)
	execute1(t, conn, "CREATE TABLE equities.wide (id integer, level numeric(6,2), v bigint)")
	in := keyedStream("wide", "wide", "id", "level")
	in["IcebergDestinationConfiguration"].(jsonObject)["SchemaEvolutionConfiguration"] = jsonObject{"Enabled": true}
	if err := aws.Call(t.Context(), "CreateDeliveryStream", in, nil); err != nil {
		t.Fatal(err)
	}
	step := func(want string, flush bool, docs ...string) {
		t.Helper()
		for _, d := range docs {
			put(t, aws, "wide", []byte(d))
		}
		for i := range 2 {
			got := ""
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) { // the statement may be bound before the column is widened
				rows, err := rowsOf(t.Context(), conn, "SELECT id, level, v FROM equities.wide ORDER BY v")
				if got = strings.Join(rows, " "); got == want || time.Now().After(deadline) {
					if got != want {
						t.Fatalf("%v: %s, want %s (%v)", docs, got, want, err)
					}
					break
				}
			}
			if i == 0 && flush {
				if err := s.delivery.Flush(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	step("1|1.50|1 2|1.50|2 3|1.50|3", true, `{"id":1,"level":1.5,"v":1}`, `{"id":2,"level":1.5,"v":2}`, `{"id":3,"level":1.5,"v":3}`)
	step("2|1.50|2 3|1.50|3 4|1.50|4 5|1.50|5", false, `{"op":"delete","id":1,"level":1.5}`, `{"id":4,"level":1.5,"v":4}`, `{"id":5,"level":1.5,"v":5}`)
	step("3|1.50|3 4|1.50|4 5|1.50|5 5000000000|1.50|6", false, `{"op":"update","id":5000000000,"level":1.5,"v":6}`, `{"op":"delete","id":2,"level":1.5}`)
	step("3|1.50|3 5|1.50|5 5000000000|123456.00|7", true, `{"op":"delete","id":5000000000,"level":1.5}`, `{"op":"update","id":5000000000,"level":123456,"v":7}`, `{"op":"delete","id":4,"level":1.5}`)
	step("5000000000|123456.00|8", true, `{"op":"delete","id":3,"level":1.5}`, `{"op":"delete","id":5,"level":1.5}`, `{"op":"update","id":5000000000,"level":123456,"v":8}`)
}

// keyedRows is the model of a table with the key (symbol, strike, expiry, at).
type keyedRows struct {
	r      *rand.Rand
	rows   map[string][]string // key → the rows with it
	serial int
}

// change makes a random change and returns its record.
func (m *keyedRows) change(keys int) []byte {
	m.serial++
	k := m.r.IntN(keys)
	symbol, strike, expiry := fmt.Sprintf("S\"%d", k%3), fmt.Sprintf("%d.2500", k%5), fmt.Sprintf("2026-12-%02d", 1+k%2)
	at := fmt.Sprintf("2026-11-27 14:30:00.%06d", 1+k%4)
	day := fmt.Sprintf("2026-11-%02d", 20+m.r.IntN(4)) // not of the key: a row may move
	key := strings.Join([]string{symbol, strike, expiry, at}, "|")
	op := []string{"insert", "update", "update", "delete"}[m.r.IntN(4)]
	if op != "insert" {
		delete(m.rows, key)
	}
	document := fmt.Sprintf(`"op":%q,"symbol":%q,"strike":"%s","expiry":%q,"at":%q`, op, symbol, strike, expiry, strings.Replace(at, " ", "T", 1)+"Z")
	if op != "delete" {
		m.rows[key] = append(m.rows[key], fmt.Sprintf("%s|%s|%d", key, day, m.serial))
		document += fmt.Sprintf(`,"day":%q,"v":%d`, day, m.serial)
	}
	return []byte("{" + document + "}")
}

func (m *keyedRows) sorted() string {
	var out []string
	for _, rows := range m.rows {
		out = append(out, rows...)
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

const keyedQuery = "SELECT symbol, strike, expiry, to_char(at, 'YYYY-MM-DD HH24:MI:SS.US'), day, v FROM equities.options"

// scanned is what another implementation's reader makes of the published table.
func scanned(t *testing.T, s *Server, name string) string {
	t.Helper()
	tbl, err := s.catalog.Library().LoadTable(t.Context(), icebergtable.Identifier{"equities", name})
	if err != nil {
		t.Fatal(err)
	}
	all, err := tbl.Scan().ToArrowTable(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer all.Release()
	var out []string
	columns := int(all.NumCols())
	chunks := make([][]string, columns)
	for c := range columns {
		for _, chunk := range all.Column(c).Data().Chunks() {
			for i := range chunk.Len() {
				chunks[c] = append(chunks[c], chunk.ValueStr(i))
			}
		}
	}
	for i := range int(all.NumRows()) {
		row := make([]string, columns)
		for c := range columns {
			row[c] = chunks[c][i]
		}
		out = append(out, strings.Join(row, "|"))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// TestKeyedHistory holds a random history against a model: composite keys of
// text, decimal, date and time, rows that move between partitions, compactions
// beside the flushes, and restarts. What SQL sees at any time and what Iceberg's
// own library reads of the published table are the model's rows.
func TestKeyedHistory(t *testing.T) {
	rounds := 16
	if testing.Short() {
		rounds = 8
	}
	s, m := keyedHistory(t, testConfig(t), rounds, true)
	want := strings.NewReplacer("2026-11-27 14:30", "2026-11-27T14:30", ".2500|", ".25|").Replace(m.sorted()) // as Arrow writes them
	if got := strings.ReplaceAll(scanned(t, s, "options"), "Z|", "|"); got != want {
		t.Fatalf("Iceberg's library reads\n%s\nwant\n%s", got, want)
	}
}

// pyScript prints the rows of a table's metadata file as the tests write them.
const pyScript = `
import sys
from pyiceberg.table import StaticTable
for r in StaticTable.from_metadata(sys.argv[1]).scan().to_arrow().to_pylist():
    print("|".join([r["symbol"], str(r["strike"]), str(r["expiry"]), r["at"].strftime("%Y-%m-%d %H:%M:%S.%f"), str(r["day"]), str(r["v"])]))
`

// PyIceberg, which nobody here wrote, reads the published table right.
func TestKeyedTableInPyIceberg(t *testing.T) {
	python := os.Getenv("TAPEHOUSE_PYTHON")
	if python == "" {
		python = "python3"
	}
	if out, err := exec.Command(python, "-c", "import pyiceberg, pyarrow").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: %s has no pyiceberg with pyarrow: %s", python, out)
	}
	s, m := keyedHistory(t, testConfig(t), 8, true)
	tbl, err := s.catalog.Library().LoadTable(t.Context(), icebergtable.Identifier{"equities", "options"})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(python, "-c", pyScript, tbl.MetadataLocation()).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(lines)
	if got := strings.Join(lines, "\n"); got != m.sorted() {
		t.Fatalf("PyIceberg reads\n%s\nwant\n%s", got, m.sorted())
	}
}

// The same over a lake on S3 and a network that fails.
func TestKeyedHistoryOnS3(t *testing.T) {
	cfg, _, p := s3Config(t)
	p.Plan(s3test.Random(7, 0.1, s3test.All()...))
	keyedHistory(t, cfg, 8, false)
}

func keyedHistory(t *testing.T, c Config, rounds int, local bool) (*Server, *keyedRows) {
	t.Helper()
	s := open(t, c)
	conn := connect(t, s)
	aws := client(t, s)
	execute1(t, conn, "CREATE TABLE equities.options (symbol varchar, strike numeric(18,4), expiry date, at timestamptz, day date NOT NULL, v bigint NOT NULL) PARTITIONED BY (day)")
	in := keyedStream("options", "options", "symbol", "strike", "expiry", "at")
	in["IcebergDestinationConfiguration"].(jsonObject)["S3Configuration"].(jsonObject)["BucketARN"] = "arn:aws:s3:::lake"
	if err := aws.Call(t.Context(), "CreateDeliveryStream", in, nil); err != nil {
		t.Fatal(err)
	}
	m := &keyedRows{r: rand.New(rand.NewPCG(20261127, 3)), rows: map[string][]string{}}
	seen := func(when string) {
		t.Helper()
		got := optionRows(t, s)
		if got != m.sorted() {
			t.Fatalf("%s:\n%s\nwant\n%s", when, got, m.sorted())
		}
	}
	for round := range rounds {
		for range 1 + m.r.IntN(6) {
			var docs [][]byte
			for range 1 + m.r.IntN(20) {
				docs = append(docs, m.change(40))
			}
			put(t, aws, "options", docs...)
		}
		seen(fmt.Sprintf("round %d", round))
		switch round % 4 {
		case 1, 3:
			flushBeside(t, s, round%8 == 3)
			seen("published")
			if !local {
				continue
			}
			if got := len(strings.Split(scanned(t, s, "options"), "\n")); got != len(strings.Split(m.sorted(), "\n")) {
				t.Fatalf("round %d: Iceberg's library reads %d rows of %d", round, got, len(strings.Split(m.sorted(), "\n")))
			}
		case 2:
			if round%8 == 2 {
				s.delivery.Abandon() // as in a crash
			}
			closeNow(t, s)
			s = open(t, c)
			aws = client(t, s)
			seen("after a restart")
		}
	}
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, m
}

// optionRows is what SQL sees of the options.
func optionRows(t *testing.T, s *Server) string {
	t.Helper()
	rows := table(t, connect(t, s), keyedQuery)
	slices.Sort(rows)
	return strings.Join(rows, "\n")
}

// flushBeside publishes what the streams have, with compactions beside it.
func flushBeside(t *testing.T, s *Server, compact bool) {
	t.Helper()
	var wg sync.WaitGroup
	if compact {
		for day := range int32(4) {
			wg.Go(func() {
				p := catalog.Partition{Value: 20777 + day, Has: true} // 2026-11-20
				if _, err := s.maintainer.Compact(context.Background(), catalog.Name{Namespace: "equities", Table: "options"}, p, maintain.CompactOptions{}); err != nil && !errors.Is(err, catalog.ErrConflict) {
					t.Error(err)
				}
			})
		}
	}
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

// A numbered update or delete that comes late does not win over a row that
// carries a later number of its source; what it was is decided once.
func TestKeyedTableWithNumbers(t *testing.T) {
	c := testConfig(t)
	s := open(t, c)
	quotes(t, s)
	aws := client(t, s)
	change := quote
	step := func(what, want string, docs ...[]byte) {
		t.Helper()
		put(t, aws, "quotes", docs...)
		if got := strings.Join(table(t, connect(t, s), "SELECT symbol, source, v FROM equities.quotes ORDER BY symbol, v"), " "); got != want {
			t.Fatalf("%s: %s, want %s", what, got, want)
		}
	}
	flush := func() {
		t.Helper()
		if err := s.delivery.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	step("in order", "X|A|5 Y|A|6", change("update", "A", 0, 5, "X"), change("update", "A", 0, 6, "Y"))
	step("late, against the tail", "X|A|5 Y|A|6", change("update", "A", 0, 3, "X"), change("delete", "A", 0, 2, "Y"))
	step("another source is by arrival", "X|A|5 Y|B|1", change("update", "B", 0, 1, "Y"))
	step("late of A, whose row is gone", "X|A|5 Y|A|4", change("update", "A", 0, 4, "Y"))
	flush()
	step("late, against the table", "X|A|5 Y|A|4", change("update", "A", 0, 1, "X"))
	step("a later epoch", "X|A|101 Y|A|4", change("update", "A", 1, 1, "X"))
	step("a former epoch", "X|A|101 Y|A|4", change("delete", "A", 0, 9, "X"))
	step("within a put", "X|A|103 Y|A|4", change("update", "A", 1, 3, "X"), change("update", "A", 1, 2, "X"))
	s.delivery.Abandon()
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	s = open(t, c)
	aws = client(t, s)
	step("late, after a restart, and a resend", "X|A|103 Y|A|4", change("delete", "A", 0, 8, "X"), change("update", "A", 1, 3, "X"))
	step("in order again", "Y|A|4", change("delete", "A", 1, 4, "X"))
	step("a late insert is a row", "X|A|7 Y|A|4", change("insert", "A", 0, 7, "X"))
	flush()
	step("published", "X|A|7 Y|A|4")
	// Each was received, whatever came of it.
	accounts, _ := s.ledger.Accounts()
	for _, a := range accounts {
		if got := fmt.Sprintf("%s %d %v", a.Source, a.Epoch, a.Seen); !slices.Contains([]string{"A 0 [{1 10}]", "A 1 [{1 5}]", "B 0 [{1 2}]"}, got) {
			t.Error(got)
		}
	}
}

// What else touches a table: SQL writes, views, columns that records add, other
// streams; and what Describe, trace and the error output say.
func TestKeyedTableAmongOthers(t *testing.T) {
	s := open(t, testConfig(t))
	conn := connect(t, s)
	aws := client(t, s)
	operator, err := console.Dial(t.Context(), fsys.OS, s.cfg.Data)
	if err != nil {
		t.Fatal(err)
	}
	defer operator.Close()
	create := func(in jsonObject) error { return aws.Call(t.Context(), "CreateDeliveryStream", in, nil) }
	execute1(t, conn, "CREATE TABLE equities.positions (account varchar, symbol varchar, quantity bigint NOT NULL, ratio double precision, filename varchar)")
	refusal(t, "no such column", create(keyedStream("p", "positions", "account", "isin")), "InvalidArgumentException", "UniqueKeys of the table equities.positions: the column isin does not exist; the columns are account, symbol, quantity, ratio, filename.")
	refusal(t, "a double", create(keyedStream("p", "positions", "ratio")), "InvalidArgumentException", "the column ratio is a double")
	refusal(t, "a reserved name", create(keyedStream("p", "positions", "account")), "InvalidArgumentException", "a table with a column filename cannot be updated")
	refusal(t, "no table", create(keyedStream("p", "nobody", "account")), "InvalidArgumentException", "the table must exist before")
	execute1(t, conn, "DROP TABLE equities.positions")
	execute1(t, conn, "CREATE TABLE equities.positions (account varchar, symbol varchar, quantity bigint NOT NULL)")
	in := keyedStream("p", "positions", "account", "symbol")
	in["IcebergDestinationConfiguration"].(jsonObject)["SchemaEvolutionConfiguration"] = jsonObject{"Enabled": true}
	in["IcebergDestinationConfiguration"].(jsonObject)["S3Configuration"].(jsonObject)["ErrorOutputPrefix"] = "bad/"
	if err := create(in); err != nil {
		t.Fatal(err)
	}
	refusal(t, "another stream", create(keyedStream("q", "positions", "account", "symbol")), "InvalidArgumentException", "the delivery stream p feeds equities.positions with UniqueKeys")
	var described struct {
		DeliveryStreamDescription struct {
			Destinations []struct {
				IcebergDestinationDescription struct {
					DestinationTableConfigurationList []struct{ UniqueKeys []string }
				}
			}
		}
	}
	if err := aws.Call(t.Context(), "DescribeDeliveryStream", jsonObject{"DeliveryStreamName": "p"}, &described); err != nil ||
		!slices.Equal(described.DeliveryStreamDescription.Destinations[0].IcebergDestinationDescription.DestinationTableConfigurationList[0].UniqueKeys, []string{"account", "symbol"}) {
		t.Fatalf("%+v %v", described, err)
	}
	if _, err := rowsOf(t.Context(), conn, "INSERT INTO equities.positions VALUES ('a', 'b', 1)"); err == nil || !strings.Contains(err.Error(), "is fed by a delivery stream") {
		t.Error(err)
	}

	execute1(t, conn, "CREATE MATERIALIZED VIEW equities.held AUTO REFRESH NO AS SELECT account, sum(quantity) AS quantity, count(*) AS n FROM equities.positions GROUP BY account")
	agree := func(when string, rows ...string) {
		t.Helper()
		of := func(from string) string {
			return strings.Join(table(t, conn, "SELECT account, quantity, n FROM "+from+" ORDER BY account"), " ")
		}
		view, query := of("equities.held"), of("(SELECT account, sum(quantity) AS quantity, count(*) AS n FROM equities.positions GROUP BY account) AS q")
		if view != query || view != strings.Join(rows, " ") {
			t.Fatalf("%s: the view has %s, its query %s, want %v", when, view, query, rows)
		}
	}
	flush := func() {
		t.Helper()
		if err := s.delivery.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	change := func(op, account, symbol string, quantity int) []byte {
		return fmt.Appendf(nil, `{"op":%q,"account":%q,"symbol":%q,"quantity":%d}`, op, account, symbol, quantity)
	}
	put(t, aws, "p", change("insert", "a", "X", 1), change("insert", "a", "Y", 2), change("insert", "b", "X", 4))
	agree("inserts in the tail", "a|3|2", "b|4|1")
	put(t, aws, "p", change("update", "a", "X", 10))
	agree("an update in the tail", "a|12|2", "b|4|1")
	flush()
	agree("published", "a|12|2", "b|4|1")
	execute1(t, conn, "REFRESH MATERIALIZED VIEW equities.held")
	agree("refreshed", "a|12|2", "b|4|1")
	put(t, aws, "p", change("insert", "c", "X", 1))
	agree("an insert behind the state", "a|12|2", "b|4|1", "c|1|1")
	put(t, aws, "p", change("delete", "a", "Y", 0), change("update", "c", "X", 3))
	agree("a delete behind the state", "a|10|1", "b|4|1", "c|3|1")
	flush()
	agree("published behind the state", "a|10|1", "b|4|1", "c|3|1")
	execute1(t, conn, "REFRESH MATERIALIZED VIEW equities.held")
	agree("refreshed again", "a|10|1", "b|4|1", "c|3|1")

	// A column comes with a record; op is a member of the records as well.
	put(t, aws, "p", []byte(`{"op":"update","account":"b","symbol":"X","quantity":5,"note":"new"}`))
	if got := appeared(t, conn, "SELECT account, quantity, note FROM equities.positions ORDER BY account"); strings.Join(got, " ") != "a|10|NULL b|5|new c|3|NULL" {
		t.Error(got)
	}
	flush()
	agree("a new column", "a|10|1", "b|5|1", "c|3|1")
	put(t, aws, "p", []byte(`{"op":"update","account":"b","symbol":"X","quantity":6}`))
	agree("behind the new column", "a|10|1", "b|6|1", "c|3|1")

	one := func(doc string) string {
		t.Helper()
		var out struct{ RecordId string }
		if err := aws.Call(t.Context(), "PutRecord", jsonObject{"DeliveryStreamName": "p", "Record": jsonObject{"Data": []byte(doc)}}, &out); err != nil {
			t.Fatal(err)
		}
		return out.RecordId
	}
	gone, keyless := one(`{"op":"delete","account":"b","symbol":"X"}`), one(`{"op":"update","account":"b","quantity":7}`)
	flush()
	trace := func(id string) (out []string) {
		t.Helper()
		v, err := operator.Trace(t.Context(), console.TraceRequest{RecordID: id})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range v.Places {
			out = append(out, p.Outcome+" "+p.Code)
		}
		return out
	}
	if got := trace(gone); !slices.Contains(got, "delete ") {
		t.Error(got)
	}
	if got := trace(keyless); !slices.Contains(got, "failed Iceberg.InvalidUniqueKeys") {
		t.Error(got)
	}
	var lines []string
	for _, text := range flushed(t, s, "p", "bad") {
		lines = append(lines, text)
	}
	if all := strings.Join(lines, ""); strings.Count(all, `"errorCode":"Iceberg.InvalidUniqueKeys"`) != 1 {
		t.Errorf("error output: %s", all)
	}
	fixed := fmt.Sprintf(`{"recordId":%q,"data":{"op":"update","account":"b","symbol":"Z","quantity":7}}`, keyless)
	if v, err := operator.Replay(t.Context(), console.ReplayRequest{Stream: "p", Lines: []json.RawMessage{json.RawMessage(fixed), json.RawMessage(fixed)}}); err != nil || v.Put != 1 {
		t.Errorf("%+v %v", v, err)
	}
	agree("after a replay", "a|10|1", "b|7|1", "c|3|1")
	if err := aws.Call(t.Context(), "DeleteDeliveryStream", jsonObject{"DeliveryStreamName": "p"}, nil); err != nil {
		t.Fatal(err)
	}
	agree("after the stream", "a|10|1", "b|7|1", "c|3|1")
	// A stream without keys takes no updates; it may feed the table now.
	in = iceberg("plain", jsonObject{"ProcessingConfiguration": routedBy("positions"), "DestinationTableConfigurationList": []jsonObject{{"DestinationDatabaseName": "equities", "DestinationTableName": "positions"}}})
	if err := create(in); err != nil {
		t.Fatal(err)
	}
	put(t, aws, "plain", change("insert", "a", "X", 1), change("update", "a", "X", 1))
	agree("a stream without keys", "a|11|2", "b|7|1", "c|3|1")
}

// quotes makes a table of numbered records and a stream for it.
func quotes(t *testing.T, s *Server) {
	t.Helper()
	chars := func(name string) record.Field {
		return record.Field{Name: name, Type: record.Type{Kind: record.String}, Required: true}
	}
	long := func(name string) record.Field {
		return record.Field{Name: name, Type: record.Type{Kind: record.Long}, Required: true}
	}
	if _, err := s.catalog.CreateTable(t.Context(), catalog.TableSpec{Name: catalog.Name{Namespace: "equities", Table: "quotes"},
		Fields:   []record.Field{chars("source"), chars("session"), long("epoch"), long("seq"), chars("symbol"), long("v")},
		Sequence: record.SequenceColumns{Source: "source", Session: "session", Epoch: "epoch", Sequence: "seq"}}); err != nil {
		t.Fatal(err)
	}
	if err := client(t, s).Call(t.Context(), "CreateDeliveryStream", keyedStream("quotes", "quotes", "symbol"), nil); err != nil {
		t.Fatal(err)
	}
}

// quote is a numbered record of the table.
func quote(op, source string, epoch, seq int64, symbol string) []byte {
	v := fmt.Sprintf(`,"v":%d`, 100*epoch+seq)
	if op == "delete" {
		v = ""
	}
	return fmt.Appendf(nil, `{"op":%q,"source":%q,"session":"1","epoch":%d,"seq":%d,"symbol":%q%s}`, op, source, epoch, seq, symbol, v)
}

// TestKeyedNumbersHistory holds records of two sources that arrive out of order
// against a model.
func TestKeyedNumbersHistory(t *testing.T) {
	c := testConfig(t)
	s := open(t, c)
	quotes(t, s)
	aws := client(t, s)
	r := rand.New(rand.NewPCG(9, 9))
	type standing struct {
		source string
		seq    int64
	}
	rows := map[string][]standing{}
	late := 0
	apply := func(op, source string, seq int64, symbol string) {
		if op != "insert" {
			for _, x := range rows[symbol] {
				if x.source == source && x.seq > seq {
					late++
					return
				}
			}
			delete(rows, symbol)
		}
		if op != "delete" {
			rows[symbol] = append(rows[symbol], standing{source, seq})
		}
	}
	next := map[string]int64{}
	var waiting [][]byte // records that are overtaken
	var waitingApply []func()
	for round := range 100 {
		var docs [][]byte
		used := map[string]bool{} // a key once a put: what happens within one is another test's
		for range 1 + r.IntN(4) {
			source, symbol := []string{"A", "A", "A", "B"}[r.IntN(4)], fmt.Sprintf("S%d", r.IntN(3))
			if used[symbol] {
				continue
			}
			used[symbol] = true
			next[source]++
			op, seq := []string{"insert", "update", "update", "update", "delete"}[r.IntN(5)], next[source]
			doc, act := quote(op, source, 0, seq, symbol), func() { apply(op, source, seq, symbol) }
			if r.IntN(3) == 0 {
				waiting, waitingApply = append(waiting, doc), append(waitingApply, act)
				continue
			}
			docs = append(docs, doc)
			act()
		}
		if len(docs) > 0 {
			put(t, aws, "quotes", docs...)
		}
		for len(waiting) > 3 { // one at a time, in any order
			i := r.IntN(len(waiting))
			put(t, aws, "quotes", waiting[i])
			waitingApply[i]()
			waiting, waitingApply = slices.Delete(waiting, i, i+1), slices.Delete(waitingApply, i, i+1)
		}
		var want []string
		for symbol, list := range rows {
			for _, x := range list {
				want = append(want, fmt.Sprintf("%s|%s|%d", symbol, x.source, x.seq))
			}
		}
		got := table(t, connect(t, s), "SELECT symbol, source, seq FROM equities.quotes")
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("round %d: %v, want %v", round, got, want)
		}
		switch r.IntN(20) {
		case 0:
			if err := s.delivery.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		case 1:
			if round%3 == 0 {
				s.delivery.Abandon()
			}
			closeNow(t, s)
			s = open(t, c)
			aws = client(t, s)
		}
	}
	if late < 10 {
		t.Errorf("%d records came late: too few to tell", late)
	}
}

// Whoever reads while rows are updated, published and rewritten sees each of them
// once, and never an older state than before.
func TestKeyedReadersSeeEachRowOnce(t *testing.T) {
	s := open(t, testConfig(t))
	aws := client(t, s)
	execute1(t, connect(t, s), "CREATE TABLE equities.counters (id bigint NOT NULL, v bigint NOT NULL)")
	if err := aws.Call(t.Context(), "CreateDeliveryStream", keyedStream("counters", "counters", "id"), nil); err != nil {
		t.Fatal(err)
	}
	const ids = 7
	batch := func(v int) (docs [][]byte) {
		for id := range ids {
			docs = append(docs, fmt.Appendf(nil, `{"op":"update","id":%d,"v":%d}`, id, v))
		}
		return docs
	}
	put(t, aws, "counters", batch(0)...)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	beside := func(what string, fn func(i int) error) {
		wg.Go(func() {
			for i := 1; ctx.Err() == nil; i++ {
				if err := fn(i); err != nil && ctx.Err() == nil {
					t.Errorf("%s: %v", what, err)
					cancel()
				}
			}
		})
	}
	var acknowledged atomic.Int64
	beside("put", func(i int) error {
		_, err := aws.PutBatch(ctx, "counters", batch(i))
		if err == nil {
			acknowledged.Store(int64(i))
		}
		return err
	})
	beside("flush", func(int) error { return s.delivery.Flush(ctx) })
	name := catalog.Name{Namespace: "equities", Table: "counters"}
	beside("compact", func(int) error {
		time.Sleep(200 * time.Millisecond)
		if _, err := s.maintainer.Compact(ctx, name, catalog.Partition{}, maintain.CompactOptions{}); err != nil && !errors.Is(err, catalog.ErrConflict) {
			return err
		}
		_, err := s.maintainer.ApplyDeletes(ctx, name)
		return err
	})
	for range 2 {
		conn := connect(t, s)
		last := int64(0)
		beside("read", func(int) error {
			floor := max(last, acknowledged.Load())
			rows, err := rowsOf(ctx, conn, "SELECT count(*), count(DISTINCT id), min(v) FROM equities.counters")
			if err != nil {
				return err
			}
			var n, distinct, least int64
			if _, err := fmt.Sscanf(strings.ReplaceAll(rows[0], "|", " "), "%d %d %d", &n, &distinct, &least); err != nil {
				return err
			}
			if n != ids || distinct != ids || least < floor {
				return fmt.Errorf("%d rows of %d ids, the oldest at %d; %d was acknowledged or seen before", n, distinct, least, floor)
			}
			last = least
			return nil
		})
	}
	wg.Wait()
	if acknowledged.Load() < 10 {
		t.Errorf("only %d puts", acknowledged.Load())
	}
}
