-- The legs behind one line of the member statement of the trade date $1: its
-- key is mpid $2, charge $3, fee code $4, tape $5, price band $6. Busted legs are
-- listed too, with what became of them, though they are in no sum.
WITH revision AS (
    SELECT match_number, leg, action, new_price, new_quantity, reason, known_at
    FROM (
        SELECT e.match_number, e.leg, c.action, c.new_price, c.new_quantity, c.reason, c.known_at,
               row_number() OVER (
                   PARTITION BY e.match_number, e.leg
                   ORDER BY CASE WHEN c.action = 'bust' THEN 0 ELSE 1 END,
                            c.known_at DESC, c.source, c.session DESC, c.epoch DESC, c.seq DESC) AS nth
        FROM equities.executions AS e
        JOIN equities.corrections AS c
          ON c.trade_date = e.trade_date
         AND c.match_number = e.match_number
         AND (c.leg IS NULL OR c.leg = e.leg)
        WHERE e.trade_date = CAST($1 AS DATE) AND e.mpid = $2
    ) AS ranked
    WHERE nth = 1
)
SELECT e.match_number, e.leg, e.executed_at, e.executed_at_ns, e.symbol, e.mpid, e.side, e.capacity,
       e.fee_code, COALESCE(e.tape, '?') AS tape, e.order_ref,
       COALESCE(r.new_quantity, e.quantity) AS quantity,
       COALESCE(r.new_price, e.price)       AS price,
       CAST(COALESCE(r.new_quantity, e.quantity) * COALESCE(r.new_price, e.price) AS DECIMAL(22,4)) AS notional,
       COALESCE(r.action, 'original')       AS standing,
       r.reason, r.known_at,
       e.source, e.session, e.epoch, e.seq, e.record_stream, e.record_offset
FROM equities.executions AS e
LEFT JOIN revision AS r
  ON r.match_number = e.match_number AND r.leg = e.leg
WHERE e.trade_date = CAST($1 AS DATE)
  AND e.mpid = $2
  AND (
      ($3 = 'transaction'
       AND e.fee_code = $4
       AND COALESCE(e.tape, '?') = $5
       AND CASE WHEN COALESCE(r.new_price, e.price) < 1 THEN 'under-1' ELSE 'over-1' END = $6)
      OR ($3 = 'section-31' AND e.side IN ('S', 'SS', 'SX'))
  )
ORDER BY e.executed_at_ns, e.match_number, e.leg
