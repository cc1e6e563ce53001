"""The Iceberg REST catalog with Spark's Iceberg connector: URI, the jars, MODE
(token, or sigv4 for a shorter way), the access key from the environment. Prints what was not as it
should be, and last, behind "RESULT ", what it left in the tables, as JSON."""
import json
import os
import sys

from pyspark.sql import SparkSession

uri, jars, mode = sys.argv[1:4]
ns = "spark_" + mode
key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
b = (SparkSession.builder.appName("tapehouse").master("local[2]").config("spark.ui.enabled", "false").config("spark.driver.memory", "1g").config("spark.driver.host", "127.0.0.1")
     .config("spark.driver.bindAddress", "127.0.0.1").config("spark.sql.shuffle.partitions", "2").config("spark.sql.session.timeZone", "UTC").config("spark.jars", jars)
     .config("spark.sql.extensions", "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions").config("spark.sql.catalog.th", "org.apache.iceberg.spark.SparkCatalog"))
options = {"type": "rest", "uri": uri, "cache-enabled": "false"}
if mode == "token":
    options.update({"credential": key + ":" + secret, "oauth2-server-uri": uri + "/v1/oauth/tokens", "scope": "catalog"})
else:
    options.update({"rest.auth.type": "sigv4", "rest.auth.sigv4.delegate-auth-type": "none", "rest.sigv4-enabled": "true", "rest.signing-name": "glue", "rest.signing-region": os.environ["AWS_REGION"],
                    "rest.access-key-id": key, "rest.secret-access-key": secret})
for k, v in options.items():
    b = b.config("spark.sql.catalog.th." + k, v)
s = b.getOrCreate()
s.sparkContext.setLogLevel("ERROR")


def rows(sql):
    return [tuple(r) for r in s.sql(sql).collect()]


def expect(what, have, want):
    if have != want:
        print(f"{what}: {have!r}, want {want!r}")


def refused(what, message, sql):
    try:
        print(f"{what}: was not refused but answered {rows(sql)!r}")
    except Exception as e:  # Spark wraps the catalog's
        if message not in str(e):
            print(f"{what}: {str(e)[:500]}, want … {message} …")


def sums(table, price="price"):
    n, total, price = rows(f"SELECT count(*), sum(n), sum({price}) FROM {table}")[0]
    return [n, total, str(price)]


def source(first, last):
    return f"SELECT id AS n, concat('note ', id) AS note, CAST(id % 9000 + 0.0001 AS decimal(9,4)) AS price, date_add(DATE'2026-11-01', CAST(id % 3 AS int)) AS settled FROM range({first}, {last})"


s.sql(f"CREATE NAMESPACE th.{ns} WITH PROPERTIES (team='desk')")
expect("namespaces", (ns,) in rows("SHOW NAMESPACES IN th"), True)
trades = f"th.{ns}.trades"
s.sql(f"CREATE TABLE {trades} (n bigint NOT NULL, note string, price decimal(9,4), settled date) USING iceberg PARTITIONED BY (settled)")
s.sql(f"INSERT INTO {trades} {source(0, 1000)}")
first = rows(f"SELECT snapshot_id FROM {trades}.snapshots")[0][0]
s.sql(f"INSERT INTO {trades} {source(1000, 2000)}")
s.sql(f"ALTER TABLE {trades} ADD COLUMN venue string")
s.sql(f"ALTER TABLE {trades} CREATE TAG mine AS OF VERSION {first}")


def change():
    s.sql(f"DELETE FROM {trades} WHERE n % 10 = 3")
    s.sql(f"UPDATE {trades} SET venue = 'XNYS', price = price + 1 WHERE n >= 1500")
    s.sql(f"MERGE INTO {trades} t USING (SELECT n + 995 AS n, 'merged' AS note, CAST(1 AS decimal(9,4)) AS price, DATE'2026-11-02' AS settled FROM ({source(1000, 1010)})) u ON t.n = u.n "
          "WHEN MATCHED THEN UPDATE SET t.note = u.note WHEN NOT MATCHED THEN INSERT (n, note, price, settled) VALUES (u.n, u.note, u.price, u.settled)")
    expect("position deletes", rows(f"SELECT count(*) > 0 FROM {trades}.delete_files WHERE content = 1")[0][0], True)
    expect("at the first snapshot", rows(f"SELECT count(*), sum(n) FROM {trades} VERSION AS OF {first}")[0], (1000, 499500))
    expect("at the tag", rows(f"SELECT count(*) FROM {trades} VERSION AS OF 'mine'")[0][0], 1000)
    before = sums(trades)
    s.sql(f"CALL th.system.rewrite_data_files(table => '{ns}.trades', options => map('rewrite-all', 'true'))")
    expect("rewritten", sums(trades), before)
    s.sql(f"ALTER TABLE {trades} ADD PARTITION FIELD bucket(4, n)")
    s.sql(f"INSERT INTO {trades} (n, note, price, settled) {source(3000, 3100)}")
    s.sql(f"CALL th.system.expire_snapshots(table => '{ns}.trades', older_than => TIMESTAMP '2100-01-01 00:00:00', retain_last => 2)")
    expect("the tag's snapshot stays", rows(f"SELECT count(*) FROM {trades} VERSION AS OF 'mine'")[0][0], 1000)


if mode == "token":
    change()
left = {"trades": sums(trades)}

# Create as select is a staged table; replace is a commit that changes all of it.
s.sql(f"CREATE TABLE th.{ns}.copied USING iceberg AS SELECT n, note, price FROM {trades} WHERE n < 500")
s.sql(f"CREATE OR REPLACE TABLE th.{ns}.copied USING iceberg AS SELECT n, price FROM {trades} WHERE n < 400")

# What Tapehouse wrote, read and appended to, beside the stream that feeds it.
left["mixed"] = sums("th.public.mixed")
s.sql(f"INSERT INTO th.public.mixed (n) VALUES ({2_000_000 if mode == 'token' else 2_000_001})")
if mode == "token":
    refused("progress", "Tapehouse's own", "ALTER TABLE th.public.mixed UNSET TBLPROPERTIES ('tapehouse.through')")
    refused("a column", "cannot be dropped", "ALTER TABLE th.public.mixed DROP COLUMN note")
    refused("rollback", "main can only go on", f"CALL th.system.set_current_snapshot(table => 'public.mixed', snapshot_id => {rows('SELECT snapshot_id FROM th.public.mixed.snapshots ORDER BY committed_at')[0][0]})")
    refused("drop", "stream", "DROP TABLE th.public.mixed")

s.sql(f"ALTER TABLE th.{ns}.copied RENAME TO {ns}.renamed")
expect("tables", sorted(r[1] for r in rows(f"SHOW TABLES IN th.{ns}")), ["renamed", "trades"])
if mode == "token":
    s.sql(f"CREATE TABLE th.{ns}.gone (a int) USING iceberg")
    s.sql(f"DROP TABLE th.{ns}.gone PURGE")
    refused("a namespace with tables", "not empty", f"DROP NAMESPACE th.{ns}")
    refused("no table", "TABLE_OR_VIEW_NOT_FOUND", f"SELECT * FROM th.{ns}.none")
s.sql(f"DELETE FROM th.{ns}.renamed WHERE n % 7 = 1")
expect("position deletes that stay", rows(f"SELECT count(*) > 0 FROM th.{ns}.renamed.delete_files WHERE content = 1")[0][0], True)
left["copied"] = sums(f"th.{ns}.renamed")
print("RESULT " + json.dumps(left))
s.stop()
