// Package hive describes tables whose files others write: Hive's model of a table,
// as the AWS Glue Data Catalog has it. Files of one format lie below a location,
// and each partition, named by the values of the table's partition keys, has a
// location of its own.
//
// The JSON forms are those of Glue's TableInput and PartitionInput (Glue API
// 2017-03-31), without what only AWS has.
package hive

// Table is a table's definition.
type Table struct {
	Description      string            `json:"Description,omitempty"`
	Owner            string            `json:"Owner,omitempty"`
	LastAccessTime   float64           `json:"LastAccessTime,omitempty"`   // seconds since 1970
	LastAnalyzedTime float64           `json:"LastAnalyzedTime,omitempty"` // seconds since 1970
	Retention        int               `json:"Retention"`
	Storage          *Storage          `json:"StorageDescriptor,omitempty"`
	PartitionKeys    []Column          `json:"PartitionKeys,omitempty"`
	ViewOriginalText string            `json:"ViewOriginalText,omitempty"`
	ViewExpandedText string            `json:"ViewExpandedText,omitempty"`
	Type             string            `json:"TableType,omitempty"` // EXTERNAL_TABLE, VIRTUAL_VIEW, …
	Parameters       map[string]string `json:"Parameters,omitempty"`
}

// Partition is a partition's definition.
type Partition struct {
	Values           []string          `json:"Values"` // one for each of the table's PartitionKeys
	LastAccessTime   float64           `json:"LastAccessTime,omitempty"`
	LastAnalyzedTime float64           `json:"LastAnalyzedTime,omitempty"`
	Storage          *Storage          `json:"StorageDescriptor,omitempty"`
	Parameters       map[string]string `json:"Parameters,omitempty"`
}

// Column is a column, or a partition key.
type Column struct {
	Name       string            `json:"Name"`
	Type       string            `json:"Type,omitempty"` // Hive's spelling
	Comment    string            `json:"Comment,omitempty"`
	Parameters map[string]string `json:"Parameters,omitempty"`
}

// Storage says where files lie and how they are read.
type Storage struct {
	Columns                []Column          `json:"Columns,omitempty"`
	Location               string            `json:"Location,omitempty"` // s3://bucket/prefix/
	AdditionalLocations    []string          `json:"AdditionalLocations,omitempty"`
	InputFormat            string            `json:"InputFormat,omitempty"`
	OutputFormat           string            `json:"OutputFormat,omitempty"`
	Compressed             bool              `json:"Compressed"`
	NumberOfBuckets        int               `json:"NumberOfBuckets"`
	Serde                  *Serde            `json:"SerdeInfo,omitempty"`
	BucketColumns          []string          `json:"BucketColumns,omitempty"`
	SortColumns            []Order           `json:"SortColumns,omitempty"`
	Parameters             map[string]string `json:"Parameters,omitempty"`
	Skewed                 *Skewed           `json:"SkewedInfo,omitempty"`
	StoredAsSubDirectories bool              `json:"StoredAsSubDirectories"`
}

// Serde names what reads and writes rows.
type Serde struct {
	Name       string            `json:"Name,omitempty"`
	Library    string            `json:"SerializationLibrary,omitempty"` // a class of Hive's
	Parameters map[string]string `json:"Parameters,omitempty"`
}

// Order is a column that files are sorted by.
type Order struct {
	Column string `json:"Column"`
	// Ascending is 1 for ascending, 0 for descending order.
	Ascending int `json:"SortOrder"`
}

// Skewed names values that are so frequent that they have locations of their own.
type Skewed struct {
	Columns   []string          `json:"SkewedColumnNames,omitempty"`
	Values    []string          `json:"SkewedColumnValues,omitempty"`
	Locations map[string]string `json:"SkewedColumnValueLocationMaps,omitempty"`
}

// The table types.
const (
	ExternalTable = "EXTERNAL_TABLE"
	VirtualView   = "VIRTUAL_VIEW"
)

// Classes of Hive's by which catalogs name formats.
const (
	ParquetSerde   = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
	LazySerde      = "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe"
	CSVSerde       = "org.apache.hadoop.hive.serde2.OpenCSVSerde"
	OpenXSerde     = "org.openx.data.jsonserde.JsonSerDe"
	HiveJSONSerde  = "org.apache.hive.hcatalog.data.JsonSerDe"
	HiveJSONSerde2 = "org.apache.hadoop.hive.serde2.JsonSerDe"

	ParquetInput  = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat"
	ParquetOutput = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat"
	TextInput     = "org.apache.hadoop.mapred.TextInputFormat"
	TextOutput    = "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat"
)

// Parameters of tables.
const (
	ParamClassification = "classification" // parquet, csv, json
	ParamCompression    = "compressionType"
	ParamSkipHeader     = "skip.header.line.count"
	ParamTableType      = "table_type"        // ICEBERG for a table of Iceberg's
	ParamMetadata       = "metadata_location" // of it
	ParamFormerMetadata = "previous_metadata_location"
)
