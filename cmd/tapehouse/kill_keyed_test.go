package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/demo"
)

const (
	killRoundsKeyed = 8
	killKeys        = 40 // of each lane
)

// TestKillRoundsKeyed kills the real program at random moments while records
// update and delete rows. Each lane has keys of its own and sends a put again
// until it is acknowledged; an update or a delete done twice is the same. So in
// the end each key has the value of its last change, in the tail and in the table.
func TestKillRoundsKeyed(t *testing.T) {
	dir := t.TempDir()
	launch := demo.Launch{Program: build(t), Dir: filepath.Join(dir, "data"), Config: fastPack(t, dir, ""), Addresses: demo.Addresses{AWS: "127.0.0.1:0", SQL: "127.0.0.1:0", HTTP: "127.0.0.1:0"}}
	if err := os.Mkdir(launch.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	server := start(t, launch)
	launch.Addresses = server.Addresses()
	type object = map[string]any
	parameter := func(name, value string) object { return object{"ParameterName": name, "ParameterValue": value} }
	conn, err := demo.Connect(t.Context(), server.Endpoints, server.Credentials.Users[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"CREATE SCHEMA book", "CREATE TABLE book.orders (id varchar NOT NULL, value bigint)"} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	_ = conn.Close(t.Context())
	const role = "arn:aws:iam::123456789012:role/delivery"
	if err := putter(t, server).Call(t.Context(), "CreateDeliveryStream", object{"DeliveryStreamName": "changes", "IcebergDestinationConfiguration": object{
		"RoleARN": role, "CatalogConfiguration": object{"CatalogARN": "arn:aws:glue:us-east-1:123456789012:catalog"},
		"BufferingHints":                    object{"IntervalInSeconds": 0, "SizeInMBs": 64},
		"DestinationTableConfigurationList": []object{{"DestinationDatabaseName": "book", "DestinationTableName": "orders", "UniqueKeys": []string{"id"}}},
		"S3Configuration":                   object{"RoleARN": role, "BucketARN": "arn:aws:s3:::lake"},
		"ProcessingConfiguration": object{"Enabled": true, "Processors": []object{{"Type": "MetadataExtraction", "Parameters": []object{
			parameter("MetadataExtractionQuery", `{destinationDatabaseName: "book", destinationTableName: "orders", operation: .op}`), parameter("JsonParsingEngine", "JQ-1.6")}}}},
	}}, nil); err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 3))

	var mu sync.Mutex
	want := map[string]int64{} // by key
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	failed := make(chan error, killLanes)
	var lanes sync.WaitGroup
	var sent, again int64
	for lane := range killLanes {
		client, r := putter(t, server), rand.New(rand.NewPCG(seed, uint64(10+lane)))
		lanes.Go(func() {
			defer client.Close()
			for n := int64(1); ctx.Err() == nil; n++ {
				var records []object
				now := map[string]int64{}
				for range killBatch {
					id, op, value := fmt.Sprintf("%d-%d", lane, r.IntN(killKeys)), "update", n*1000+r.Int64N(1000)
					if r.IntN(5) == 0 {
						op, value = "delete", -1
					}
					doc, _ := json.Marshal(object{"op": op, "id": id, "value": value})
					records, now[id] = append(records, object{"Data": doc}), value
				}
				// Not ctx: what was begun is sent until it is acknowledged.
				if err := client.Call(t.Context(), "PutRecordBatch", object{"DeliveryStreamName": "changes", "Records": records}, nil); err != nil {
					failed <- err
					return
				}
				mu.Lock()
				for id, value := range now {
					if delete(want, id); value >= 0 {
						want[id] = value
					}
				}
				mu.Unlock()
			}
			s, a := client.Requests()
			mu.Lock()
			sent, again = sent+s, again+a
			mu.Unlock()
		})
	}
	for round := range killRoundsKeyed {
		time.Sleep(time.Duration(200+random.IntN(1200)) * time.Millisecond)
		server.Kill()
		server = start(t, launch)
		select {
		case err := <-failed:
			t.Fatalf("round %d: %v", round, err)
		default:
		}
	}
	stop()
	lanes.Wait()
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	if got := keyedRows(t, server); !maps.Equal(got, want) {
		t.Errorf("%d rows before the last flush, want %d: %v", len(got), len(want), difference(got, want))
	}
	if err := server.Stop(); err != nil { // publishes
		t.Fatal(err)
	}
	server = start(t, launch)
	if got := keyedRows(t, server); !maps.Equal(got, want) {
		t.Errorf("%d rows of the table, want %d: %v", len(got), len(want), difference(got, want))
	}
	t.Logf("%d keys, %d puts, %d of them sent again", len(want), sent, again)
	if len(want) < killLanes*killKeys/4 || again == 0 {
		t.Error("the test did not test much")
	}
}

func keyedRows(t *testing.T, s *demo.Server) map[string]int64 {
	t.Helper()
	conn, err := demo.Connect(t.Context(), s.Endpoints, s.Credentials.Users[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(t.Context(), "SELECT id, value FROM book.orders")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for rows.Next() {
		var id string
		var value int64
		if err := rows.Scan(&id, &value); err != nil {
			t.Fatal(err)
		}
		if _, twice := got[id]; twice {
			t.Errorf("key %s is there twice", id)
		}
		got[id] = value
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return got
}

// difference lists some keys that have not what they should.
func difference(got, want map[string]int64) (out []string) {
	for id, v := range want {
		if g, ok := got[id]; !ok || g != v {
			out = append(out, fmt.Sprintf("%s is %d (%t), want %d", id, g, ok, v))
		}
	}
	for id, v := range got {
		if _, ok := want[id]; !ok {
			out = append(out, fmt.Sprintf("%s is %d, and should be gone", id, v))
		}
	}
	return out[:min(len(out), 5)]
}
