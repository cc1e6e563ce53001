"""Every operation of the Glue Data Catalog that is supported, with boto3 as its users
write it: configured by the environment, checked by its own model, errors caught by
their class, pages by its paginators. Prints what was not as it should be, a line each,
and to standard error the operations that it tried."""
import base64
import datetime
import json
import sys
import time

import boto3

g = boto3.client("glue")
names = {v: k for k, v in g.meta.method_to_api_mapping.items()}
done = set()


def expect(what, have, want):
    if have != want:
        print(f"{what}: {have!r}, want {want!r}")


def call(operation, **args):
    done.add(operation)
    r = getattr(g, names[operation])(**args)
    r.pop("ResponseMetadata")
    return r


def refused(what, error, message, operation, **args):
    try:
        print(f"{what}: was not refused but answered {call(operation, **args)!r}")
    except getattr(g.exceptions, error) as e:
        if message not in str(e):
            print(f"{what}: {e}, want … {message} …")
        expect(what + ": status", e.response["ResponseMetadata"]["HTTPStatusCode"], 400)


def pages(operation, result, **args):
    done.add(operation)
    return [x for page in g.get_paginator(names[operation]).paginate(**args) for x in page[result]]


arn = "arn:aws:glue:us-east-1:000000000000:"

# Databases.
call("CreateDatabase", DatabaseInput=dict(Name="Desk", Description="of the desk", LocationUri="s3://lake/desk/", Parameters=dict(a="1")), Tags=dict(team="ops"))
refused("twice", "AlreadyExistsException", "Database already exists.", "CreateDatabase", DatabaseInput=dict(Name="desk"))
d = call("GetDatabase", Name="desk")["Database"]
expect("database", (d["Name"], d["Description"], d["LocationUri"], d["Parameters"], d["CatalogId"]), ("desk", "of the desk", "s3://lake/desk/", dict(a="1"), "000000000000"))
expect("create time", abs(d["CreateTime"] - datetime.datetime.now(datetime.timezone.utc)) < datetime.timedelta(minutes=5), True)
call("UpdateDatabase", Name="desk", DatabaseInput=dict(Name="desk", Description="changed"))
expect("changed", call("GetDatabase", Name="desk")["Database"].get("Description"), "changed")
expect("databases", {"desk", "equities"} <= {d["Name"] for d in pages("GetDatabases", "DatabaseList", PaginationConfig=dict(PageSize=1))}, True)
refused("no database", "EntityNotFoundException", "Database none not found.", "GetDatabase", Name="none")
refused("another catalog", "EntityNotFoundException", "The catalog 123456789012 is not here", "GetDatabase", Name="desk", CatalogId="123456789012")

# Tables.
storage = dict(Columns=[dict(Name="price", Type="decimal(18,4)", Comment="of a share"), dict(Name="symbol", Type="string")], Location="s3://lake/desk/trades/",
               InputFormat="org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat", OutputFormat="org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
               SerdeInfo=dict(SerializationLibrary="org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe", Parameters={"serialization.format": "1"}),
               SortColumns=[dict(Column="symbol", SortOrder=1)], BucketColumns=["symbol"], NumberOfBuckets=4, Parameters=dict(p="q"),
               SkewedInfo=dict(SkewedColumnNames=["symbol"], SkewedColumnValues=["AAPL"], SkewedColumnValueLocationMaps=dict(AAPL="s3://lake/desk/aapl/")))
table = dict(Name="trades", Owner="desk", Retention=3, TableType="EXTERNAL_TABLE", StorageDescriptor=storage, Parameters=dict(classification="parquet"),
             LastAccessTime=datetime.datetime(2026, 11, 20, 9, 30, tzinfo=datetime.timezone.utc), PartitionKeys=[dict(Name="trade_date", Type="date"), dict(Name="n", Type="int")])
call("CreateTable", DatabaseName="desk", TableInput=table, PartitionIndexes=[dict(Keys=["trade_date"], IndexName="by_date")])
refused("table twice", "AlreadyExistsException", "Table already exists.", "CreateTable", DatabaseName="desk", TableInput=table)
refused("bad member", "InvalidInputException", "TargetTable is not supported", "CreateTable", DatabaseName="desk", TableInput=dict(Name="x", TargetTable=dict(Name="y")))
t = call("GetTable", DatabaseName="desk", Name="TRADES")["Table"]
for member, want in table.items():
    if member != "StorageDescriptor":
        expect("table: " + member, t.get(member), want)
for member, want in storage.items():
    expect("storage: " + member, t["StorageDescriptor"].get(member), want)
expect("version", t["VersionId"], "0")
call("UpdateTable", DatabaseName="desk", TableInput=dict(table, Description="second"), VersionId="0")
refused("stale", "ConcurrentModificationException", "the version is 1, not 0", "UpdateTable", DatabaseName="desk", TableInput=table, VersionId="0")
call("UpdateTable", DatabaseName="desk", TableInput=dict(table, Description="third"), SkipArchive=True)
expect("versions", [v["VersionId"] for v in pages("GetTableVersions", "TableVersions", DatabaseName="desk", TableName="trades", PaginationConfig=dict(PageSize=1))], ["2", "0"])
expect("a version", call("GetTableVersion", DatabaseName="desk", TableName="trades", VersionId="0")["TableVersion"]["Table"].get("Description"), None)
call("DeleteTableVersion", DatabaseName="desk", TableName="trades", VersionId="0")
expect("versions that are not there", call("BatchDeleteTableVersion", DatabaseName="desk", TableName="trades", VersionIds=["0"])["Errors"][0]["ErrorDetail"]["ErrorCode"], "EntityNotFoundException")
for name in ("one", "two"):
    call("CreateTable", DatabaseName="desk", TableInput=dict(Name=name))
expect("tables", [t["Name"] for t in pages("GetTables", "TableList", DatabaseName="desk", PaginationConfig=dict(PageSize=2))], ["one", "trades", "two"])
expect("tables by name", [t["Name"] for t in pages("GetTables", "TableList", DatabaseName="desk", Expression="t.*")], ["trades", "two"])
expect("found", [t["Name"] for t in call("SearchTables", SearchText="of a share", Filters=[dict(Key="DatabaseName", Value="desk")], SortCriteria=[dict(FieldName="Name", Sort="DESC")])["TableList"]], ["trades"])
call("DeleteTable", DatabaseName="desk", Name="one")
expect("tables that are not there", [e["TableName"] for e in call("BatchDeleteTable", DatabaseName="desk", TablesToDelete=["one", "two"])["Errors"]], ["one"])

# Iceberg tables.
call("CreateTable", DatabaseName="desk", TableInput=dict(Name="notes", Description="of Iceberg", StorageDescriptor=dict(Columns=[dict(Name="n", Type="bigint"), dict(Name="tags", Type="array<string>")])),
     OpenTableFormatInput=dict(IcebergInput=dict(MetadataOperation="CREATE", Version="2")))
t = call("GetTable", DatabaseName="desk", Name="notes")["Table"]
expect("Iceberg table", (t["TableType"], t["Parameters"]["table_type"], t["PartitionKeys"], [c["Type"] for c in t["StorageDescriptor"]["Columns"]]), ("EXTERNAL_TABLE", "ICEBERG", [], ["bigint", "array<string>"]))
expect("metadata", t["Parameters"]["metadata_location"].startswith(t["StorageDescriptor"]["Location"] + "/metadata/"), True)
expect("a stream's table", call("GetTable", DatabaseName="equities", Name="executions")["Table"]["Parameters"]["table_type"], "ICEBERG")
refused("partition of Iceberg", "InvalidInputException", "is an Iceberg table", "CreatePartition", DatabaseName="desk", TableName="notes", PartitionInput=dict(Values=["x"]))

# Partitions.
of = dict(DatabaseName="desk", TableName="trades")
call("CreatePartition", PartitionInput=dict(Values=["2026-11-20", "1"], StorageDescriptor=storage, Parameters=dict(a="b")), **of)
refused("partition twice", "AlreadyExistsException", "Partition already exists.", "CreatePartition", PartitionInput=dict(Values=["2026-11-20", "1"]), **of)
expect("no errors", call("BatchCreatePartition", PartitionInputList=[dict(Values=["2026-11-%02d" % (n % 28 + 1), str(n)]) for n in range(10, 100)], **of).get("Errors", []), [])
p = call("GetPartition", PartitionValues=["2026-11-20", "1"], **of)["Partition"]
expect("partition", (p["Values"], p["Parameters"], p["StorageDescriptor"]["Columns"], p["DatabaseName"], p["TableName"]), (["2026-11-20", "1"], dict(a="b"), storage["Columns"], "desk", "trades"))
expect("partitions", [p["Values"] for p in call("BatchGetPartition", PartitionsToGet=[dict(Values=["2026-11-20", "1"]), dict(Values=["2026-11-20", "2"])], **of)["Partitions"]], [["2026-11-20", "1"]])
expect("by expression", sorted(int(p["Values"][1]) for p in pages("GetPartitions", "Partitions", Expression="n < 20 and trade_date > '2026-11-05'", PaginationConfig=dict(PageSize=3), **of)), [1] + list(range(10, 20)))
segments = [sorted(int(p["Values"][1]) for p in pages("GetPartitions", "Partitions", Segment=dict(SegmentNumber=i, TotalSegments=4), **of)) for i in range(4)]
expect("segments", (sorted(sum(segments, [])), all(segments)), ([1] + list(range(10, 100)), True))
expect("without columns", [p["StorageDescriptor"].get("Columns") for p in pages("GetPartitions", "Partitions", Expression="n = 1", ExcludeColumnSchema=True, **of)], [None])
refused("bad expression", "InvalidInputException", "at character 5: \"one\" is no value of the key n", "GetPartitions", Expression="n = 'one'", **of)
call("UpdatePartition", PartitionValueList=["2026-11-20", "1"], PartitionInput=dict(Values=["2026-11-20", "2"]), **of)
refused("moved", "EntityNotFoundException", "Cannot find partition.", "GetPartition", PartitionValues=["2026-11-20", "1"], **of)
expect("updates", call("BatchUpdatePartition", Entries=[dict(PartitionValueList=["2026-11-20", "2"], PartitionInput=dict(Values=["2026-11-20", "3"])), dict(PartitionValueList=["2026-11-20", "1"], PartitionInput=dict(Values=["2026-11-20", "4"]))], **of)["Errors"][0]["PartitionValueList"], ["2026-11-20", "1"])
call("DeletePartition", PartitionValues=["2026-11-20", "3"], **of)
expect("deletes", call("BatchDeletePartition", PartitionsToDelete=[dict(Values=["2026-11-20", "3"])], **of)["Errors"][0]["ErrorDetail"]["ErrorCode"], "EntityNotFoundException")
expect("indexes", [(x["IndexName"], x["Keys"], x["IndexStatus"]) for x in pages("GetPartitionIndexes", "PartitionIndexDescriptorList", **of)], [("by_date", [dict(Name="trade_date", Type="date")], "ACTIVE")])
call("CreatePartitionIndex", PartitionIndex=dict(Keys=["n"], IndexName="by_n"), **of)
call("DeletePartitionIndex", IndexName="by_date", **of)
expect("indexes left", [x["IndexName"] for x in call("GetPartitionIndexes", **of)["PartitionIndexDescriptorList"]], ["by_n"])

# Statistics: numbers that a float does not hold come back as they went.
call("CreatePartition", PartitionInput=dict(Values=["2026-11-20", "1"]), **of)
at = datetime.datetime(2026, 11, 20, tzinfo=datetime.timezone.utc)
low = (-123456789012345678901234567890).to_bytes(13, "big", signed=True)
kinds = dict(
    DECIMAL=dict(DecimalColumnStatisticsData=dict(MinimumValue=dict(UnscaledValue=low, Scale=4), MaximumValue=dict(UnscaledValue=b"\x01", Scale=4), NumberOfNulls=0, NumberOfDistinctValues=2)),
    STRING=dict(StringColumnStatisticsData=dict(MaximumLength=9007199254740993, AverageLength=3.25, NumberOfNulls=0, NumberOfDistinctValues=1)),
    LONG=dict(LongColumnStatisticsData=dict(MinimumValue=-2**63, MaximumValue=2**63 - 1, NumberOfNulls=0, NumberOfDistinctValues=2)),
    DATE=dict(DateColumnStatisticsData=dict(MinimumValue=at, MaximumValue=at, NumberOfNulls=0, NumberOfDistinctValues=1)),
    BOOLEAN=dict(BooleanColumnStatisticsData=dict(NumberOfTrues=1, NumberOfFalses=2, NumberOfNulls=3)),
    DOUBLE=dict(DoubleColumnStatisticsData=dict(MinimumValue=-0.1, MaximumValue=1e300, NumberOfNulls=0, NumberOfDistinctValues=1)),
    BINARY=dict(BinaryColumnStatisticsData=dict(MaximumLength=1, AverageLength=0.5, NumberOfNulls=0)))
for who, more in (("Table", {}), ("Partition", dict(PartitionValues=["2026-11-20", "1"]))):
    for kind, data in kinds.items():
        s = dict(ColumnName="price", ColumnType="decimal(18,4)", AnalyzedTime=at, StatisticsData=dict(data, Type=kind))
        expect(f"{who} {kind}", call(f"UpdateColumnStatisticsFor{who}", ColumnStatisticsList=[s], **of, **more).get("Errors", []), [])
        r = call(f"GetColumnStatisticsFor{who}", ColumnNames=["price", "symbol"], **of, **more)
        expect(f"{who} {kind} read", r["ColumnStatisticsList"], [s])
        expect(f"{who} {kind} not there", [e["ColumnName"] for e in r["Errors"]], ["symbol"])
    call(f"DeleteColumnStatisticsFor{who}", ColumnName="price", **of, **more)
    refused(f"{who} statistics twice", "EntityNotFoundException", "Statistics do not exist", f"DeleteColumnStatisticsFor{who}", ColumnName="price", **of, **more)

# Tags.
call("TagResource", ResourceArn=arn + "table/desk/trades", TagsToAdd=dict(a="1", b="2"))
call("UntagResource", ResourceArn=arn + "table/desk/trades", TagsToRemove=["a"])
expect("tags", call("GetTags", ResourceArn=arn + "table/desk/trades")["Tags"], dict(b="2"))
expect("tags of the database", call("GetTags", ResourceArn=arn + "database/desk")["Tags"], dict(team="ops"))

# Crawlers: the folder is made by the test that runs this.
call("CreateClassifier", CsvClassifier=dict(Name="pipes", Delimiter="|", ContainsHeader="PRESENT"))
call("UpdateClassifier", CsvClassifier=dict(Name="pipes", QuoteSymbol="'"))
expect("classifier", {k: v for k, v in call("GetClassifier", Name="pipes")["Classifier"]["CsvClassifier"].items() if k in ("Delimiter", "QuoteSymbol", "Version")}, dict(Delimiter="|", QuoteSymbol="'", Version=2))
expect("classifiers", [c["CsvClassifier"]["Name"] for c in pages("GetClassifiers", "Classifiers")], ["pipes"])
call("CreateCrawler", Name="quotes", Role="role", DatabaseName="desk", Targets=dict(S3Targets=[dict(Path="s3://lake/boto/quotes/")]), Classifiers=["pipes"], Tags=dict(team="ops"))
refused("crawler twice", "AlreadyExistsException", "exists", "CreateCrawler", Name="quotes", Role="role", DatabaseName="desk", Targets=dict(S3Targets=[dict(Path="s3://lake/boto/quotes/")]))
call("UpdateCrawler", Name="quotes", Description="by boto3", SchemaChangePolicy=dict(UpdateBehavior="UPDATE_IN_DATABASE", DeleteBehavior="LOG"))
call("StartCrawler", Name="quotes")
for _ in range(600):
    crawler = call("GetCrawler", Name="quotes")["Crawler"]
    if crawler["State"] == "READY":
        break
    time.sleep(0.05)
expect("crawled", (crawler["LastCrawl"]["Status"], crawler["Description"], crawler["SchemaChangePolicy"]["DeleteBehavior"]), ("SUCCEEDED", "by boto3", "LOG"))
expect("crawled table", [(c["Name"], c["Type"]) for c in call("GetTable", DatabaseName="desk", Name="quotes")["Table"]["StorageDescriptor"]["Columns"]], [("symbol", "string"), ("lot", "bigint")])
expect("crawls", [(c["State"], json.loads(c["Summary"])["TABLE"]["ADD"]["Count"]) for c in call("ListCrawls", CrawlerName="quotes")["Crawls"]], [("COMPLETED", 1)])
expect("metrics", [m["TablesCreated"] for m in pages("GetCrawlerMetrics", "CrawlerMetricsList", CrawlerNameList=["quotes"])], [1])
expect("crawlers", [c["Name"] for c in pages("GetCrawlers", "Crawlers")], ["quotes"])
expect("crawlers by tag", call("ListCrawlers", Tags=dict(team="ops"))["CrawlerNames"], ["quotes"])
expect("crawlers by name", call("BatchGetCrawlers", CrawlerNames=["quotes", "none"])["CrawlersNotFound"], ["none"])
refused("stop", "CrawlerNotRunningException", "not running", "StopCrawler", Name="quotes")
call("UpdateCrawlerSchedule", CrawlerName="quotes", Schedule="cron(0 6 * * ? *)")
call("StopCrawlerSchedule", CrawlerName="quotes")
call("StartCrawlerSchedule", CrawlerName="quotes")
refused("scheduled twice", "SchedulerRunningException", "SCHEDULED", "StartCrawlerSchedule", CrawlerName="quotes")
call("DeleteCrawler", Name="quotes")
call("DeleteClassifier", Name="pipes")
refused("no crawler", "EntityNotFoundException", "not found", "GetCrawler", Name="quotes")

# The rest.
expect("import", call("GetCatalogImportStatus")["ImportStatus"]["ImportCompleted"], True)
expect("functions", pages("GetUserDefinedFunctions", "UserDefinedFunctions", Pattern="*"), [])
refused("function", "EntityNotFoundException", "Function f not found.", "GetUserDefinedFunction", DatabaseName="desk", FunctionName="f")
try:
    g.create_job(Name="j", Role="r", Command={})
    print("a job was created")
except g.exceptions.ClientError as e:
    expect("a job", (e.response["Error"]["Code"], "CreateJob is not supported: no jobs run here" in e.response["Error"]["Message"]), ("OperationNotSupportedException", True))
refused("a fed table", "InvalidInputException", "The table equities.executions cannot be deleted", "DeleteTable", DatabaseName="equities", Name="executions")
refused("a fed database", "InvalidInputException", "The database equities cannot be deleted", "DeleteDatabase", Name="equities")
call("DeleteDatabase", Name="desk")
refused("gone", "EntityNotFoundException", "Database desk not found.", "GetTables", DatabaseName="desk")
json.dump(sorted(done), sys.stderr)
