// Prints what ClickHouse finds: a line of columns and sums, then a line a row.
//
// node -e read.js clickhouse FILE | clickhouse-iceberg DIRECTORY
"use strict";
const { query } = require("chdb");
const [kind, path] = process.argv.slice(1);
const quoted = "'" + path.replace(/[\\']/g, "\\$&") + "'";
const source = kind === "clickhouse" ? `file(${quoted}, Parquet)` : `icebergLocal(${quoted})`;
const settings = " SETTINGS max_threads = 1, input_format_parquet_preserve_order = 1, use_hive_partitioning = 0, session_timezone = 'UTC'";
const lines = (sql) => query(sql + settings, "JSONCompactEachRow").split("\n").filter((l) => l !== "");

const columns = [], values = [], sums = [];
for (const line of lines(`DESCRIBE TABLE ${source}`)) {
  const [name, type] = JSON.parse(line);
  const x = "`" + name.replace(/[\\`]/g, "\\$&") + "`";
  const t = type.replace(/^LowCardinality\((.*)\)$/, "$1").replace(/^Nullable\((.*)\)$/, "$1");
  const [, scale] = t.match(/^Decimal\(\d+, (\d+)\)$/) || [];
  columns.push(name);
  if (/^Int/.test(t)) sums.push([name, `toString(sumOrNull(toInt256(${x})))`]);
  if (scale !== undefined) sums.push([name, `toDecimalString(sumOrNull(toDecimal256(${x}, ${scale})), ${scale})`]);
  if (t === "Float64") values.push(`leftPad(lower(hex(reinterpretAsUInt64(${x}))), 16, '0')`);
  else if (t === "Date32") values.push(`toString(toInt32(${x}))`);
  else if (t.startsWith("DateTime64(6")) values.push(`toString(toUnixTimestamp64Micro(${x}))`);
  else if (t.startsWith("DateTime64(9")) values.push(`toString(intDiv(toUnixTimestamp64Nano(${x}) - positiveModulo(toUnixTimestamp64Nano(${x}), 1000), 1000))`);
  else if (scale !== undefined) values.push(`toDecimalString(${x}, ${scale})`);
  else if (t === "String" || t === "Bool" || /^Int/.test(t)) values.push(`toString(${x})`);
  else throw new Error(`${name}: what is ${type}?`);
}
const totals = JSON.parse(lines(`SELECT [${sums.map(([, e]) => `CAST(${e} AS Nullable(String))`).join(", ")}] FROM ${source}`)[0])[0];
const out = [JSON.stringify({ columns, sums: Object.fromEntries(sums.map(([name], i) => [name, totals[i] ?? ""])) })];
for (const line of lines(`SELECT [${values.map((e) => `CAST(${e} AS Nullable(String))`).join(", ")}] FROM ${source}`)) {
  out.push(JSON.stringify(JSON.parse(line)[0]));
}
process.stdout.write(out.join("\n") + "\n");
