package server

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A column that is added to a stream's table while records flow is filled by
// the records that come after, and what the log holds from before stays
// readable: across a flush, a restart and a merge of small files.
func TestColumnAddedToAFedTable(t *testing.T) {
	c := testConfig(t)
	s := open(t, c)
	conn := connect(t, s)
	aws := client(t, s)
	doc := func(seq int64, member string) []byte {
		return []byte(strings.Replace(string(newLeg("ME1-EXE", seq).document(t)), `{`, `{`+member, 1))
	}
	put(t, aws, "executions", doc(1, ""), doc(2, `"venue":"early",`))
	execute1(t, conn, "ALTER TABLE equities.executions ADD COLUMN venue varchar")
	const query = "SELECT count(*) || ' ' || count(venue) || ' ' || coalesce(max(venue), '-') FROM equities.executions"
	if got := text(t, conn, query); got != "2 0 -" {
		t.Fatal(got)
	}
	// The stream knows of it within a moment.
	seq := int64(3)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		put(t, aws, "executions", doc(seq, `"venue":"X",`))
		seq++
		if got := text(t, conn, query); strings.HasSuffix(got, "X") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the new column stays empty")
		}
	}
	check := func(when string) {
		t.Helper()
		got := strings.Fields(text(t, conn, query))
		if len(got) != 3 || got[0] != text(t, conn, "SELECT count(DISTINCT seq) FROM equities.executions") || got[2] != "X" || got[1] == "0" {
			t.Errorf("%s: %v", when, got)
		}
	}
	check("in the tail")
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("in the table")
	put(t, aws, "executions", doc(seq, `"venue":"X",`), doc(1, ""))
	s.delivery.Abandon() // as in a crash
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = open(t, c)
	conn = connect(t, s)
	check("after a restart")
}

// iceberg is a CreateDeliveryStream with an Iceberg destination.
func iceberg(name string, members jsonObject) jsonObject {
	role := "arn:aws:iam::000000000000:role/r"
	d := jsonObject{"RoleARN": role, "CatalogConfiguration": jsonObject{"CatalogARN": "arn:aws:glue:us-east-1:000000000000:catalog"},
		"S3Configuration": jsonObject{"RoleARN": role, "BucketARN": "arn:aws:s3:::archive"}, "BufferingHints": jsonObject{"SizeInMBs": 64, "IntervalInSeconds": 900}}
	for k, v := range members {
		d[k] = v
	}
	return jsonObject{"DeliveryStreamName": name, "DeliveryStreamType": "DirectPut", "IcebergDestinationConfiguration": d}
}

// appeared is table, once the columns that records made are there: a statement
// is bound before the records that were acknowledged last are looked at.
func appeared(t *testing.T, conn *pgx.Conn, sql string) []string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		out, err := rowsOf(t.Context(), conn, sql)
		if err == nil {
			return out
		}
		if !strings.Contains(err.Error(), "does not exist") || time.Now().After(deadline) {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// Records make the columns that they have and the table lacks, and widen those
// that are too narrow; what came before reads as it was.
func TestRecordsEvolveTheirTable(t *testing.T) {
	c := testConfig(t)
	s := open(t, c)
	conn := connect(t, s)
	execute1(t, conn, "CREATE TABLE public.quotes (symbol varchar, size integer, price decimal(6,4))")
	aws := client(t, s)
	if err := aws.Call(t.Context(), "CreateDeliveryStream", iceberg("quotes", jsonObject{"SchemaEvolutionConfiguration": jsonObject{"Enabled": true},
		"DestinationTableConfigurationList": []jsonObject{{"DestinationDatabaseName": "public", "DestinationTableName": "quotes"}}}), nil); err != nil {
		t.Fatal(err)
	}
	put(t, aws, "quotes", []byte(`{"symbol":"A","size":1,"price":12.5}`))
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, aws, "quotes", []byte(`{"symbol":"B","size":2147483648,"price":199999.9999}`), []byte(`{"symbol":"C","venue":"XNAS","lots":7,"fee":0.00015,"odd":true,"legs":[1],"none":null}`))
	put(t, aws, "quotes", []byte(`{"symbol":"D","lots":"many"}`)) // does not fit the new column
	check := func(when string) {
		t.Helper()
		got := strings.Join(appeared(t, conn, "SELECT symbol, size, price, venue, lots, fee, odd FROM public.quotes ORDER BY symbol"), ";")
		want := "A|1|12.5000|NULL|NULL|NULL|NULL;B|2147483648|199999.9999|NULL|NULL|NULL|NULL;C|NULL|NULL|XNAS|7|0.00015|t"
		if norm := strings.NewReplacer("<nil>", "NULL", "true", "t").Replace(got); norm != want {
			t.Errorf("%s:\n%s\nwant\n%s", when, norm, want)
		}
	}
	check("in the tail")
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("in the table")
	put(t, aws, "quotes", []byte(`{"symbol":"C","venue":"again","size":"x"}`)) // rejected
	s.delivery.Abandon()
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = open(t, c)
	conn = connect(t, s)
	check("after a restart")
}

// Records make the tables that they are routed to.
func TestRecordsMakeTheirTables(t *testing.T) {
	c := testConfig(t)
	s := open(t, c)
	aws := client(t, s)
	if err := aws.Call(t.Context(), "CreateDeliveryStream", iceberg("feed", jsonObject{"TableCreationConfiguration": jsonObject{"Enabled": true}, "SchemaEvolutionConfiguration": jsonObject{"Enabled": true},
		"ProcessingConfiguration": processors(processor("MetadataExtraction", "JsonParsingEngine", "JQ-1.6", "MetadataExtractionQuery",
			`{destinationDatabaseName: "made", destinationTableName: .kind, operation: "insert"}`))}), nil); err != nil {
		t.Fatal(err)
	}
	put(t, aws, "feed", []byte(`{"kind":"trades","price":1.25,"qty":3}`), []byte(`{"kind":"halts","symbol":"A"}`), []byte(`{"kind":"no good name!","symbol":"A"}`))
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, aws, "feed", []byte(`{"kind":"trades","price":2.5,"qty":4,"venue":"X"}`), []byte(`{"kind":"quotes","bid":0.0001}`))
	s.delivery.Abandon() // as in a crash
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = open(t, c)
	put(t, client(t, s), "feed", []byte(`{"kind":"quotes","bid":0.0002}`))
	conn := connect(t, s)
	for sql, want := range map[string]string{
		"SELECT sum(price) || ' ' || sum(qty) || ' ' || count(venue) FROM made.trades": "3.7500 7 1",
		"SELECT max(symbol) || count(*) FROM made.halts":                               "A1",
		"SELECT sum(bid) || ' ' || count(DISTINCT record_offset) FROM made.quotes":     "0.0003 2",
	} {
		if got := appeared(t, conn, sql); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
	lost := ""
	for _, body := range flushed(t, s, "feed", "") {
		lost += body
	}
	if strings.Count(lost, "recordId") != 1 || !strings.Contains(lost, "Iceberg.TableNotFound") {
		t.Error(lost)
	}
}
