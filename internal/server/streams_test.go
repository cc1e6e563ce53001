package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/firehose"
	"github.com/tapehouse/tapehouse/internal/producer"
)

type jsonObject = map[string]any

// refusal checks the code and the text that a client gets.
func refusal(t *testing.T, what string, err error, code, message string) {
	t.Helper()
	if !producer.IsCode(err, code) || !strings.Contains(err.Error(), message) {
		t.Errorf("%s\n got %v\nwant %s: …%s…", what, err, code, message)
	}
}

// What a stream is changed to is in effect at once and is there after a restart.
func TestStreamChanges(t *testing.T) {
	c := testConfig(t)
	s := open(t, c)
	aws := client(t, s)
	call := func(operation string, in jsonObject, out any) error {
		t.Helper()
		in["DeliveryStreamName"] = "executions"
		return aws.Call(t.Context(), operation, in, out)
	}
	type description struct {
		DeliveryStreamDescription struct {
			VersionId           string
			LastUpdateTimestamp float64
			Destinations        []struct {
				DestinationId                 string
				IcebergDestinationDescription struct{ BufferingHints jsonObject }
			}
		}
	}
	update := func(version string, update jsonObject) error {
		return call("UpdateDestination", jsonObject{"CurrentDeliveryStreamVersionId": version, "DestinationId": "destinationId-000000000001", "IcebergDestinationUpdate": update}, nil)
	}
	if err := call("TagDeliveryStream", jsonObject{"Tags": []jsonObject{{"Key": "desk", "Value": "equities"}, {"Key": "x"}}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := update("1", jsonObject{"BufferingHints": jsonObject{"SizeInMBs": 3, "IntervalInSeconds": 7}}); err != nil {
		t.Fatal(err)
	}
	if err := call("UntagDeliveryStream", jsonObject{"TagKeys": []string{"x"}}, nil); err != nil {
		t.Fatal(err)
	}
	refusal(t, "an old version", update("1", jsonObject{}), "ConcurrentModificationException", "the current version id: 2 and specified version id: 1 do not match")
	refusal(t, "another table", update("2", jsonObject{"DestinationTableConfigurationList": []jsonObject{{"DestinationDatabaseName": "equities", "DestinationTableName": "markers"}}}),
		"InvalidArgumentException", "The stream feeds the table equities.executions of the pack equities, whose close counts on it")
	refusal(t, "keys", update("2", jsonObject{"DestinationTableConfigurationList": []jsonObject{{"DestinationDatabaseName": "equities", "DestinationTableName": "executions", "UniqueKeys": []string{"a"}}}}),
		"InvalidArgumentException", "UniqueKeys of the table equities.executions: the column a does not exist")
	refusal(t, "other keys", update("2", jsonObject{"DestinationTableConfigurationList": []jsonObject{{"DestinationDatabaseName": "equities", "DestinationTableName": "executions", "UniqueKeys": []string{"match_number", "leg"}}}}),
		"InvalidArgumentException", "UniqueKeys cannot be changed")
	refusal(t, "another destination", call("UpdateDestination", jsonObject{"CurrentDeliveryStreamVersionId": "2", "DestinationId": "destinationId-000000000001",
		"ExtendedS3DestinationUpdate": jsonObject{"RoleARN": "arn:aws:iam::000000000000:role/r", "BucketARN": "arn:aws:s3:::bucket"}}, nil), "InvalidArgumentException", "destination")

	check := func(when string) {
		t.Helper()
		var d description
		if err := call("DescribeDeliveryStream", jsonObject{}, &d); err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(d.DeliveryStreamDescription.Destinations[0].IcebergDestinationDescription.BufferingHints)
		if err != nil || d.DeliveryStreamDescription.VersionId != "2" || d.DeliveryStreamDescription.LastUpdateTimestamp == 0 || string(got) != `{"IntervalInSeconds":7,"SizeInMBs":3}` {
			t.Errorf("%s: %+v %v", when, d, err)
		}
		var tags struct{ Tags []jsonObject }
		if err := call("ListTagsForDeliveryStream", jsonObject{}, &tags); err != nil || len(tags.Tags) != 1 || tags.Tags[0]["Value"] != "equities" {
			t.Errorf("%s: %v %v", when, tags, err)
		}
		st, err := s.delivery.Stream("executions")
		if err != nil {
			t.Fatal(err)
		}
		if cfg := st.Config(); cfg.SizeBytes != 3<<20 || cfg.Interval != 7*time.Second {
			t.Errorf("%s: delivery goes by %+v", when, cfg)
		}
	}
	check("before the restart")
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	s = open(t, c)
	aws = client(t, s)
	check("after the restart")
}

// A stream is DELETING while what it acknowledged is delivered, DELETING_FAILED
// when that takes too long, and loses nothing meanwhile.
func TestStreamDeletion(t *testing.T) {
	s := open(t, testConfig(t))
	conn := connect(t, s)
	execute1(t, conn, notesTable)
	aws := client(t, s)
	if err := aws.CreateStream(t.Context(), producer.StreamSpec{Name: "notes", Database: "equities", Table: "notes"}); err != nil {
		t.Fatal(err)
	}
	put := func(doc string) {
		t.Helper()
		if _, err := aws.PutBatch(t.Context(), "notes", [][]byte{[]byte(doc)}); err != nil {
			t.Fatal(err)
		}
	}
	put(`{"n":1}`)
	if err := s.delivery.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A file stands where the table's data files go: delivery fails, and is
	// tried again and again.
	files, err := filepath.Glob(filepath.Join(s.cfg.Data, "lake", "equities*", "notes*", "data"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	dir := files[0]
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mend := sync.OnceFunc(func() {
		if err := errors.Join(os.Remove(dir), os.Rename(dir+".away", dir)); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(mend)
	put(`{"n":2}`)

	st := newStreams(s.delivery, s.destinations)
	st.deleteWait = 50 * time.Millisecond
	info := func() firehose.StreamInfo {
		t.Helper()
		info, err := st.Describe(t.Context(), "notes")
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	err = st.Delete(t.Context(), "notes", true)
	if r, ok := errors.AsType[*firehose.Refusal](err); !ok || !errors.Is(err, firehose.ErrUnavailable) || !strings.Contains(r.Message, "Firehose notes is not deleted") {
		t.Fatal(err)
	}
	if i := info(); i.Status != firehose.StatusDeletingFailed || i.Failure == nil || i.Failure.Type != "UNKNOWN_ERROR" || i.Failure.Details == "" {
		t.Fatalf("%+v", i)
	}
	put(`{"n":3}`) // it is there, so it takes records

	st.deleteWait = time.Minute
	gone, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- st.Delete(gone, "notes", false) }()
	for deadline := time.Now().Add(20 * time.Second); info().Status != firehose.StatusDeleting; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", info())
		}
	}
	cancel() // the client gives up, the delete does not
	if err := st.Delete(t.Context(), "notes", false); err != nil {
		t.Fatalf("a second delete: %v", err)
	}
	if s := info().Status; s != firehose.StatusDeleting {
		t.Fatal(s)
	}
	mend()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := st.Describe(t.Context(), "notes"); !errors.Is(err, firehose.ErrNotFound) {
		t.Fatal(err)
	}
	var n int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM equities.notes").Scan(&n); err != nil || n != 3 {
		t.Fatalf("%d rows of 3: %v", n, err)
	}
	if err := st.Delete(t.Context(), "notes", false); !errors.Is(err, firehose.ErrNotFound) {
		t.Fatal(err)
	}
}

// The AWS port of the server itself bounds what strangers send.
func TestAWSPortIsBounded(t *testing.T) {
	s := open(t, testConfig(t))
	send := func(header string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.Addresses().AWS+"/", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Filler", header)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(body)
	}
	if status, body := send("x"); status != http.StatusBadRequest || !strings.Contains(body, "MissingAuthenticationToken") {
		t.Error(status, body)
	}
	if status, body := send(strings.Repeat("x", 256<<10)); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Error(status, body)
	}
}
