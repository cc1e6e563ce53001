package firehose

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/awsapi"
)

// shapesOf gives each shape of the model the type that stands for it. Where two
// types share a shape's members, the one that reads or shows them all is here.
var shapesOf = map[string]reflect.Type{
	"CreateDeliveryStreamInput": reflect.TypeFor[createInput](), "UpdateDestinationInput": reflect.TypeFor[updateInput](),
	"DescribeDeliveryStreamInput": reflect.TypeFor[describeInput](), "ListDeliveryStreamsInput": reflect.TypeFor[listInput](),
	"DeleteDeliveryStreamInput": reflect.TypeFor[deleteInput](), "StartDeliveryStreamEncryptionInput": reflect.TypeFor[startEncryptionInput](),
	"StopDeliveryStreamEncryptionInput": reflect.TypeFor[stopEncryptionInput](), "TagDeliveryStreamInput": reflect.TypeFor[tagInput](),
	"UntagDeliveryStreamInput": reflect.TypeFor[untagInput](), "ListTagsForDeliveryStreamInput": reflect.TypeFor[listTagsInput](),
	"CreateDeliveryStreamOutput": reflect.TypeFor[createOutput](), "ListDeliveryStreamsOutput": reflect.TypeFor[listOutput](),
	"ListTagsForDeliveryStreamOutput": reflect.TypeFor[listTagsOutput](), "DescribeDeliveryStreamOutput": reflect.TypeFor[describeOutput](),
	"DeliveryStreamDescription": reflect.TypeFor[streamDescription](), "DestinationDescription": reflect.TypeFor[destinationDescription](),
	"FailureDescription":                         reflect.TypeFor[Failure](),
	"DeliveryStreamEncryptionConfigurationInput": reflect.TypeFor[encryptionInput](),
	"S3DestinationConfiguration":                 reflect.TypeFor[S3Destination](), "S3DestinationUpdate": reflect.TypeFor[S3Destination](), "S3DestinationDescription": reflect.TypeFor[S3Destination](),
	"ExtendedS3DestinationConfiguration": reflect.TypeFor[ExtendedS3Destination](), "ExtendedS3DestinationUpdate": reflect.TypeFor[extendedS3Update](),
	"ExtendedS3DestinationDescription": reflect.TypeFor[extendedS3Description](),
	"IcebergDestinationConfiguration":  reflect.TypeFor[IcebergDestination](), "IcebergDestinationUpdate": reflect.TypeFor[IcebergDestination](),
	"IcebergDestinationDescription": reflect.TypeFor[icebergDescription](),
	"DestinationTableConfiguration": reflect.TypeFor[DestinationTable](), "PartitionSpec": reflect.TypeFor[PartitionSpec](), "PartitionField": reflect.TypeFor[PartitionField](),
	"SchemaEvolutionConfiguration": reflect.TypeFor[Enabled](), "TableCreationConfiguration": reflect.TypeFor[Enabled](), "CatalogConfiguration": reflect.TypeFor[CatalogConfig](),
	"BufferingHints": reflect.TypeFor[BufferingHints](), "CloudWatchLoggingOptions": reflect.TypeFor[CloudWatchLogging](), "RetryOptions": reflect.TypeFor[RetryOptions](),
	"EncryptionConfiguration": reflect.TypeFor[S3Encryption](), "KMSEncryptionConfig": reflect.TypeFor[KMSEncryption](),
	"ProcessingConfiguration": reflect.TypeFor[Processing](), "Processor": reflect.TypeFor[Processor](), "ProcessorParameter": reflect.TypeFor[ProcessorParameter](),
	"DataFormatConversionConfiguration": reflect.TypeFor[Conversion](), "SchemaConfiguration": reflect.TypeFor[SchemaConfig](),
	"InputFormatConfiguration": reflect.TypeFor[InputFormat](), "Deserializer": reflect.TypeFor[Deserializer](), "OpenXJsonSerDe": reflect.TypeFor[OpenXJSONSerDe](), "HiveJsonSerDe": reflect.TypeFor[HiveJSONSerDe](),
	"OutputFormatConfiguration": reflect.TypeFor[OutputFormat](), "Serializer": reflect.TypeFor[Serializer](), "ParquetSerDe": reflect.TypeFor[ParquetSerDe](), "OrcSerDe": reflect.TypeFor[OrcSerDe](),
	"DynamicPartitioningConfiguration": reflect.TypeFor[DynamicPartitioning](), "Tag": reflect.TypeFor[Tag](),
}

// notShown are members of the model's answers that are never there: nothing is
// encrypted with a key.
var notShown = map[string][]string{"DeliveryStreamEncryptionConfiguration": {"KeyARN", "KeyType", "FailureDescription"}}

// members returns the names by which encoding/json knows t's fields.
func members(t reflect.Type) []string {
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous:
			out = append(out, members(f.Type)...)
		case tag != "":
			out = append(out, tag)
		default:
			out = append(out, f.Name)
		}
	}
	return out
}

var scriptBodies = regexp.MustCompile(`(?m)^(CreateDeliveryStream|UpdateDestination)\n((?s).*?)\n----\n`)

// descriptions runs the creates and updates of the scripts and describes what
// is there then.
func descriptions(t *testing.T) []json.RawMessage {
	t.Helper()
	out := []json.RawMessage{}
	for _, file := range []string{"testdata/extended_s3.script", "testdata/iceberg.script"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		fake := newFake()
		h, _ := newHandler(t, fake)
		for _, m := range scriptBodies.FindAllStringSubmatch(string(text), -1) {
			_, _ = call(t, h, m[1], m[2])
		}
		statuses := []Status{StatusActive, StatusDeleting, StatusDeletingFailed}
		for name, s := range fake.streams {
			if s.info.Status = statuses[len(out)%3]; s.info.Status == StatusDeletingFailed {
				s.info.Failure = &Failure{"UNKNOWN_ERROR", "the bucket does not answer"}
			}
			answer, err := call(t, h, "DescribeDeliveryStream", `{"DeliveryStreamName":"`+string(name)+`"}`)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, json.RawMessage(answer))
		}
	}
	if len(out) < 6 {
		t.Fatalf("only %d streams", len(out))
	}
	return out
}

// TestModel holds shapes, constraints and answers against AWS's own service
// model: every member is known, every constraint refused by its path and in its
// words, every description is what the model says.
func TestModel(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil || exec.Command(python, "-c", "import botocore").Run() != nil {
		t.Skip("SKIPPED: no python3 with botocore on this machine: the API was not held against AWS's service model")
	}
	in, err := json.Marshal(descriptions(t))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "testdata/model.py")
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &stderr
	raw, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var model struct {
		Members  map[string][]string
		Breaches map[string][]struct {
			Body        json.RawMessage
			Path, Words string
		}
		Faults []string
	}
	if err := json.Unmarshal(raw, &model); err != nil {
		t.Fatal(err)
	}
	for _, f := range model.Faults {
		t.Error("a description is not what the model says:", f)
	}
	if model.Faults == nil || len(model.Members) < len(shapesOf) {
		t.Fatalf("the model was not read: %d shapes", len(model.Members))
	}

	for shape, want := range model.Members {
		typ, ok := shapesOf[shape]
		if !ok {
			if !strings.HasSuffix(shape, "Output") && len(want) > 0 && !slices.Contains([]string{"DirectPutSourceConfiguration", "DirectPutSourceDescription", "SourceDescription", "DeliveryStreamEncryptionConfiguration"}, shape) {
				t.Errorf("the shape %s %v has no type", shape, want)
			}
			continue
		}
		have := members(typ)
		for _, m := range want {
			if !slices.Contains(have, m) && !slices.Contains(notShown[shape], m) {
				t.Errorf("%s: the member %s is not in %s", shape, m, typ)
			}
		}
	}

	n := 0
	for operation, breaches := range model.Breaches {
		fake := newFake()
		h, _ := newHandler(t, fake)
		for _, b := range breaches {
			n++
			_, err := call(t, h, operation, string(b.Body))
			var e *awsapi.Error
			// Members that a constraint of their own shape makes unreachable are
			// reported by it; the words must be there either way.
			if !errors.As(err, &e) || e.Code != awsapi.CodeValidation || !strings.Contains(e.Message, " at '"+b.Path+"' failed to satisfy constraint: "+b.Words) {
				t.Errorf("%s: %.300s\n got %v\nwant … at '%s' failed to satisfy constraint: %s", operation, b.Body, err, b.Path, b.Words)
			}
		}
	}
	if n < 300 {
		t.Fatalf("only %d constraints were tried", n)
	}
	t.Logf("%d constraints of the model tried", n)
}

// TestDocumentation: docs/firehose.md lists every operation and every member
// that a client can send.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/firehose.md")
	if err != nil {
		t.Fatal(err)
	}
	has := func(what, name string) {
		if !regexp.MustCompile(`\b` + name + `\b`).Match(text) {
			t.Errorf("docs/firehose.md lacks %s %s", what, name)
		}
	}
	h, _ := newHandler(t, newFake())
	for operation := range h.Service().Operations {
		has("the operation", operation)
	}
	for shape, typ := range shapesOf {
		if strings.HasSuffix(shape, "Output") || strings.HasSuffix(shape, "Description") || shape == "Tag" {
			continue
		}
		for _, m := range members(typ) {
			has(shape+"'s member", m)
		}
	}
	for kind, settings := range settingsOf {
		has("the processor", kind)
		for _, s := range settings {
			has(kind+"'s parameter", s)
		}
	}
}
