package glue

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

const partitionInput = `{"Values":["2026-11-20","1"],"StorageDescriptor":{"Columns":[{"Name":"price","Type":"decimal(18,4)"}],"Location":"s3://b/trades/trade_date=2026-11-20/n=1/"},"Parameters":{"k":"v"}}`

func TestPartitions(t *testing.T) {
	w := newWorld(t)
	w.partitioned()
	const of = `"DatabaseName":"desk","TableName":"trades"`
	const first = `{"Values":["2026-11-20","1"],"StorageDescriptor":{"Columns":[{"Name":"price","Type":"decimal(18,4)"}],"Location":"s3://b/trades/trade_date=2026-11-20/n=1/","Compressed":false,"NumberOfBuckets":0,"StoredAsSubDirectories":false},"Parameters":{"k":"v"},"DatabaseName":"desk","TableName":"trades","CreationTime":0,"CatalogId":"000000000000"}`
	w.steps(
		step{"CreatePartition", `{` + of + `,"PartitionInput":` + partitionInput + `}`, `{}`},
		step{"CreatePartition", `{` + of + `,"PartitionInput":` + partitionInput + `}`, `AlreadyExistsException: Partition already exists.`},
		step{"CreatePartition", `{` + of + `,"PartitionInput":{"Values":["2026-11-20"]}}`, `InvalidInputException: The number of partition keys do not match the number of partition values: 2 keys, 1 values.`},
		step{"CreatePartition", `{"DatabaseName":"desk","TableName":"none","PartitionInput":{}}`, `EntityNotFoundException: Table none not found.`},
		step{"BatchCreatePartition", `{` + of + `,"PartitionInputList":[{"Values":["2026-11-21","2"]},{"Values":["2026-11-20","1"]},{"Values":["x"]},{"Values":["2026-11-21","2"]},{"Values":["2026-11-22","10"]}]}`,
			`{"Errors":[{"PartitionValues":["x"],"ErrorDetail":{"ErrorCode":"InvalidInputException","ErrorMessage":"The number of partition keys do not match the number of partition values: 2 keys, 1 values."}},` +
				`{"PartitionValues":["2026-11-20","1"],"ErrorDetail":{"ErrorCode":"AlreadyExistsException","ErrorMessage":"Partition already exists."}},` +
				`{"PartitionValues":["2026-11-21","2"],"ErrorDetail":{"ErrorCode":"AlreadyExistsException","ErrorMessage":"Partition already exists."}}]}`},
		step{"GetPartition", `{` + of + `,"PartitionValues":["2026-11-20","1"]}`, `{"Partition":` + first + `}`},
		step{"GetPartition", `{` + of + `,"PartitionValues":["2026-11-20","7"]}`, `EntityNotFoundException: Cannot find partition.`},
		step{"BatchGetPartition", `{` + of + `,"PartitionsToGet":[{"Values":["2026-11-20","7"]},{"Values":["2026-11-20","1"]}]}`, `{"Partitions":[` + first + `],"UnprocessedKeys":[]}`},
		step{"GetPartitions", `{` + of + `,"Expression":"n = 1","ExcludeColumnSchema":true}`, `{"Partitions":[` + strings.Replace(first, `"Columns":[{"Name":"price","Type":"decimal(18,4)"}],`, "", 1) + `]}`},
		step{"GetPartitions", `{` + of + `,"Expression":"n > 9 and trade_date >= '2026-11-21'"}`, `…"Values":["2026-11-22","10"]`},
		step{"GetPartitions", `{` + of + `,"Expression":"venue = 'X'"}`, `InvalidInputException: invalid expression: at character 1: "venue" is not a partition key: want one of trade_date, n`},
		step{"GetPartitions", `{` + of + `,"Segment":{"SegmentNumber":2,"TotalSegments":2}}`, `…SegmentNumber 2 is none of 2 segments`},
		step{"UpdatePartition", `{` + of + `,"PartitionValueList":["2026-11-20","1"],"PartitionInput":{"Parameters":{"k":"w"}}}`, `{}`},
		step{"GetPartition", `{` + of + `,"PartitionValues":["2026-11-20","1"]}`, `…"Parameters":{"k":"w"}`},
		step{"UpdatePartition", `{` + of + `,"PartitionValueList":["2026-11-20","1"],"PartitionInput":{"Values":["2026-11-20","3"]}}`, `{}`},
		step{"GetPartition", `{` + of + `,"PartitionValues":["2026-11-20","1"]}`, `EntityNotFoundException: Cannot find partition.`},
		step{"UpdatePartition", `{` + of + `,"PartitionValueList":["2026-11-20","1"],"PartitionInput":{}}`, `EntityNotFoundException: Cannot find partition.`},
		step{"UpdatePartition", `{` + of + `,"PartitionValueList":["2026-11-20","3"],"PartitionInput":{"Values":["2026-11-21","2"]}}`, `AlreadyExistsException: Partition already exists.`},
		step{"BatchUpdatePartition", `{` + of + `,"Entries":[{"PartitionValueList":["2026-11-20","3"],"PartitionInput":{"Values":["2026-11-20","4"]}},{"PartitionValueList":["2026-11-20","9"],"PartitionInput":{}},{"PartitionValueList":["x"],"PartitionInput":{}}]}`,
			`{"Errors":[{"PartitionValueList":["x"],"ErrorDetail":{"ErrorCode":"InvalidInputException","ErrorMessage":"The number of partition keys do not match the number of partition values: 2 keys, 1 values."}},` +
				`{"PartitionValueList":["2026-11-20","9"],"ErrorDetail":{"ErrorCode":"EntityNotFoundException","ErrorMessage":"Cannot find partition."}}]}`},
		step{"BatchUpdatePartition", `{` + of + `,"Entries":[{"PartitionValueList":["2026-11-20","4"],"PartitionInput":{"Values":["2026-11-20","5"]}},{"PartitionValueList":["2026-11-20","4"],"PartitionInput":{"Values":["2026-11-20","6"]}}]}`, `…Entries name the partition`},
		step{"DeletePartition", `{` + of + `,"PartitionValues":["2026-11-20","4"]}`, `{}`},
		step{"DeletePartition", `{` + of + `,"PartitionValues":["2026-11-20","4"]}`, `EntityNotFoundException: Cannot find partition.`},
		step{"UpdateTable", `{"DatabaseName":"desk","TableInput":{"Name":"trades","PartitionKeys":[{"Name":"trade_date","Type":"date"}]}}`, `…The number of partition keys cannot change while the table has partitions`},
		step{"BatchDeletePartition", `{` + of + `,"PartitionsToDelete":[{"Values":["2026-11-21","2"]},{"Values":["2026-11-20","4"]}]}`, `{"Errors":[{"PartitionValues":["2026-11-20","4"],"ErrorDetail":{"ErrorCode":"EntityNotFoundException","ErrorMessage":"Cannot find partition."}}]}`},
		step{"GetPartitions", `{` + of + `,"Expression":""}`, `…"Values":["2026-11-22","10"]`},
		step{"DeletePartition", `{` + of + `,"PartitionValues":["2026-11-22","10"]}`, `{}`},
		step{"UpdateTable", `{"DatabaseName":"desk","TableInput":{"Name":"trades","PartitionKeys":[{"Name":"trade_date","Type":"date"}]}}`, `{}`},
	)
}

// pages reads all pages of an operation and returns the values of the partitions,
// and of how many pages.
func (w *world) pages(body string) (values []string, n int) {
	w.t.Helper()
	token := ""
	for {
		var out struct {
			Partitions []struct{ Values []string }
			NextToken  string
		}
		answer := w.call("GetPartitions", strings.TrimSuffix(body, "}")+token+"}")
		if err := json.Unmarshal([]byte(answer), &out); err != nil {
			w.t.Fatal(answer)
		}
		for _, p := range out.Partitions {
			values = append(values, strings.Join(p.Values, "/"))
		}
		if n++; out.NextToken == "" {
			return values, n
		}
		token = `,"NextToken":"` + out.NextToken + `"`
	}
}

// Segments together give each partition once, and so do pages, whatever comes and
// goes between them.
func TestSegmentsAndPages(t *testing.T) {
	w := newWorld(t)
	w.partitioned()
	const partitions = 350
	for from := 0; from < partitions; from += 50 {
		var list []string
		for i := from; i < from+50; i++ {
			list = append(list, fmt.Sprintf(`{"Values":["2026-11-%02d","%d"]}`, i%28+1, i))
		}
		if got := w.call("BatchCreatePartition", `{"DatabaseName":"desk","TableName":"trades","PartitionInputList":[`+strings.Join(list, ",")+`]}`); got != "{}" {
			t.Fatal(got)
		}
	}
	const of = `{"DatabaseName":"desk","TableName":"trades"`
	once := func(what string, values []string, want int) {
		t.Helper()
		seen := map[string]bool{}
		for _, v := range values {
			if seen[v] {
				t.Errorf("%s: %s comes twice", what, v)
			}
			seen[v] = true
		}
		if len(values) != want {
			t.Errorf("%s: %d partitions, want %d", what, len(values), want)
		}
	}
	for _, total := range []int{1, 2, 3, 10} {
		var all []string
		for i := range total {
			part, _ := w.pages(fmt.Sprintf(of+`,"Segment":{"SegmentNumber":%d,"TotalSegments":%d},"MaxResults":7}`, i, total))
			if total > 1 && (len(part) == 0 || len(part) > partitions*2/total) {
				t.Errorf("segment %d of %d has %d partitions", i, total, len(part))
			}
			all = append(all, part...)
		}
		once(fmt.Sprint(total, " segments"), all, partitions)
	}
	all, n := w.pages(of + `,"MaxResults":50}`)
	once("pages", all, partitions)
	if n != 7 {
		t.Errorf("%d pages", n)
	}
	some, _ := w.pages(of + `,"MaxResults":10,"Expression":"n BETWEEN 100 AND 199 AND trade_date <> '2026-11-01'"}`)
	want := 0
	for i := 100; i < 200; i++ {
		if i%28 != 0 {
			want++
		}
	}
	once("an expression", some, want)
}

// A page ends where it has become large, however many entries were asked for.
func TestLargeAnswers(t *testing.T) {
	w := newWorld(t)
	w.partitioned()
	large := strings.Repeat("x", 450_000)
	var keys []string
	for i := range 20 {
		if got := w.call("CreatePartition", fmt.Sprintf(`{"DatabaseName":"desk","TableName":"trades","PartitionInput":{"Values":["2026-11-20","%d"],"Parameters":{"a":%q,"b":%q}}}`, i, large, large)); got != "{}" {
			t.Fatal(got[:200])
		}
		keys = append(keys, fmt.Sprintf(`{"Values":["2026-11-20","%d"]}`, i))
	}
	all, n := w.pages(`{"DatabaseName":"desk","TableName":"trades"}`)
	if len(all) != 20 || n != 2 {
		t.Errorf("%d partitions on %d pages", len(all), n)
	}
	var out struct {
		Partitions      []json.RawMessage
		UnprocessedKeys []json.RawMessage
	}
	answer := w.call("BatchGetPartition", `{"DatabaseName":"desk","TableName":"trades","PartitionsToGet":[`+strings.Join(keys, ",")+`]}`)
	if err := json.Unmarshal([]byte(answer), &out); err != nil || len(out.Partitions) != 10 || len(out.UnprocessedKeys) != 10 {
		t.Errorf("%v: %d partitions, %d unprocessed", err, len(out.Partitions), len(out.UnprocessedKeys))
	}
}

func TestPartitionIndexes(t *testing.T) {
	w := newWorld(t)
	w.partitioned()
	const of = `"DatabaseName":"desk","TableName":"trades"`
	w.steps(
		step{"GetPartitionIndexes", `{` + of + `}`, `{"PartitionIndexDescriptorList":[]}`},
		step{"CreatePartitionIndex", `{` + of + `,"PartitionIndex":{"Keys":["trade_date","n"],"IndexName":"i"}}`, `{}`},
		step{"CreatePartitionIndex", `{` + of + `,"PartitionIndex":{"Keys":["n"],"IndexName":"I"}}`, `AlreadyExistsException: The partition index I exists already.`},
		step{"CreatePartitionIndex", `{` + of + `,"PartitionIndex":{"Keys":["x"],"IndexName":"j"}}`, `…names x, which is no partition key of the table`},
		step{"CreatePartitionIndex", `{` + of + `,"PartitionIndex":{"Keys":["n","N"],"IndexName":"j"}}`, `…names N twice`},
		step{"CreatePartitionIndex", `{` + of + `,"PartitionIndex":{"Keys":["n"],"IndexName":"j"}}`, `{}`},
		step{"CreatePartitionIndex", `{` + of + `,"PartitionIndex":{"Keys":["n"],"IndexName":"k"}}`, `{}`},
		step{"CreatePartitionIndex", `{` + of + `,"PartitionIndex":{"Keys":["n"],"IndexName":"l"}}`, `ResourceNumberLimitExceededException: A table can have 3 partition indexes, and it would have 4.`},
		step{"DeletePartitionIndex", `{` + of + `,"IndexName":"k"}`, `{}`},
		step{"DeletePartitionIndex", `{` + of + `,"IndexName":"k"}`, `EntityNotFoundException: Index with the given indexName : k does not exist.`},
		step{"GetPartitionIndexes", `{` + of + `}`, `{"PartitionIndexDescriptorList":[{"IndexName":"i","Keys":[{"Name":"trade_date","Type":"date"},{"Name":"n","Type":"int"}],"IndexStatus":"ACTIVE"},{"IndexName":"j","Keys":[{"Name":"n","Type":"int"}],"IndexStatus":"ACTIVE"}]}`},
		step{"CreateTable", `{"DatabaseName":"desk","TableInput":{"Name":"x","PartitionKeys":[{"Name":"k","Type":"string"}]},"PartitionIndexes":[{"Keys":["z"],"IndexName":"i"}]}`, `…names z, which is no partition key`},
		step{"CreateTable", `{"DatabaseName":"desk","TableInput":{"Name":"x","PartitionKeys":[{"Name":"k","Type":"string"}]},"PartitionIndexes":[{"Keys":["k"],"IndexName":"i"}]}`, `{}`},
		step{"GetPartitionIndexes", `{"DatabaseName":"desk","TableName":"x"}`, `{"PartitionIndexDescriptorList":[{"IndexName":"i","Keys":[{"Name":"k","Type":"string"}],"IndexStatus":"ACTIVE"}]}`},
	)
}

func TestStatistics(t *testing.T) {
	w := newWorld(t)
	w.partitioned()
	const of = `"DatabaseName":"desk","TableName":"trades"`
	statistics := func(column, kind, data string) string {
		return `{"ColumnName":"` + column + `","ColumnType":"t","AnalyzedTime":1763630400.25,"StatisticsData":{"Type":"` + kind + `",` + data + `}}`
	}
	// Each kind, and numbers that a float does not hold.
	var columns, all, names []string
	for _, s := range [][2]string{
		{"BOOLEAN", `"BooleanColumnStatisticsData":{"NumberOfTrues":9007199254740993,"NumberOfFalses":2,"NumberOfNulls":0}`},
		{"DATE", `"DateColumnStatisticsData":{"MinimumValue":0,"MaximumValue":1763596800,"NumberOfNulls":1,"NumberOfDistinctValues":2}`},
		{"DECIMAL", `"DecimalColumnStatisticsData":{"MinimumValue":{"UnscaledValue":"gAAAAAAAAAAAAAAAAAAAAA==","Scale":4},"MaximumValue":{"UnscaledValue":"AYag","Scale":-2},"NumberOfNulls":0,"NumberOfDistinctValues":1}`},
		{"DOUBLE", `"DoubleColumnStatisticsData":{"MinimumValue":"-Infinity","MaximumValue":1.0000000000000000001,"NumberOfNulls":0,"NumberOfDistinctValues":1}`},
		{"LONG", `"LongColumnStatisticsData":{"MinimumValue":-9223372036854775808,"MaximumValue":9007199254740993,"NumberOfNulls":0,"NumberOfDistinctValues":9223372036854775807}`},
		{"STRING", `"StringColumnStatisticsData":{"MaximumLength":4,"AverageLength":3.25,"NumberOfNulls":0,"NumberOfDistinctValues":1}`},
		{"BINARY", `"BinaryColumnStatisticsData":{"MaximumLength":4,"AverageLength":3.5,"NumberOfNulls":0}`},
	} {
		name := strings.ToLower(s[0])
		columns = append(columns, `{"Name":"`+name+`","Type":"t"}`)
		all = append(all, statistics(name, s[0], s[1]))
		names = append(names, `"`+name+`"`)
	}
	w.steps(
		step{"UpdateTable", `{"DatabaseName":"desk","TableInput":{"Name":"trades","StorageDescriptor":{"Columns":[` + strings.Join(columns, ",") + `]},"PartitionKeys":[{"Name":"n","Type":"int"}]}}`, `{}`},
		step{"CreatePartition", `{` + of + `,"PartitionInput":{"Values":["1"]}}`, `{}`},
	)
	for _, kind := range []string{"Table", "Partition"} {
		of := of
		if kind == "Partition" {
			of += `,"PartitionValues":["1"]`
		}
		w.steps(
			step{"UpdateColumnStatisticsFor" + kind, `{` + of + `,"ColumnStatisticsList":[` + strings.Join(all, ",") + `]}`, `{}`},
			step{"GetColumnStatisticsFor" + kind, `{` + of + `,"ColumnNames":[` + strings.Join(names, ",") + `]}`, `{"ColumnStatisticsList":[` + strings.Join(all, ",") + `]}`},
			step{"GetColumnStatisticsFor" + kind, `{` + of + `,"ColumnNames":["n"]}`, `{"ColumnStatisticsList":[],"Errors":[{"ColumnName":"n","Error":{"ErrorCode":"EntityNotFoundException","ErrorMessage":"Statistics do not exist for the column n."}}]}`},
			step{"UpdateColumnStatisticsFor" + kind, `{` + of + `,"ColumnStatisticsList":[` + statistics("none", "LONG", `"LongColumnStatisticsData":{"NumberOfNulls":0,"NumberOfDistinctValues":0}`) + `]}`, `…"Error":{"ErrorCode":"EntityNotFoundException","ErrorMessage":"Column none not found."}}]}`},
			step{"UpdateColumnStatisticsFor" + kind, `{` + of + `,"ColumnStatisticsList":[` + statistics("n", "DOUBLE", `"LongColumnStatisticsData":{"NumberOfNulls":0,"NumberOfDistinctValues":0}`) + `]}`, `…must have the member of its type, and no other.`},
			step{"DeleteColumnStatisticsFor" + kind, `{` + of + `,"ColumnName":"LONG"}`, `{}`},
			step{"DeleteColumnStatisticsFor" + kind, `{` + of + `,"ColumnName":"long"}`, `EntityNotFoundException: Statistics do not exist for the column long.`},
		)
	}
	w.steps(
		step{"GetColumnStatisticsForPartition", `{` + of + `,"PartitionValues":["2"],"ColumnNames":[]}`, `EntityNotFoundException: Cannot find partition.`},
		step{"DeletePartition", `{` + of + `,"PartitionValues":["1"]}`, `{}`},
		step{"CreatePartition", `{` + of + `,"PartitionInput":{"Values":["1"]}}`, `{}`},
		step{"GetColumnStatisticsForPartition", `{` + of + `,"PartitionValues":["1"],"ColumnNames":["date"]}`, `…"ColumnStatisticsList":[],`},
		step{"DeleteTable", `{"DatabaseName":"desk","Name":"trades"}`, `{}`},
	)
	if docs, err := w.catalog.ListDocuments(t.Context(), kindStatistics, ""); err != nil || len(docs) != 0 {
		t.Errorf("%v %v", docs, err)
	}
}

func TestSmallOperations(t *testing.T) {
	w := newWorld(t)
	w.steps(
		step{"GetCatalogImportStatus", `{}`, `{"ImportStatus":{"ImportCompleted":true}}`},
		step{"GetUserDefinedFunctions", `{"Pattern":"*"}`, `{"UserDefinedFunctions":[]}`},
		step{"GetUserDefinedFunctions", `{"Pattern":"*","DatabaseName":"none"}`, `EntityNotFoundException: Database none not found.`},
		step{"GetUserDefinedFunction", `{"DatabaseName":"none","FunctionName":"f"}`, `EntityNotFoundException: Function f not found.`},
		step{"CreateJob", `{}`, "OperationNotSupportedException: CreateJob is not supported: no jobs run here: transform a stream (docs/transform.md), or use SQL and materialized views."},
		step{"GetDataCatalogEncryptionSettings", `not JSON`, "…OperationNotSupportedException: GetDataCatalogEncryptionSettings is not supported: nothing is encrypted"},
	)
}
