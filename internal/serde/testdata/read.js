// Prints the figures of read.py for each Parquet file, by ClickHouse. It knows no
// null array and no null map: the counts of those are a dash.
"use strict";
const { query } = require("chdb");
const nanos = "toUnixTimestamp64Nano(ts)";
const exact = (list) => `sum(arraySum(arrayMap(v -> ifNull(toDecimal256(v, 2), toDecimal256(0, 2)), ${list})))`;
for (const path of process.argv.slice(2)) {
  console.log(query(`SELECT arrayStringConcat([toString(count()), toString(sum(toInt256(i))), toString(sum(toInt256(l))),
      toDecimalString(sum(toDecimal256(m, 9)), 9), toDecimalString(sum(toDecimal256(n, 4)), 4), toString(sum(length(x))), toString(sum(length(y))),
      toString(sum(toInt256(intDiv(${nanos} - positiveModulo(${nanos}, 1000), 1000)))),
      toString(sum(arraySum(arrayMap(v -> ifNull(toInt256(v), 0), a)))), '-', toDecimalString(${exact("mapValues(k)")}, 2), '-',
      toString(countIf(length(z.q) > 0 AND isNotNull(z.q[1].u)))], ' ')
    FROM file('${path}', Parquet) SETTINGS session_timezone = 'UTC'`, "TabSeparated").trim());
}
