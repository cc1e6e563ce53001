package server

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapehouse/tapehouse/internal/delivery"
	"github.com/tapehouse/tapehouse/internal/record"
)

// extended is a CreateDeliveryStream with an ExtendedS3 destination.
func extended(name string, members jsonObject) jsonObject {
	d := jsonObject{"RoleARN": "arn:aws:iam::000000000000:role/r", "BucketARN": "arn:aws:s3:::archive", "BufferingHints": jsonObject{"SizeInMBs": 64, "IntervalInSeconds": 900}}
	for k, v := range members {
		d[k] = v
	}
	return jsonObject{"DeliveryStreamName": name, "DeliveryStreamType": "DirectPut", "ExtendedS3DestinationConfiguration": d}
}

func processors(list ...jsonObject) jsonObject {
	return jsonObject{"Enabled": true, "Processors": list}
}

func processor(kind string, parameters ...string) jsonObject {
	var list []jsonObject
	for i := 0; i < len(parameters); i += 2 {
		list = append(list, jsonObject{"ParameterName": parameters[i], "ParameterValue": parameters[i+1]})
	}
	return jsonObject{"Type": kind, "Parameters": list}
}

// flushed delivers what a stream has, and returns the files of a bucket below
// a directory, by name.
func flushed(t *testing.T, s *Server, stream, dir string) map[string]string {
	t.Helper()
	st, err := s.delivery.Stream(record.StreamName(stream))
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	root := filepath.Join(s.dir("buckets"), "archive")
	if err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(root, path)
		out[name] = string(b)
		return err
	}); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return out
}

func TestObjectsByTheAPI(t *testing.T) {
	c := testConfig(t)
	lambda := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Records []struct {
				RecordID string `json:"recordId"`
				Data     []byte `json:"data"`
			} `json:"records"`
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		out := []jsonObject{}
		for _, x := range in.Records {
			result := "Ok"
			if strings.Contains(string(x.Data), "bad") {
				result = "ProcessingFailed"
			}
			out = append(out, jsonObject{"recordId": x.RecordID, "result": result, "data": []byte(strings.ToUpper(string(x.Data))), "metadata": jsonObject{"partitionKeys": jsonObject{"venue": "XNAS"}}})
		}
		_ = json.NewEncoder(w).Encode(jsonObject{"records": out})
	}))
	defer lambda.Close()
	const arn = "arn:aws:lambda:us-east-1:000000000000:function:upper"
	c.Transforms = []TransformConfig{{ARN: arn, URL: lambda.URL}}
	s := open(t, c)
	aws := client(t, s)
	create := func(in jsonObject) error { return aws.Call(t.Context(), "CreateDeliveryStream", in, nil) }
	schema := jsonObject{"RoleARN": "arn:aws:iam::000000000000:role/r", "DatabaseName": "equities", "TableName": "members"}
	conversion := func(table string) jsonObject {
		sc := jsonObject{}
		for k, v := range schema {
			sc[k] = v
		}
		sc["TableName"] = table
		return jsonObject{"SchemaConfiguration": sc, "InputFormatConfiguration": jsonObject{"Deserializer": jsonObject{"OpenXJsonSerDe": jsonObject{}}},
			"OutputFormatConfiguration": jsonObject{"Serializer": jsonObject{"ParquetSerDe": jsonObject{}}}}
	}
	for name, bad := range map[string]struct {
		members jsonObject
		message string
	}{
		"prefix": {jsonObject{"Prefix": "x/!{timestamp:bb}/", "ErrorOutputPrefix": "e/!{firehose:error-output-type}/"}, "Prefix"},
		"table":  {jsonObject{"DataFormatConversionConfiguration": conversion("nobody")}, "nobody"},
		"jq": {jsonObject{"Prefix": "x/!{partitionKeyFromQuery:k}/", "ErrorOutputPrefix": "e/!{firehose:error-output-type}/", "DynamicPartitioningConfiguration": jsonObject{"Enabled": true},
			"ProcessingConfiguration": processors(processor("MetadataExtraction", "MetadataExtractionQuery", "{k: .k", "JsonParsingEngine", "JQ-1.6"))}, "MetadataExtractionQuery"},
		"lambda": {jsonObject{"ProcessingConfiguration": processors(processor("Lambda", "LambdaArn", arn+"x"))}, "transforms"},
		"sql":    {jsonObject{"ProcessingConfiguration": processors(processor("Lambda", "LambdaArn", "sql:SELECT count(*) AS n FROM records"))}, "LambdaArn"},
	} {
		refusal(t, name, create(extended("bad", bad.members)), "InvalidArgumentException", bad.message)
	}

	for _, in := range []jsonObject{
		extended("zipped", jsonObject{"Prefix": "zipped/", "CompressionFormat": "GZIP", "ProcessingConfiguration": processors(processor("AppendDelimiterToRecord"))}),
		extended("split", jsonObject{"Prefix": "split/venue=!{partitionKeyFromLambda:venue}/symbol=!{partitionKeyFromQuery:symbol}/", "ErrorOutputPrefix": "bad/!{firehose:error-output-type}/",
			"DynamicPartitioningConfiguration": jsonObject{"Enabled": true}, "S3BackupMode": "Enabled",
			"S3BackupConfiguration": jsonObject{"RoleARN": "arn:aws:iam::000000000000:role/r", "BucketARN": "arn:aws:s3:::archive", "Prefix": "sent/"},
			"ProcessingConfiguration": processors(processor("Lambda", "LambdaArn", arn), processor("RecordDeAggregation", "SubRecordType", "JSON"),
				processor("MetadataExtraction", "MetadataExtractionQuery", "{symbol: .SYMBOL}", "JsonParsingEngine", "JQ-1.6"))}),
		extended("parquet", jsonObject{"Prefix": "parquet/", "BufferingHints": jsonObject{"SizeInMBs": 64, "IntervalInSeconds": 60}, "DataFormatConversionConfiguration": conversion("members")}),
		extended("masked", jsonObject{"Prefix": "masked/", "ProcessingConfiguration": processors(processor("Lambda", "LambdaArn", "sql:SELECT symbol, price * 2 AS twice FROM records AS r(symbol varchar, price decimal(18,4)) WHERE symbol <> 'B'"))}),
	} {
		if err := create(in); err != nil {
			t.Fatal(in["DeliveryStreamName"], err)
		}
	}
	// As stored, so shown; and after a restart the same.
	put(t, aws, "zipped", []byte("one"), []byte("two"))
	put(t, aws, "split", []byte(`{"symbol":"a"}{"symbol":"b"}`), []byte(`{"symbol":"a","n":2}`), []byte(`{"bad":1}`))
	put(t, aws, "parquet", []byte(`{"member":"M1"}`), []byte(`no`))
	put(t, aws, "masked", []byte(`{"symbol":"A","price":1.2345}`), []byte(`{"symbol":"B","price":1}`), []byte(`{"symbol":"C","price":"x"}`))
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = open(t, c)

	zipped := flushed(t, s, "zipped", "zipped")
	for name, body := range zipped {
		z, err := gzip.NewReader(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(z); err != nil || string(text) != "one\ntwo\n" || !strings.HasSuffix(name, ".gz") {
			t.Errorf("%s: %q %v", name, text, err)
		}
	}
	got := map[string]string{}
	for name, body := range flushed(t, s, "split", "") {
		dir := name[:strings.LastIndexByte(name, '/')]
		for _, top := range []string{"sent/", "bad/processing-failed/", "zipped/", "parquet/format-conversion-failed/", "parquet/", "masked/processing-failed/", "masked/"} {
			if strings.HasPrefix(dir+"/", top) {
				dir = top
				break
			}
		}
		got[dir] += body
	}
	for dir, want := range map[string]string{
		"split/venue=XNAS/symbol=A": `{"SYMBOL":"A"}{"SYMBOL":"A","N":2}`,
		"split/venue=XNAS/symbol=B": `{"SYMBOL":"B"}`,
		"sent/":                     `{"symbol":"a"}{"symbol":"b"}{"symbol":"a","n":2}{"bad":1}`,
		"masked/":                   `{"symbol":"A","twice":2.4690}`,
	} {
		if got[dir] != want {
			t.Errorf("%s: %s\nwant %s", dir, got[dir], want)
		}
	}
	if len(zipped) != 1 || !strings.Contains(got["bad/processing-failed/"], "Lambda.ProcessingFailedStatus") || !strings.Contains(got["masked/processing-failed/"], "SQL.") ||
		!strings.Contains(got["parquet/format-conversion-failed/"], "ParseError") || !strings.HasPrefix(got["parquet/"], "PAR1") {
		t.Errorf("%d zipped, directories %q", len(zipped), got)
	}
}

// A stream of two tables puts each record into its own, by what a jq program
// finds.
func TestRoutedByTheAPI(t *testing.T) {
	s := open(t, testConfig(t))
	conn := connect(t, s)
	for _, name := range []string{"trades", "quotes"} {
		execute1(t, conn, "CREATE TABLE public."+name+" (symbol varchar, price decimal(18,4))")
	}
	aws := client(t, s)
	role := "arn:aws:iam::000000000000:role/r"
	in := jsonObject{"DeliveryStreamName": "both", "DeliveryStreamType": "DirectPut", "IcebergDestinationConfiguration": jsonObject{
		"RoleARN": role, "CatalogConfiguration": jsonObject{"CatalogARN": "arn:aws:glue:us-east-1:000000000000:catalog"},
		"DestinationTableConfigurationList": []jsonObject{{"DestinationDatabaseName": "public", "DestinationTableName": "trades"}, {"DestinationDatabaseName": "public", "DestinationTableName": "quotes"}},
		"ProcessingConfiguration": processors(processor("MetadataExtraction", "JsonParsingEngine", "JQ-1.6", "MetadataExtractionQuery",
			`{destinationDatabaseName: "public", destinationTableName: .kind, operation: "insert"}`)),
		"S3Configuration": jsonObject{"RoleARN": role, "BucketARN": "arn:aws:s3:::archive", "Prefix": "all/", "ErrorOutputPrefix": "lost/"}}}
	if err := aws.Call(t.Context(), "CreateDeliveryStream", in, nil); err != nil {
		t.Fatal(err)
	}
	put(t, aws, "both", []byte(`{"kind":"trades","symbol":"A","price":1.5}`), []byte(`{"kind":"quotes","symbol":"B","price":2}`), []byte(`{"kind":"halts"}`), []byte(`{"kind":"trades","price":"x"}`))
	for range 2 { // from the tail, then from the tables
		if got := text(t, conn, "SELECT (SELECT symbol FROM public.trades) || (SELECT symbol FROM public.quotes) || (SELECT sum(price) FROM public.trades)"); got != "AB1.5000" {
			t.Fatal(got)
		}
		if err := s.delivery.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	files := flushed(t, s, "both", "")
	var all, lost string
	for name, body := range files {
		if strings.HasPrefix(name, "all/") {
			all += body
		} else {
			lost += body
		}
	}
	if all != "" || !strings.Contains(lost, "Iceberg.TableNotFound") || !strings.Contains(lost, "DataFormatConversion.MalformedData") {
		t.Errorf("%q\n%q", all, lost)
	}
	if _, _, err := delivery.ParseFailed([]byte(strings.SplitN(lost, "\n", 2)[0])); err != nil {
		t.Error(err)
	}
}
