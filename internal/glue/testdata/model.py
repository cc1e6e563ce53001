"""Prints what AWS's service model says of Glue: with operations as arguments, what
they take, as internal/glue/model.txt has it; without, the names of all operations."""
import sys

from botocore.session import get_session

model = get_session().get_service_model("glue")
names = sys.argv[1:]
if not names:
    print("\n".join(model.operation_names))
    sys.exit()

shapes = {}


def describe(shape):
    if shape.name in shapes:
        return
    shapes[shape.name] = None
    bounds = [str(shape.metadata.get(k, "-")) for k in ("min", "max")]
    kind = shape.type_name
    if kind == "structure":
        if shape.metadata.get("document") or getattr(shape, "is_document_type", False):
            shapes[shape.name] = "document " + shape.name
            return
        lines = ["structure " + shape.name]
        for name, member in shape.members.items():
            lines.append("  %s%s %s" % (name, "!" if name in shape.required_members else "", member.name))
            describe(member)
        shapes[shape.name] = "\n".join(lines)
    elif kind == "list":
        shapes[shape.name] = " ".join(["list", shape.name] + bounds + [shape.member.name])
        describe(shape.member)
    elif kind == "map":
        shapes[shape.name] = " ".join(["map", shape.name] + bounds + [shape.key.name, shape.value.name])
        describe(shape.key)
        describe(shape.value)
    elif kind == "string" and shape.enum:
        shapes[shape.name] = " ".join(["enum", shape.name] + shape.enum)
    elif kind == "string":
        shapes[shape.name] = " ".join(["string", shape.name] + bounds + [shape.metadata.get("pattern", "")]).rstrip()
    else:
        shapes[shape.name] = " ".join([kind, shape.name] + bounds)


print("# What the operations of AWS Glue (2017-03-31) take, made by testdata/model.py: a")
print("# member that is required has a !, bounds are the least and the greatest.")
for name in sorted(names):
    operation = model.operation_model(name)
    describe(operation.input_shape)
    print("operation", name, operation.input_shape.name)
for name in sorted(shapes):
    print(shapes[name])
