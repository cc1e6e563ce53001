package server

import (
	"strings"
	"testing"
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
