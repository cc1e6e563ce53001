"""Holds the front door against AWS's own service model, as botocore has it.

Prints one JSON object:
  members:  shape → its members
  breaches: for every constraint of a member that is carried out, a request that
            breaks it and nothing else, with the path and the words to expect
Reads from standard input a list of DescribeDeliveryStream answers and adds
  faults:   where one of them is not what the model says
"""
import copy, json, re, sys
import botocore.session
from botocore.model import ListShape, MapShape, StructureShape

service = botocore.session.get_session().get_service_model("firehose")
REFUSED = ("Redshift", "Elasticsearch", "Amazonopensearchservice", "AmazonOpenSearchServerless", "Splunk", "HttpEndpoint", "Snowflake",
           "KinesisStreamSource", "MSKSource", "DatabaseSource")

def carried(name):
    return not name.startswith(REFUSED)

def camel(name):
    return name[0].lower() + name[1:]

SAMPLES = {"RoleARN": "arn:aws:iam::000000000000:role/r", "BucketARN": "arn:aws:s3:::b", "ProcessorType": "Lambda", "KeyType": "AWS_OWNED_CMK",
           "ProcessorParameterName": "LambdaArn", "AWSKMSKeyARN": "arn:aws:kms:us-east-1:000000000000:key/0", "DestinationId": "d", "DeliveryStreamVersionId": "1"}

def least(shape):
    """The least valid value of a shape."""
    if isinstance(shape, StructureShape):
        return {m: least(shape.members[m]) for m in shape.required_members}
    if isinstance(shape, ListShape):
        return [least(shape.member)]
    if isinstance(shape, MapShape):
        return {}
    if shape.name in SAMPLES:
        return SAMPLES[shape.name]
    if shape.type_name == "boolean":
        return True
    if shape.type_name in ("integer", "double"):
        return shape.metadata.get("min", 1)
    return "x"

LONG = {"RoleARN": lambda n: SAMPLES["RoleARN"] + "r" * (n - 32), "AWSKMSKeyARN": lambda n: SAMPLES["AWSKMSKeyARN"] + "0" * n,
        "BucketARN": None, "GlueDataCatalogARN": lambda n: "arn:aws:glue:r:000000000000:catalog/" + "a" * n, "WarehouseLocation": lambda n: "s3://" + "a" * n,
        "DeliveryStreamVersionId": lambda n: "1" * n, "FileExtension": lambda n: "." + "a" * n, "LogStreamName": lambda n: "a" * n}

def breaches(shape):
    """(value, words) for each constraint of a scalar or list."""
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if shape.type_name in ("integer", "double"):
        if low is not None:
            yield low - 1, "Member must have value greater than or equal to %d" % low
        if high is not None:
            yield high + 1, "Member must have value less than or equal to %d" % high
    elif isinstance(shape, ListShape):
        if low:
            yield [], "Member must have length greater than or equal to %d" % low
        if high is not None:
            yield [least(shape.member)] * (high + 1), "Member must have length less than or equal to %d" % high
    elif shape.type_name == "string":
        if shape.enum:
            yield "no such word", "Member must satisfy enum value set: ["
            return
        make = LONG.get(shape.name, lambda n: "x" * n)
        if high is not None and make:
            yield make(high + 1), "Member must have length less than or equal to %d" % high
        pattern = shape.metadata.get("pattern")
        if pattern:
            bad = next((v for v in ("a\nb", " ", "ä<\n") if not re.fullmatch(pattern.replace(r"\p{L}", "a-zA-Z").replace(r"\p{Z}", " ").replace(r"\p{N}", "0-9"), v)), None)
            if bad:
                yield bad, "Member must satisfy regular expression pattern: "

def walk(shape, path, put, found):
    """put(value) is the request with value at this place."""
    for value, words in breaches(shape):
        found.append({"body": put(value), "path": path, "words": words})
    if isinstance(shape, StructureShape):
        for name, m in shape.members.items():
            if not carried(name):
                continue
            base = least(shape)
            def inner(value, name=name, base=base):
                out = copy.deepcopy(base)
                out[name] = value
                return put(out)
            walk(m, (path + "." if path else "") + camel(name), inner, found)
            if name in shape.required_members:
                out = copy.deepcopy(base)
                del out[name]
                found.append({"body": put(out), "path": (path + "." if path else "") + camel(name), "words": "Member must not be null"})
    elif isinstance(shape, ListShape):
        walk(shape.member, path + ".1.member", lambda value: put([value]), found)

def shapes(shape, found):
    if isinstance(shape, StructureShape):
        if shape.name in found:
            return
        found[shape.name] = [m for m in shape.members if carried(m)]
        for name, m in shape.members.items():
            if carried(name):
                shapes(m, found)
    elif isinstance(shape, (ListShape,)):
        shapes(shape.member, found)

def faults(shape, value, path):
    if isinstance(shape, StructureShape):
        if not isinstance(value, dict):
            yield path + ": no structure"
            return
        for name in value:
            if name not in shape.members:
                yield path + "." + name + ": unknown member"
        for name in shape.required_members:
            if name not in value:
                yield path + "." + name + ": missing"
        for name, m in shape.members.items():
            if name in value:
                yield from faults(m, value[name], path + "." + name)
        return
    if isinstance(shape, ListShape):
        if not isinstance(value, list):
            yield path + ": no list"
            return
        for i, v in enumerate(value):
            yield from faults(shape.member, v, path + "." + str(i))
    elif isinstance(shape, MapShape):
        if not isinstance(value, dict):
            yield path + ": no map"
            return
        for v in value.values():
            yield from faults(shape.value, v, path)
    elif shape.type_name == "boolean":
        if not isinstance(value, bool):
            yield path + ": no boolean"
        return
    elif shape.type_name in ("integer", "double", "timestamp"):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            yield path + ": no number"
            return
    elif not isinstance(value, str):
        yield path + ": no string"
        return
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    size = value if isinstance(value, (int, float)) else len(value)
    if shape.type_name != "timestamp" and (low is not None and size < low or high is not None and size > high):
        yield "%s: %r is out of range" % (path, value)
    if isinstance(value, str):
        if shape.enum and value not in shape.enum:
            yield "%s: %r is no word of the enum" % (path, value)
        pattern = shape.metadata.get("pattern")
        if pattern and "\\p" not in pattern and not re.fullmatch(pattern, value):
            yield "%s: %r does not match %s" % (path, value, pattern)

out = {"members": {}, "breaches": {}, "faults": []}
for name in service.operation_names:
    if name.startswith("Put"):
        continue
    operation = service.operation_model(name)
    shapes(operation.input_shape, out["members"])
    shapes(operation.output_shape, out["members"])
    found = []
    walk(operation.input_shape, "", lambda value: value, found)
    out["breaches"][name] = found
describe = service.operation_model("DescribeDeliveryStream").output_shape
for answer in json.load(sys.stdin):
    out["faults"] += faults(describe, answer, answer["DeliveryStreamDescription"]["DeliveryStreamName"])
json.dump(out, sys.stdout)
