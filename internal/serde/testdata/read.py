"""Prints one line of figures for each Parquet file: read.py duckdb|pyarrow FILE..."""
import sys
from decimal import Decimal, getcontext

getcontext().prec = 200


def duckdb_rows(path):
    import duckdb
    con = duckdb.connect()
    con.execute("SET TimeZone='UTC'")
    return con.execute(
        "SELECT i, l, m, n, x, y, epoch_us(ts) AS ts, a, k, z.q[1].u FROM read_parquet(?)", [path]).fetchall()


def pyarrow_rows(path):
    import pyarrow.parquet as pq
    out = []
    table = pq.read_table(path)
    ts = table.column("ts").cast("int64").to_pylist()
    for r, nanos in zip(rows_without(table, "ts", "e"), ts):
        q = (r["z"] or {}).get("q") or []
        out.append((r["i"], r["l"], r["m"], r["n"], r["x"], r["y"], None if nanos is None else nanos // 1000,
                    r["a"], None if r["k"] is None else dict(r["k"]), q[0]["u"] if q else None))
    return out


def rows_without(table, *names):
    """The rows without columns whose values Python's datetime does not hold."""
    import pyarrow as pa
    z = table.column("z").combine_chunks()
    table = table.drop_columns(list(names))
    q = z.field("q")
    table = table.set_column(table.column_names.index("z"), "z", pa.StructArray.from_arrays(
        [z.field("p"), pa.ListArray.from_arrays(
            q.offsets, pa.StructArray.from_arrays([q.values.field("u")], ["u"]), mask=q.is_null())], ["p", "q"], mask=z.is_null()))
    return table.to_pylist()


def figures(rows):
    known = lambda i: [r[i] for r in rows if r[i] is not None]
    maps = known(8)
    return " ".join(str(v) for v in [
        len(rows), sum(known(0)), sum(known(1)), sum(known(2), Decimal(0)), sum(known(3), Decimal(0)),
        sum(len(s.encode()) for s in known(4)), sum(len(s) for s in known(5)), sum(known(6)),
        sum(x for a in known(7) for x in a if x is not None), sum(1 for a in known(7)),
        sum((v for m in maps for v in m.values() if v is not None), Decimal(0)), len(maps), len(known(9))])


for path in sys.argv[2:]:
    print(figures({"duckdb": duckdb_rows, "pyarrow": pyarrow_rows}[sys.argv[1]](path)))
