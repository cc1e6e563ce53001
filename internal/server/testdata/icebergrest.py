"""The Iceberg REST catalog with PyIceberg, as its users write it: MODE (token or
sigv4), URI, and perhaps properties as JSON; the access key from the environment. Prints what was not as it should
be, a line each, and last, to stderr, what it left in the tables, as JSON."""
import datetime
import decimal
import json
import os
import sys

import pyarrow as pa
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import (BadRequestError, CommitFailedException, ForbiddenError, NamespaceAlreadyExistsError, NamespaceNotEmptyError, NoSuchNamespaceError,
                                  NoSuchTableError, TableAlreadyExistsError, UnauthorizedError)
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import DateType, DecimalType, LongType, NestedField, StringType, TimestamptzType

mode, uri = sys.argv[1], sys.argv[2]
more = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
ns = "py_" + mode


def expect(what, have, want):
    if have != want:
        print(f"{what}: {have!r}, want {want!r}")


def refused(what, error, message, fn):
    try:
        print(f"{what}: was not refused but answered {fn()!r}")
    except error as e:
        if message not in str(e):
            print(f"{what}: {e}, want … {message} …")


def connect(secret):
    if mode == "token":
        return load_catalog("tapehouse", type="rest", uri=uri, credential=key + ":" + secret, warehouse="000000000000", **more)
    return load_catalog("tapehouse", type="rest", uri=uri, **{"rest.sigv4-enabled": "true", "rest.signing-name": "glue", "rest.signing-region": os.environ["AWS_REGION"],
                                                              "client.access-key-id": key, "client.secret-access-key": secret, **more})


def sums(table):
    return [len(table), sum(table["n"].to_pylist()), str(sum(v for v in table["price"].to_pylist() if v is not None))]


def rows(first, last, venue=None):
    n = list(range(first, last))
    columns = dict(n=pa.array(n, pa.int64()), note=pa.array([None if i % 4 == 0 else f"naïve {i}" for i in n], pa.string()),
                   price=pa.array([decimal.Decimal(i % 9000) + decimal.Decimal("0.0001") for i in n], pa.decimal128(9, 4)),
                   settled=pa.array([datetime.date(2026, 11, 1 + i % 3) for i in n], pa.date32()),
                   at=pa.array([datetime.datetime(2026, 11, 20, 9, 30, tzinfo=datetime.timezone.utc) + datetime.timedelta(microseconds=i) for i in n], pa.timestamp("us", tz="UTC")))
    fields = [pa.field("n", pa.int64(), False)] + [pa.field(k, columns[k].type) for k in ("note", "price", "settled", "at")]
    if venue:
        columns["venue"] = pa.array([venue] * len(n), pa.string())
        fields.append(pa.field("venue", pa.string()))
    return pa.Table.from_pydict(columns, pa.schema(fields))


schema = Schema(NestedField(1, "n", LongType(), required=True), NestedField(2, "note", StringType()), NestedField(3, "price", DecimalType(9, 4)),
                NestedField(4, "settled", DateType()), NestedField(5, "at", TimestamptzType()))

refused("a wrong secret", (UnauthorizedError, Exception), "", lambda: connect("wrong").list_namespaces())
c = connect(secret)
c.create_namespace(ns, {"owner": "desk"})
refused("the namespace again", NamespaceAlreadyExistsError, ns, lambda: c.create_namespace(ns))
expect("namespaces", (ns,) in c.list_namespaces(), True)
expect("properties", c.load_namespace_properties(ns), {"owner": "desk"})
c.update_namespace_properties(ns, removals={"owner"}, updates={"team": "x"})
expect("properties", c.load_namespace_properties(ns), {"team": "x"})

# Create, append, change the schema, delete, overwrite, travel in time.
t = c.create_table((ns, "trades"), schema, partition_spec=PartitionSpec(PartitionField(4, 1000, IdentityTransform(), "settled")))
refused("the table again", TableAlreadyExistsError, "trades", lambda: c.create_table((ns, "trades"), schema))
t.append(rows(0, 1000))
first = t.current_snapshot().snapshot_id
t.append(rows(1000, 1500))
with t.update_schema() as u:
    u.add_column("venue", StringType())
t.append(rows(1500, 2000, "XNYS"))
t.delete("n < 100")
t.overwrite(rows(100, 200, "XNAS"), overwrite_filter="n >= 100 and n < 200")
t.manage_snapshots().create_tag(first, "mine").commit()
expect("at the first snapshot", sums(t.scan(snapshot_id=first).to_arrow())[0], 1000)
expect("at the tag", sums(t.scan(snapshot_id=t.snapshot_by_name("mine").snapshot_id).to_arrow())[0], 1000)
t = c.load_table((ns, "trades"))
trades = sums(t.scan().to_arrow())
expect("trades", trades[:2], [1900, sum(range(100, 2000))])
expect("files of one partition", len({f.file.partition for f in t.scan(row_filter="settled = '2026-11-02'").plan_files()}), 1)

# A staged table, and two tables' worth of conflict.
with c.create_table_transaction((ns, "staged"), schema) as tx:
    refused("before the transaction", NoSuchTableError, "staged", lambda: c.load_table((ns, "staged")))
    tx.append(rows(0, 10))
staged = sums(c.load_table((ns, "staged")).scan().to_arrow())
a, b = c.load_table((ns, "staged")), c.load_table((ns, "staged"))
a.append(rows(10, 20))
try:
    b.append(rows(20, 30))  # a newer PyIceberg loads the table again by itself
except CommitFailedException:
    b.refresh()
    b.append(rows(20, 30))
staged = sums(c.load_table((ns, "staged")).scan().to_arrow())
expect("staged", staged[:2], [30, sum(range(30))])

# What Tapehouse wrote, read and appended to, beside the stream that feeds it.
m = c.load_table("public.mixed")
mixed = sums(m.scan().to_arrow())
m.append(pa.Table.from_pydict({"n": [1_000_000 if mode == "token" else 1_000_001]}, pa.schema([pa.field("n", pa.int64(), False)])))
refused("progress", BadRequestError, "Tapehouse's own", lambda: m.transaction().set_properties({"tapehouse.through": ""}).commit_transaction())
refused("rollback", BadRequestError, "main can only go on", lambda: m.manage_snapshots().set_current_snapshot(snapshot_id=m.metadata.snapshots[0].snapshot_id).commit())
refused("drop", BadRequestError, "stream", lambda: c.drop_table("public.mixed"))
refused("location", BadRequestError, "outside the lake", lambda: c.create_table((ns, "x"), schema, location="file:///tmp/x"))

# Rename, drop, take over again.
c.rename_table((ns, "staged"), (ns, "renamed"))
expect("exists", [c.table_exists((ns, "staged")), c.table_exists((ns, "renamed"))], [False, True])
at = c.load_table((ns, "renamed")).metadata_location
refused("a namespace with tables", NamespaceNotEmptyError, "not empty", lambda: c.drop_namespace(ns))
c.drop_table((ns, "renamed"))
refused("a dropped table", NoSuchTableError, "", lambda: c.load_table((ns, "renamed")))
again = c.register_table((ns, "staged"), at)
expect("registered", sums(again.scan().to_arrow()), staged)
c.create_table((ns, "empty"), schema)
c.purge_table((ns, "empty"))
expect("tables", sorted(n for _, n in c.list_tables(ns)), ["staged", "trades"])
refused("no namespace", NoSuchNamespaceError, "", lambda: c.list_tables("nowhere"))
print(json.dumps({"trades": trades, "staged": staged, "mixed": mixed}), file=sys.stderr)
