-- What was executed on the trade date $1, by fee code, tape and side. Bought and
-- sold shares agree but for routed fills, whose other side is elsewhere.
SELECT fee_code,
       COALESCE(tape, '?')                          AS tape,
       side,
       count(*)                                     AS legs,
       count(DISTINCT mpid)                         AS mpids,
       count(DISTINCT symbol)                       AS symbols,
       CAST(sum(quantity) AS DECIMAL(20,0))         AS shares,
       CAST(sum(quantity * price) AS DECIMAL(22,4)) AS notional
FROM equities.executions
WHERE trade_date = CAST($1 AS DATE)
GROUP BY fee_code, COALESCE(tape, '?'), side
ORDER BY fee_code, tape, side
