"""Every operation with boto3, as its users write it: configured by the environment,
checked by its own model, errors caught by their class. Prints what was not as it
should be, a line each, and last the operations that the model has."""
import json
import sys
import boto3

f = boto3.client("firehose")
model = f.meta.service_model
done = set()


def expect(what, have, want):
    if have != want:
        print(f"{what}: {have!r}, want {want!r}")


def call(operation, **args):
    done.add(operation)
    r = f._make_api_call(operation, args) if operation not in names else getattr(f, names[operation])(**args)
    r.pop("ResponseMetadata")
    return r


def refused(what, error, message, operation, **args):
    try:
        print(f"{what}: was not refused but answered {call(operation, **args)!r}")
    except getattr(f.exceptions, error) as e:
        if message not in str(e):
            print(f"{what}: {e}, want … {message} …")
        expect(what + ": message", bool(e.response.get("message") or e.response["Error"]["Message"]), True)
        expect(what + ": request id", bool(e.response["ResponseMetadata"].get("RequestId")), True)


names = {v: k for k, v in f.meta.method_to_api_mapping.items()}
role = "arn:aws:iam::000000000000:role/tapehouse"
objects = dict(RoleARN=role, BucketARN="arn:aws:s3:::archive", Prefix="o/")
table = dict(RoleARN=role, CatalogConfiguration=dict(CatalogARN="arn:aws:glue:us-east-1:000000000000:catalog"),
             DestinationTableConfigurationList=[dict(DestinationDatabaseName="equities", DestinationTableName="notes")],
             S3Configuration=dict(RoleARN=role, BucketARN="arn:aws:s3:::lake"))
arn = "arn:aws:firehose:us-east-1:000000000000:deliverystream/"

for name, destination in ("z-objects", dict(ExtendedS3DestinationConfiguration=objects)), ("z-table", dict(IcebergDestinationConfiguration=table)):
    s = dict(DeliveryStreamName=name)
    kind = next(iter(destination)).replace("Configuration", "")
    expect("create", call("CreateDeliveryStream", DeliveryStreamType="DirectPut", Tags=[dict(Key="a", Value="1")], **destination, **s), dict(DeliveryStreamARN=arn + name))
    refused("create again", "ResourceInUseException", f"Firehose {name} under accountId 000000000000 already exists", "CreateDeliveryStream", **destination, **s)
    d = call("DescribeDeliveryStream", **s)["DeliveryStreamDescription"]
    expect("status", (d["DeliveryStreamStatus"], d["VersionId"], d["DeliveryStreamType"], d["HasMoreDestinations"], d["DeliveryStreamEncryptionConfiguration"]),
           ("ACTIVE", "1", "DirectPut", False, {"Status": "DISABLED"}))
    there = dict(CurrentDeliveryStreamVersionId="1", DestinationId=d["Destinations"][0]["DestinationId"])
    hints = dict(SizeInMBs=9, IntervalInSeconds=61)
    expect("update", call("UpdateDestination", **{kind + "Update": dict(BufferingHints=hints)}, **there, **s), {})
    refused("update again", "ConcurrentModificationException", "current version id: 2 and specified version id: 1 do not match", "UpdateDestination", **{kind + "Update": dict(BufferingHints=hints)}, **there, **s)
    d = call("DescribeDeliveryStream", **s)["DeliveryStreamDescription"]
    expect("updated", (d["VersionId"], d["Destinations"][0][kind + "Description"]["BufferingHints"], d["LastUpdateTimestamp"] >= d["CreateTimestamp"]), ("2", hints, True))

    expect("tag", call("TagDeliveryStream", Tags=[dict(Key=f"k{i:02}", Value=str(i)) for i in range(40)], **s), {})
    refused("51 tags", "LimitExceededException", "50 tags", "TagDeliveryStream", Tags=[dict(Key=f"x{i}") for i in range(10)], **s)
    expect("untag", call("UntagDeliveryStream", TagKeys=["k00", "nothing"], **s), {})
    keys, page = [], {}
    while True:
        r = call("ListTagsForDeliveryStream", Limit=7, **page, **s)
        keys += [t["Key"] for t in r["Tags"]]
        if not r["HasMoreTags"]:
            break
        page = dict(ExclusiveStartTagKey=keys[-1])
    expect("tags by pages", keys, ["a"] + [f"k{i:02}" for i in range(1, 40)])

    refused("start encryption", "InvalidArgumentException", "Server-side encryption is not supported", "StartDeliveryStreamEncryption", **s)
    refused("start encryption by a key", "InvalidKMSResourceException", "cannot be used", "StartDeliveryStreamEncryption",
            DeliveryStreamEncryptionConfigurationInput=dict(KeyType="CUSTOMER_MANAGED_CMK", KeyARN="arn:aws:kms:us-east-1:000000000000:key/0"), **s)
    expect("stop encryption", call("StopDeliveryStreamEncryption", **s), {})

    r = call("PutRecord", Record=dict(Data=b'{"n":1,"note":"one"}'), **s)
    expect("put", (bool(r["RecordId"]), r["Encrypted"]), (True, False))
    r = call("PutRecordBatch", Records=[dict(Data=json.dumps(dict(n=n)).encode()) for n in range(2, 502)], **s)
    expect("batch", (r["FailedPutCount"], r["Encrypted"], len({x["RecordId"] for x in r["RequestResponses"]})), (0, False, 500))
    refused("large batch", "InvalidArgumentException", "Records size exceeds 4 MB limit", "PutRecordBatch", Records=[dict(Data=b"x" * 1000000)] * 5, **s)
    if name == "z-objects":  # this stream has a quota
        refused("above the quota", "ServiceUnavailableException", "Slow down.", "PutRecordBatch", Records=[dict(Data=b"{}")] * 500, **s)

streams, page = [], {}
while True:
    r = call("ListDeliveryStreams", Limit=2, **page)
    streams += r["DeliveryStreamNames"]
    if not r["HasMoreDeliveryStreams"]:
        break
    page = dict(ExclusiveStartDeliveryStreamName=streams[-1])
expect("streams by pages", (streams == sorted(streams), streams[-2:]), (True, ["z-objects", "z-table"]))
expect("streams of another type", call("ListDeliveryStreams", DeliveryStreamType="KinesisStreamAsSource"), dict(DeliveryStreamNames=[], HasMoreDeliveryStreams=False))

for name in "z-objects", "z-table":
    expect("delete", call("DeleteDeliveryStream", DeliveryStreamName=name), {})
for operation, args in (("DescribeDeliveryStream", {}), ("DeleteDeliveryStream", {}), ("PutRecord", dict(Record=dict(Data=b"{}"))), ("ListTagsForDeliveryStream", {}),
                        ("TagDeliveryStream", dict(Tags=[dict(Key="a")])), ("UntagDeliveryStream", dict(TagKeys=["a"])), ("StopDeliveryStreamEncryption", {})):
    refused(operation + " of what was deleted", "ResourceNotFoundException", "Firehose z-table under account 000000000000 not found.", operation, DeliveryStreamName="z-table", **args)

# What a newer botocore may bring is to be tried too.
expect("operations tried", sorted(done), sorted(model.operation_names))
expect("paginators", [n for n in f.meta.method_to_api_mapping if f.can_paginate(n)], [])
expect("waiters", f.waiter_names, [])
print(json.dumps(sorted(names[o].replace("_", "-") for o in model.operation_names)), file=sys.stderr)
