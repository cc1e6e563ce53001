-- The materialized views of the equities pack. All are kept by deltas and
-- always fresh at read.

-- What each member's MPID did on a trade date.
CREATE MATERIALIZED VIEW equities.member_daily_activity AUTO REFRESH YES AS
SELECT trade_date,
       mpid,
       fee_code,
       side,
       tape,
       count(*)              AS legs,
       sum(quantity)         AS shares,
       sum(quantity * price) AS notional
FROM equities.executions
GROUP BY trade_date, mpid, fee_code, side, tape;

-- Volume and prices of each symbol. Buy legs are counted, so that each share is
-- counted once; every execution has one first leg; routed fills were executed,
-- and are reported, elsewhere. VWAP is notional / volume.
CREATE MATERIALIZED VIEW equities.symbol_daily_stats AUTO REFRESH YES AS
SELECT trade_date,
       symbol,
       sum(CASE WHEN side = 'B' THEN quantity ELSE 0 END)         AS volume,
       sum(CASE WHEN side = 'B' THEN quantity * price ELSE 0 END) AS notional,
       sum(CASE WHEN leg = 1 THEN 1 ELSE 0 END)                   AS trades,
       max(price)                                                 AS high,
       min(price)                                                 AS low
FROM equities.executions
WHERE fee_code <> 'routed'
GROUP BY trade_date, symbol;

-- Month to date: what tiers are measured by.
CREATE MATERIALIZED VIEW equities.member_month_to_date AUTO REFRESH YES AS
SELECT CAST(date_trunc('month', trade_date) AS DATE) AS month,
       mpid,
       fee_code,
       count(*)              AS legs,
       sum(quantity)         AS shares,
       sum(quantity * price) AS notional
FROM equities.executions
GROUP BY CAST(date_trunc('month', trade_date) AS DATE), mpid, fee_code;
