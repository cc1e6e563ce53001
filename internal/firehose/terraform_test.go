package firehose

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

// lost returns the members of sent that shown lacks or shows otherwise. An
// empty list, map or object may be left out.
func lost(path string, sent, shown any) []string {
	switch sent := sent.(type) {
	case map[string]any:
		have, _ := shown.(map[string]any)
		var out []string
		for name, value := range sent {
			as := name
			switch name {
			case "S3BackupConfiguration", "S3BackupUpdate":
				as = "S3BackupDescription"
			case "S3Configuration":
				as = "S3DestinationDescription"
			}
			out = append(out, lost(path+"."+name, value, have[as])...)
		}
		return out
	case []any:
		have, _ := shown.([]any)
		if len(have) != len(sent) {
			return []string{fmt.Sprintf("%s: %d of %d entries", path, len(have), len(sent))}
		}
		var out []string
		for i := range sent {
			out = append(out, lost(fmt.Sprintf("%s[%d]", path, i), sent[i], have[i])...)
		}
		return out
	}
	if !reflect.DeepEqual(sent, shown) {
		return []string{fmt.Sprintf("%s: sent %v, shown %v", path, sent, shown)}
	}
	return nil
}

// destinationOf returns what a create or update says of the destination, and
// the name under which it is described.
func destinationOf(t *testing.T, body string) (config map[string]any, described string) {
	t.Helper()
	var in map[string]any
	if err := json.Unmarshal([]byte(body), &in); err != nil {
		t.Fatal(err)
	}
	for name, value := range in {
		if kind, _, ok := strings.Cut(name, "Destination"); ok && (strings.HasSuffix(name, "Configuration") || strings.HasSuffix(name, "Update")) {
			return value.(map[string]any), kind + "DestinationDescription"
		}
	}
	t.Fatalf("no destination in %s", body)
	return nil, ""
}

// terraform holds bodies in the manner of aws_kinesis_firehose_delivery_stream, with
// members that the recording lacks: what is not configured is sent empty, or as AWS's default.
var terraform = []struct{ name, create, update string }{
	{"extended_s3", `{"BucketARN":"arn:aws:s3:::lake","BufferingHints":{"IntervalInSeconds":300,"SizeInMBs":5},"CompressionFormat":"UNCOMPRESSED","CustomTimeZone":"UTC",` +
		`"DataFormatConversionConfiguration":{"Enabled":false},"EncryptionConfiguration":{"NoEncryptionConfig":"NoEncryption"},"FileExtension":"","Prefix":"","ProcessingConfiguration":{"Enabled":false,"Processors":[]},` +
		`"RoleARN":"` + roleARN + `","S3BackupMode":"Disabled"}`,
		`{"BucketARN":"arn:aws:s3:::lake","BufferingHints":{"IntervalInSeconds":60,"SizeInMBs":7},"CloudWatchLoggingOptions":{"Enabled":false,"LogGroupName":"","LogStreamName":""},"CompressionFormat":"GZIP","CustomTimeZone":"UTC",` +
			`"DataFormatConversionConfiguration":{"Enabled":false},"EncryptionConfiguration":{"NoEncryptionConfig":"NoEncryption"},"ErrorOutputPrefix":"","FileExtension":".gz","Prefix":"p/",` +
			`"ProcessingConfiguration":{"Enabled":true,"Processors":[{"Type":"Lambda","Parameters":[{"ParameterName":"LambdaArn","ParameterValue":"` + lambdaARN + `"},{"ParameterName":"BufferIntervalInSeconds","ParameterValue":"60"},` +
			`{"ParameterName":"BufferSizeInMBs","ParameterValue":"1.0"},{"ParameterName":"NumberOfRetries","ParameterValue":"3"},{"ParameterName":"RoleArn","ParameterValue":"` + roleARN + `"}]}]},` +
			`"RoleARN":"` + roleARN + `","S3BackupMode":"Enabled","S3BackupUpdate":{"BucketARN":"arn:aws:s3:::backup","BufferingHints":{"IntervalInSeconds":300,"SizeInMBs":5},"CompressionFormat":"UNCOMPRESSED",` +
			`"EncryptionConfiguration":{"NoEncryptionConfig":"NoEncryption"},"ErrorOutputPrefix":"","Prefix":"","RoleARN":"` + roleARN + `"}}`},
	{"iceberg", `{"BufferingHints":{"IntervalInSeconds":300,"SizeInMBs":5},"CatalogConfiguration":{"CatalogARN":"arn:aws:glue:us-east-1:000000000000:catalog"},"ProcessingConfiguration":{"Enabled":false,"Processors":[]},` +
		`"DestinationTableConfigurationList":[{"DestinationDatabaseName":"d","DestinationTableName":"t","S3ErrorOutputPrefix":"","UniqueKeys":[]}],"RetryOptions":{"DurationInSeconds":300},"RoleARN":"` + roleARN + `","S3BackupMode":"FailedDataOnly",` +
		`"S3Configuration":{"BucketARN":"arn:aws:s3:::lake","BufferingHints":{"IntervalInSeconds":300,"SizeInMBs":5},"CompressionFormat":"UNCOMPRESSED","EncryptionConfiguration":{"NoEncryptionConfig":"NoEncryption"},"Prefix":"","RoleARN":"` + roleARN + `"}}`,
		`{"BufferingHints":{"IntervalInSeconds":60,"SizeInMBs":9},"RoleARN":"` + roleARN + `","CatalogConfiguration":{"CatalogARN":"arn:aws:glue:us-east-1:000000000000:catalog"},"RetryOptions":{"DurationInSeconds":30},` +
			`"DestinationTableConfigurationList":[{"DestinationDatabaseName":"d","DestinationTableName":"t","S3ErrorOutputPrefix":"e/","UniqueKeys":["k"]}],"S3BackupMode":"FailedDataOnly"}`},
}

// shows checks that Describe shows what a create or update sent.
func shows(t *testing.T, h *Handler, name, body string) {
	t.Helper()
	sent, described := destinationOf(t, body)
	out, err := call(t, h, "DescribeDeliveryStream", `{"DeliveryStreamName":"`+name+`"}`)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		DeliveryStreamDescription struct{ Destinations []map[string]any }
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatal(err)
	}
	for _, l := range lost(described, sent, answer.DeliveryStreamDescription.Destinations[0][described]) {
		t.Errorf("%s: %s", name, l)
	}
}

// TestTerraformsRequests plays what Terraform asked in a whole life of streams
// that use most of what its resource has. What it sends it must read back: a
// second plan finds nothing to do, and it looks at nothing but these answers.
// (internal/server runs Terraform itself, where there is one.)
func TestTerraformsRequests(t *testing.T) {
	text, err := os.ReadFile("testdata/terraform.txt")
	if err != nil {
		t.Fatal(err)
	}
	h, _ := newHandler(t, newFake())
	seen := map[string]int{}
	deleted := map[string]bool{}
	tags := map[string]string{}
	for line := range strings.Lines(string(text)) {
		operation, body, _ := strings.Cut(strings.TrimSpace(line), " ")
		if operation == "#" {
			continue
		}
		seen[operation]++
		var in struct {
			DeliveryStreamName string
			Tags               []Tag
			TagKeys            []string
		}
		if err := json.Unmarshal([]byte(body), &in); err != nil {
			t.Fatal(err)
		}
		name := in.DeliveryStreamName
		out, err := call(t, h, operation, body)
		if deleted[name] { // what the provider waits for
			wantError(t, err, codeNotFound, "Firehose "+name+" under account 000000000000 not found.")
			continue
		}
		if err != nil {
			t.Fatalf("%s %s: %v", operation, name, err)
		}
		switch operation {
		case "CreateDeliveryStream":
			shows(t, h, name, body)
			if tags[name] = "[]"; in.Tags != nil {
				tags[name] = `[{"Key":"owner","Value":"billing"},{"Key":"stage","Value":"test"}]`
			}
		case "UpdateDestination":
			shows(t, h, name, body)
		case "TagDeliveryStream":
			tags[name] = `[{"Key":"owner","Value":"surveillance"},{"Key":"shift","Value":"night"}]`
		case "ListTagsForDeliveryStream":
			if want := `{"Tags":` + tags[name] + `,"HasMoreTags":false}`; out != want {
				t.Errorf("%s: %s, want %s", name, out, want)
			}
		case "DescribeDeliveryStream":
			if !strings.Contains(out, `"DeliveryStreamStatus":"ACTIVE","DeliveryStreamEncryptionConfiguration":{"Status":"DISABLED"}`) {
				t.Errorf("%s: %s", name, out)
			}
		case "DeleteDeliveryStream":
			deleted[name] = true
		}
	}
	if len(deleted) != 5 || seen["UpdateDestination"] != 5 || seen["UntagDeliveryStream"] != 1 {
		t.Errorf("the recording is not whole: %v", seen)
	}
}

// What is sent is shown as it was sent, and what was not is AWS's default.
func TestWhatIsSentIsShown(t *testing.T) {
	for _, tf := range terraform {
		t.Run("terraform "+tf.name, func(t *testing.T) {
			h, _ := newHandler(t, newFake())
			kind := map[string]string{"extended_s3": "ExtendedS3", "iceberg": "Iceberg"}[tf.name]
			create := `{"DeliveryStreamName":"s","DeliveryStreamType":"DirectPut","Tags":null,"` + kind + `DestinationConfiguration":` + tf.create + `}`
			if _, err := call(t, h, "CreateDeliveryStream", create); err != nil {
				t.Fatal(err)
			}
			shows(t, h, "s", create)
			update := updateBody("1", destinationID, `"`+kind+`DestinationUpdate":`+tf.update)
			if _, err := call(t, h, "UpdateDestination", update); err != nil {
				t.Fatal(err)
			}
			shows(t, h, "s", update)
			if out, err := call(t, h, "ListTagsForDeliveryStream", `{"DeliveryStreamName":"s"}`); err != nil || out != `{"Tags":[],"HasMoreTags":false}` {
				t.Error(out, err)
			}
		})
	}
	for _, file := range []string{"testdata/extended_s3.script", "testdata/iceberg.script"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		h, _ := newHandler(t, newFake())
		for _, m := range scriptBodies.FindAllStringSubmatch(string(text), -1) {
			if _, err := call(t, h, m[1], m[2]); err != nil {
				continue // the update that is refused
			}
			var in struct{ DeliveryStreamName string }
			if err := json.Unmarshal([]byte(m[2]), &in); err != nil {
				t.Fatal(err)
			}
			shows(t, h, in.DeliveryStreamName, m[2])
		}
	}
}
