"""Holds answers against AWS's service model, as botocore has it: reads a list of
[operation, answer] and prints what in them is not what the model says, a line each."""
import json
import re
import sys

from botocore.model import ListShape, MapShape, StructureShape
from botocore.session import get_session

service = get_session().get_service_model("glue")


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
        for k, v in value.items():
            yield from faults(shape.key, k, path)
            yield from faults(shape.value, v, path)
    elif shape.type_name == "boolean":
        if not isinstance(value, bool):
            yield path + ": no boolean"
        return
    elif shape.type_name == "double" and value in ("NaN", "Infinity", "-Infinity"):
        return
    elif shape.type_name in ("integer", "long", "double", "timestamp"):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            yield path + ": no number"
            return
        if shape.type_name in ("integer", "long") and not isinstance(value, int):
            yield path + ": not whole"
    elif not isinstance(value, str):
        yield path + ": no string"
        return
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    size = value if isinstance(value, (int, float)) else len(value)
    if low is not None and size < float(low) or high is not None and size > float(high):
        yield "%s: %r is out of range" % (path, value)
    if isinstance(value, str):
        if getattr(shape, "enum", None) and value not in shape.enum:
            yield "%s: %r is no word of the enum" % (path, value)
        pattern = shape.metadata.get("pattern")
        if pattern and "\\p" not in pattern and "\\uD800" not in pattern and not re.fullmatch(pattern, value):
            yield "%s: %r does not match %s" % (path, value, pattern)


for operation, answer in json.load(sys.stdin):
    shape = service.operation_model(operation).output_shape
    for fault in faults(shape, answer, operation) if shape else []:
        print(fault)
