//go:build interop

package server

import (
	"bytes"
	"encoding/json"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestEveryOperation tries all that the service's model has against the whole
// server, with boto3 and with the command line, and fails if the model has more.
func TestEveryOperation(t *testing.T) {
	const untested = "not every operation was tried with AWS's clients"
	python := look(t, "python3", untested)
	if exec.Command(python, "-c", "import boto3").Run() != nil {
		t.Skip("SKIPPED: python3 has no boto3 on this machine: " + untested)
	}
	c := testConfig(t)
	c.Delivery.Quotas = map[string]QuotaConfig{"z-objects": {Records: 600}}
	s := open(t, c)
	conn := connect(t, s)
	execute1(t, conn, notesTable)
	env := environ(t, s)

	cmd := exec.CommandContext(t.Context(), python, "testdata/operations.py")
	cmd.Env = env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, stderr.String())
	}
	for line := range strings.Lines(string(out)) {
		t.Error("boto3: ", line)
	}
	if got := text(t, conn, "SELECT count(*) || ' ' || sum(n) FROM notes"); got != "501 125751" {
		t.Errorf("the table has %s", got)
	}
	var operations []string
	if err := json.Unmarshal(stderr.Bytes(), &operations); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}

	program := look(t, "aws", untested)
	const destination = `{"RoleARN":"arn:aws:iam::000000000000:role/r","BucketARN":"arn:aws:s3:::archive","Prefix":"cli/"}`
	tried := map[string]bool{}
	for _, c := range []struct {
		command string
		want    string // of the output; "" that there is none
		args    []string
	}{
		{"create-delivery-stream", `"DeliveryStreamARN": "arn:aws:firehose:us-east-1:000000000000:deliverystream/cli"`, []string{"--delivery-stream-type", "DirectPut", "--extended-s3-destination-configuration", destination}},
		{"describe-delivery-stream", `"VersionId": "1"`, nil},
		{"update-destination", "", []string{"--current-delivery-stream-version-id", "1", "--destination-id", "destinationId-000000000001", "--extended-s3-destination-update", "CompressionFormat=GZIP"}},
		{"tag-delivery-stream", "", []string{"--tags", "Key=desk,Value=equities", "Key=empty"}},
		{"untag-delivery-stream", "", []string{"--tag-keys", "empty"}},
		{"list-tags-for-delivery-stream", `"Value": "equities"`, nil},
		{"put-record", `"RecordId": "01`, []string{"--record", recordFile(t, "one")}},
		{"put-record-batch", `"FailedPutCount": 0`, []string{"--records", recordsFile(t, 2, 8)}},
		{"start-delivery-stream-encryption", "(InvalidArgumentException) when calling the StartDeliveryStreamEncryption operation: Server-side encryption is not supported", nil},
		{"stop-delivery-stream-encryption", "", nil},
		{"delete-delivery-stream", "", nil},
	} {
		tried[c.command] = true
		out, err := run(t, env, "", program, append([]string{"firehose", c.command, "--delivery-stream-name", "cli"}, c.args...)...)
		out = onlyTry(out)
		if failed := strings.Contains(out, "An error occurred ("); failed != (err != nil) || !strings.Contains(out, c.want) || c.want == "" && strings.TrimSpace(out) != "" {
			t.Errorf("aws firehose %s: %v\n%s\nwant %s", c.command, err, out, c.want)
		}
	}
	tried["list-delivery-streams"] = true
	if out, err := run(t, env, "", program, "firehose", "list-delivery-streams"); err != nil || strings.Contains(out, "cli") || !strings.Contains(out, "executions") {
		t.Errorf("aws firehose list-delivery-streams: %v\n%s", err, out)
	}
	if got := slices.Sorted(maps.Keys(tried)); !slices.Equal(got, operations) {
		t.Errorf("tried %q, the model has %q", got, operations)
	}
}
