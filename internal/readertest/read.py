"""Prints what a reader finds: a line of columns and sums, then a line a row.

read.py pyarrow FILE | duckdb FILE | pyiceberg DATABASE CATALOG TABLE
"""
import json
import struct
import sys
from decimal import Decimal


def text(value):
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return struct.pack(">d", value).hex()
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value)


def show(columns, sums, rows):
    out = [json.dumps({"columns": columns, "sums": sums})]
    out.extend(json.dumps([text(v) for v in row], ensure_ascii=False) for row in rows)
    sys.stdout.reconfigure(encoding="utf-8")
    sys.stdout.write("\n".join(out) + "\n")


def arrow(table):
    import pyarrow as pa
    import pyarrow.compute as pc
    sums, columns = {}, []
    for field in table.schema:
        c = table.column(field.name)
        if pa.types.is_integer(field.type):  # exactly: a sum of int64 wraps
            total = pc.sum(c.cast(pa.decimal128(19, 0)).cast(pa.decimal256(76, 0))).as_py()
            sums[field.name] = "" if total is None else text(total)
        elif pa.types.is_decimal(field.type):
            total = pc.sum(c.cast(pa.decimal256(76, field.type.scale))).as_py()
            sums[field.name] = "" if total is None else text(total)
        elif pa.types.is_timestamp(field.type):
            c = c.cast(pa.timestamp("us", field.type.tz), safe=False).cast(pa.int64())
        elif pa.types.is_date(field.type):
            c = c.cast(pa.int32())
        columns.append(c.to_pylist())
    show(table.schema.names, sums, zip(*columns))


def pyarrow(path):
    import pyarrow.parquet as pq
    # ParquetFile, not read_table: a directory named k=v is no column of the file.
    with pq.ParquetFile(path, page_checksum_verification=True) as f:
        arrow(f.read())


def pyiceberg(database, catalog, table):
    from pyiceberg.catalog.sql import SqlCatalog
    uri = database if "://" in database else "sqlite:///" + database
    arrow(SqlCatalog(catalog, uri=uri).load_table(table).scan().to_arrow())


def duckdb(path):
    import duckdb as db
    con = db.connect()
    con.execute("SET TimeZone='UTC'; SET preserve_insertion_order=true")
    source = "read_parquet(?, hive_partitioning=false)"
    names, expressions, totals = [], [], []
    for name, kind, *_ in con.execute("DESCRIBE SELECT * FROM " + source, [path]).fetchall():
        column = '"' + name.replace('"', '""') + '"'
        names.append(name)
        if kind.startswith("TIMESTAMP"):
            expressions.append(f"epoch_us({column})")
        elif kind == "DATE":
            expressions.append(f"{column} - DATE '1970-01-01'")
        else:
            expressions.append(column)
        if kind in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT") or kind.startswith("DECIMAL"):
            totals.append((name, f"sum({column})::VARCHAR"))
    sums = con.execute(f"SELECT {', '.join(e for _, e in totals)} FROM {source}", [path]).fetchone()
    rows = con.execute(f"SELECT {', '.join(expressions)} FROM {source}", [path]).fetchall()
    show(names, {name: v or "" for (name, _), v in zip(totals, sums)}, rows)


{"pyarrow": pyarrow, "duckdb": duckdb, "pyiceberg": pyiceberg}[sys.argv[1]](*sys.argv[2:])
