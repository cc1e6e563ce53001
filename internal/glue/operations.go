package glue

import (
	"context"

	"github.com/tapehouse/tapehouse/internal/awsapi"
)

// operations are those that are supported. Authorization knows them too:
// internal/auth/policy.go.
var operations = map[string]operation{
	"CreateDatabase": on((*Handler).createDatabase),
	"GetDatabase":    on((*Handler).getDatabase),
	"GetDatabases":   on((*Handler).getDatabases),
	"UpdateDatabase": on((*Handler).updateDatabase),
	"DeleteDatabase": on((*Handler).deleteDatabase),

	"CreateTable":      on((*Handler).createTable),
	"GetTable":         on((*Handler).getTable),
	"GetTables":        on((*Handler).getTables),
	"UpdateTable":      on((*Handler).updateTable),
	"DeleteTable":      on((*Handler).deleteTable),
	"BatchDeleteTable": on((*Handler).batchDeleteTable),
	"SearchTables":     on((*Handler).searchTables),

	"GetTableVersion":         on((*Handler).getTableVersion),
	"GetTableVersions":        on((*Handler).getTableVersions),
	"DeleteTableVersion":      on((*Handler).deleteTableVersion),
	"BatchDeleteTableVersion": on((*Handler).batchDeleteTableVersion),

	"CreatePartition":      on((*Handler).createPartition),
	"BatchCreatePartition": on((*Handler).batchCreatePartition),
	"GetPartition":         on((*Handler).getPartition),
	"BatchGetPartition":    on((*Handler).batchGetPartition),
	"GetPartitions":        on((*Handler).getPartitions),
	"UpdatePartition":      on((*Handler).updatePartition),
	"BatchUpdatePartition": on((*Handler).batchUpdatePartition),
	"DeletePartition":      on((*Handler).deletePartition),
	"BatchDeletePartition": on((*Handler).batchDeletePartition),

	"CreatePartitionIndex": on((*Handler).createPartitionIndex),
	"GetPartitionIndexes":  on((*Handler).getPartitionIndexes),
	"DeletePartitionIndex": on((*Handler).deletePartitionIndex),

	"UpdateColumnStatisticsForTable":     on(updateStatistics(false)),
	"GetColumnStatisticsForTable":        on(getStatistics(false)),
	"DeleteColumnStatisticsForTable":     on(deleteStatistics(false)),
	"UpdateColumnStatisticsForPartition": on(updateStatistics(true)),
	"GetColumnStatisticsForPartition":    on(getStatistics(true)),
	"DeleteColumnStatisticsForPartition": on(deleteStatistics(true)),

	"TagResource":   on((*Handler).tagResource),
	"UntagResource": on((*Handler).tagResource),
	"GetTags":       on((*Handler).getTags),

	"CreateCrawler":         on((*Handler).createCrawler),
	"GetCrawler":            on((*Handler).getCrawler),
	"GetCrawlers":           on((*Handler).getCrawlers),
	"BatchGetCrawlers":      on((*Handler).batchGetCrawlers),
	"ListCrawlers":          on((*Handler).listCrawlers),
	"UpdateCrawler":         on((*Handler).updateCrawler),
	"DeleteCrawler":         on((*Handler).deleteCrawler),
	"StartCrawler":          on((*Handler).startCrawler),
	"StopCrawler":           on((*Handler).stopCrawler),
	"UpdateCrawlerSchedule": on((*Handler).updateCrawlerSchedule),
	"StartCrawlerSchedule":  on((*Handler).startCrawlerSchedule),
	"StopCrawlerSchedule":   on((*Handler).stopCrawlerSchedule),
	"GetCrawlerMetrics":     on((*Handler).getCrawlerMetrics),
	"ListCrawls":            on((*Handler).listCrawls),

	"CreateClassifier": on((*Handler).createClassifier),
	"GetClassifier":    on((*Handler).getClassifier),
	"GetClassifiers":   on((*Handler).getClassifiers),
	"UpdateClassifier": on((*Handler).updateClassifier),
	"DeleteClassifier": on((*Handler).deleteClassifier),

	"GetCatalogImportStatus":  on((*Handler).importStatus),
	"GetUserDefinedFunction":  on((*Handler).getFunction),
	"GetUserDefinedFunctions": on((*Handler).getFunctions),
}

// importStatus says that the catalog is Glue's own form already: clients ask it of
// accounts that had Athena before there was Glue.
func (h *Handler) importStatus(context.Context, *awsapi.Call, *catalogOf) (any, error) {
	var out struct {
		ImportStatus struct{ ImportCompleted bool }
	}
	out.ImportStatus.ImportCompleted = true
	return out, nil
}

type functionsInput struct {
	catalogOf
	DatabaseName string
	FunctionName string
}

// getFunctions answers that there are none: Spark and Trino ask it when they look for
// a function.
func (h *Handler) getFunctions(ctx context.Context, _ *awsapi.Call, in *functionsInput) (any, error) {
	if in.DatabaseName != "" {
		if _, _, err := h.findDatabase(ctx, in.DatabaseName); err != nil {
			return nil, err
		}
	}
	return struct{ UserDefinedFunctions []string }{[]string{}}, nil
}

func (h *Handler) getFunction(_ context.Context, _ *awsapi.Call, in *functionsInput) (any, error) {
	return nil, notFound("Function " + in.FunctionName + " not found.")
}

// refusedMembers are the members, as "shape.member", that are refused where they
// are not null, with the message.
var refusedMembers = map[string]string{
	"DatabaseInput.TargetDatabase":                      "TargetDatabase is not supported: a link to another catalog's database has nothing to link to. Create the database here.",
	"DatabaseInput.FederatedDatabase":                   "FederatedDatabase is not supported: use a lake of this server, or CREATE EXTERNAL SCHEMA in SQL.",
	"TableInput.TargetTable":                            "TargetTable is not supported: a link to another catalog's table has nothing to link to. Create the table here.",
	"TableInput.ViewDefinition":                         "ViewDefinition is not supported: write a view as ViewOriginalText and ViewExpandedText with the TableType VIRTUAL_VIEW, or CREATE MATERIALIZED VIEW in SQL.",
	"UpdateTableRequest.ViewUpdateAction":               "ViewUpdateAction is not supported: update the table with the ViewOriginalText that it is to have.",
	"StorageDescriptor.SchemaReference":                 "SchemaReference is not supported: there is no schema registry here. Give the Columns.",
	"IcebergInput.CreateIcebergTableInput":              "CreateIcebergTableInput is not supported: give the columns as TableInput.StorageDescriptor.Columns, or create the table by Iceberg REST (/iceberg).",
	"UpdateTableRequest.UpdateOpenTableFormatInput":     "UpdateOpenTableFormatInput is not supported: change the table by Iceberg REST (/iceberg), or by ALTER TABLE in SQL.",
	"CrawlerTargets.JdbcTargets":                        onlyFiles,
	"CrawlerTargets.MongoDBTargets":                     onlyFiles,
	"CrawlerTargets.DynamoDBTargets":                    onlyFiles,
	"CrawlerTargets.DeltaTargets":                       "DeltaTargets is not supported: Delta Lake's log is not read. Register Iceberg tables by Iceberg REST (/iceberg), or crawl Parquet files.",
	"CrawlerTargets.HudiTargets":                        "HudiTargets is not supported: Hudi's timeline is not read. Register Iceberg tables by Iceberg REST (/iceberg), or crawl Parquet files.",
	"CrawlerTargets.IcebergTargets":                     "IcebergTargets is not supported: register the table by Iceberg REST (POST /iceberg/v1/namespaces/NAMESPACE/register) with its metadata file.",
	"CrawlerTargets.CatalogTargets":                     "CatalogTargets is not supported: crawl the folders of the tables as S3Targets.",
	"CreateCrawlerRequest.CrawlerSecurityConfiguration": noSecurityConfiguration,
	"UpdateCrawlerRequest.CrawlerSecurityConfiguration": noSecurityConfiguration,
	"CreateClassifierRequest.GrokClassifier":            noGrok,
	"CreateClassifierRequest.XMLClassifier":             noGrok,
	"UpdateClassifierRequest.GrokClassifier":            noGrok,
	"UpdateClassifierRequest.XMLClassifier":             noGrok,
	"CreateTableRequest.TransactionId":                  noTransactions,
	"GetTableRequest.TransactionId":                     noTransactions,
	"GetTablesRequest.TransactionId":                    noTransactions,
	"UpdateTableRequest.TransactionId":                  noTransactions,
	"DeleteTableRequest.TransactionId":                  noTransactions,
	"BatchDeleteTableRequest.TransactionId":             noTransactions,
	"GetPartitionsRequest.TransactionId":                noTransactions,
	"GetTableRequest.QueryAsOfTime":                     noTimeTravel,
	"GetTablesRequest.QueryAsOfTime":                    noTimeTravel,
	"GetPartitionsRequest.QueryAsOfTime":                noTimeTravel,
}

const (
	noTransactions          = "TransactionId is not supported: governed tables are not kept. Use an Iceberg table, whose commits are transactions."
	onlyFiles               = "Only S3Targets are crawled here: files in the lake, or in a bucket."
	noGrok                  = "Only CsvClassifier and JsonClassifier are supported: logs and XML are not read; convert them to JSON lines."
	noSecurityConfiguration = "CrawlerSecurityConfiguration is not supported: nothing is encrypted with a KMS key here."
	noTimeTravel            = "QueryAsOfTime is not supported: read former versions by GetTableVersion, and former data of an Iceberg table by its snapshots."
)
