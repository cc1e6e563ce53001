package main

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapehouse/tapehouse/internal/demo"
	"github.com/tapehouse/tapehouse/internal/s3test"
)

const (
	killRoundsObjects = 10
	killLanes         = 4
	killBatch         = 20
)

// putOutcome is what a producer knows of its records: how often they were sent,
// and whether that was acknowledged in the end. A record of these streams has no
// number, so one that is sent again is another one to the server.
type putOutcome struct {
	sent         int64
	acknowledged bool
}

// TestKillRoundsObjects kills the real program at random moments while it
// delivers into a bucket on S3, through a network that fails: compressed
// objects, and objects by member with the records as they came beside them.
// What was acknowledged after one attempt lies there once in each of them.
func TestKillRoundsObjects(t *testing.T) {
	s3 := s3test.Start(t)
	p := s3test.StartProxy(t, s3.Endpoint, 2*time.Second)
	const bucket = "archive"
	if err := os.Mkdir(filepath.Join(s3.Root, bucket), 0o755); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	launch := demo.Launch{Program: build(t), Dir: filepath.Join(dir, "data"), Addresses: demo.Addresses{AWS: "127.0.0.1:0", SQL: "127.0.0.1:0", HTTP: "127.0.0.1:0"}}
	launch.Config = fastPack(t, dir, fmt.Sprintf("lake: {url: s3://%s/lake, endpoint: %q, path_style: true, access_key_id: %s, secret_access_key: %s, attempt_timeout: 2s}\n",
		s3.Bucket, p.Endpoint, s3test.AccessKeyID, s3test.SecretAccessKey))
	if err := os.Mkdir(launch.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	server := start(t, launch)
	launch.Addresses = server.Addresses()
	type object = map[string]any
	destination := func(more object) object {
		d := object{"RoleARN": "arn:aws:iam::123456789012:role/delivery", "BucketARN": "arn:aws:s3:::" + bucket, "BufferingHints": object{"IntervalInSeconds": 0, "SizeInMBs": 64}}
		for k, v := range more {
			d[k] = v
		}
		return d
	}
	parameter := func(name, value string) object { return object{"ParameterName": name, "ParameterValue": value} }
	processor := func(kind string, parameters ...object) object {
		return object{"Type": kind, "Parameters": parameters}
	}
	delimiter := processor("AppendDelimiterToRecord", parameter("Delimiter", "\\n"))
	admin := putter(t, server)
	for stream, d := range map[string]object{
		"plain": destination(object{"Prefix": "plain/", "ErrorOutputPrefix": "failed/", "CompressionFormat": "GZIP", "ProcessingConfiguration": object{"Enabled": true, "Processors": []object{delimiter}}}),
		"parts": destination(object{"Prefix": "parts/member=!{partitionKeyFromQuery:member}/", "ErrorOutputPrefix": "failed/", "DynamicPartitioningConfiguration": object{"Enabled": true},
			"ProcessingConfiguration": object{"Enabled": true, "Processors": []object{processor("MetadataExtraction", parameter("MetadataExtractionQuery", "{member:.member}"), parameter("JsonParsingEngine", "JQ-1.6")), delimiter}},
			"S3BackupMode":            "Enabled", "S3BackupConfiguration": destination(object{"Prefix": "source/"})}),
	} {
		if err := admin.Call(t.Context(), "CreateDeliveryStream", object{"DeliveryStreamName": stream, "ExtendedS3DestinationConfiguration": d}, nil); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 2))
	p.Plan(s3test.Random(seed, 0.15, s3test.Quick()...))

	var mu sync.Mutex
	outcomes := map[string]map[string]putOutcome{"plain": {}, "parts": {}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var lanes sync.WaitGroup
	for lane := range killLanes {
		client := putter(t, server)
		stream := []string{"plain", "parts"}[lane%2]
		lanes.Go(func() {
			defer client.Close()
			for n := 0; ctx.Err() == nil; n++ {
				var records []object
				var ids []string
				for i := range killBatch {
					id := fmt.Sprintf("%d-%d-%d", lane, n, i)
					doc, _ := json.Marshal(object{"id": id, "member": fmt.Sprintf("M%d", i%5)})
					ids, records = append(ids, id), append(records, object{"Data": doc})
				}
				before, _ := client.Requests()
				err := client.Call(ctx, "PutRecordBatch", object{"DeliveryStreamName": stream, "Records": records}, nil)
				after, _ := client.Requests()
				mu.Lock()
				for _, id := range ids {
					outcomes[stream][id] = putOutcome{sent: after - before, acknowledged: err == nil}
				}
				mu.Unlock()
			}
		})
	}
	for range killRoundsObjects {
		time.Sleep(time.Duration(100+random.IntN(500)) * time.Millisecond)
		server.Kill()
		server = start(t, launch)
	}
	time.Sleep(200 * time.Millisecond)
	stop()
	lanes.Wait()
	if err := server.Stop(); err != nil { // drains into the bucket
		t.Fatal(err)
	}
	p.Plan(nil)
	p.Settle()

	for prefix, stream := range map[string]string{"plain": "plain", "parts": "parts", "source": "parts"} {
		found, objects := objectRecords(t, filepath.Join(s3.Root, bucket, prefix))
		var sure, again, unknown int
		for id, o := range outcomes[stream] {
			n := int64(found[id])
			delete(found, id)
			switch {
			case o.acknowledged && o.sent == 1:
				sure++
				if n != 1 {
					t.Errorf("%s: record %s was acknowledged, and is there %d times", prefix, id, n)
				}
			case o.acknowledged:
				again++
				if n < 1 || n > o.sent {
					t.Errorf("%s: record %s was acknowledged at the %dth attempt, and is there %d times", prefix, id, o.sent, n)
				}
			default:
				unknown++
				if n > o.sent {
					t.Errorf("%s: record %s was sent %d times, and is there %d times", prefix, id, o.sent, n)
				}
			}
		}
		t.Logf("%s: %d records acknowledged at once, %d sent again, %d of unknown outcome, in %d objects", prefix, sure, again, unknown, objects)
		if len(found) > 0 {
			t.Errorf("%s: %d records that nobody sent", prefix, len(found))
		}
		if sure < 100 || again == 0 || objects < killRoundsObjects {
			t.Errorf("%s: the test did not test much", prefix)
		}
	}
	if failed, _ := objectRecords(t, filepath.Join(s3.Root, bucket, "failed")); len(failed) > 0 {
		t.Errorf("%d records in the error output", len(failed))
	}
	t.Logf("%d faults", p.Injected())
	if p.Injected() == 0 {
		t.Error("no faults")
	}
}

// objectRecords counts the records of the objects below a directory by their id.
// A record of a partition must lie in the folder of its member.
func objectRecords(t *testing.T, root string) (found map[string]int, objects int) {
	t.Helper()
	found = map[string]int{}
	err := filepath.WalkDir(root, func(path string, at fs.DirEntry, err error) error {
		if err != nil || at.IsDir() {
			return err
		}
		objects++
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		d := json.NewDecoder(f) // the source records have no delimiter
		if strings.HasSuffix(path, ".gz") {
			z, err := gzip.NewReader(f)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			d = json.NewDecoder(z)
		}
		for d.More() {
			var r struct{ ID, Member string }
			if err := d.Decode(&r); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			if strings.Contains(path, "/member=") && !strings.Contains(path, "/member="+r.Member+"/") {
				t.Errorf("%s: a record of member %s", path, r.Member)
			}
			found[r.ID]++
		}
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return found, objects
}
