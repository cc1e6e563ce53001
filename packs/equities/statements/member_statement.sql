-- The lines of every member's bill of the trade date $1.
--
-- A line is all legs of one MPID with one fee code, tape and price band; a
-- section-31 line is all of the MPID's sales. Busted executions are left out and
-- corrected ones taken as corrected, as far as the corrections table says so at
-- the snapshot that the statement reads. Amounts are exact DECIMAL: the line's
-- sum times the rate, rounded once, at the place and in the mode that the fee
-- declares. A positive amount is a charge, a negative one a rebate. A line
-- without a member, a rate or a rounding has a null there: it must not be billed.
WITH revision AS (
    -- The last word on each leg. A bust is final; a correction states what
    -- changes against the original execution.
    SELECT match_number, leg, action, new_price, new_quantity
    FROM (
        SELECT e.match_number, e.leg, c.action, c.new_price, c.new_quantity,
               row_number() OVER (
                   PARTITION BY e.match_number, e.leg
                   ORDER BY CASE WHEN c.action = 'bust' THEN 0 ELSE 1 END,
                            c.known_at DESC, c.source, c.session DESC, c.epoch DESC, c.seq DESC) AS nth
        FROM equities.executions AS e
        JOIN equities.corrections AS c
          ON c.trade_date = e.trade_date
         AND c.match_number = e.match_number
         AND (c.leg IS NULL OR c.leg = e.leg)
        WHERE e.trade_date = CAST($1 AS DATE)
    ) AS ranked
    WHERE nth = 1
),
leg AS (
    SELECT e.mpid,
           e.side,
           e.fee_code,
           COALESCE(e.tape, '?')                                AS tape,
           COALESCE(r.new_quantity, e.quantity)                 AS quantity,
           COALESCE(r.new_price, e.price)                       AS price
    FROM equities.executions AS e
    LEFT JOIN revision AS r
      ON r.match_number = e.match_number AND r.leg = e.leg
    WHERE e.trade_date = CAST($1 AS DATE)
      AND (r.action IS NULL OR r.action <> 'bust')
),
line AS (
    SELECT mpid,
           'transaction'                                             AS charge,
           fee_code,
           tape,
           CASE WHEN price < 1 THEN 'under-1' ELSE 'over-1' END      AS price_band,
           count(*)                                                  AS legs,
           CAST(sum(quantity) AS DECIMAL(20,0))                      AS shares,
           CAST(sum(quantity * price) AS DECIMAL(22,4))              AS notional
    FROM leg
    GROUP BY mpid, fee_code, tape, CASE WHEN price < 1 THEN 'under-1' ELSE 'over-1' END
    UNION ALL
    SELECT mpid,
           'section-31',
           '*',
           '*',
           '*',
           count(*),
           CAST(sum(quantity) AS DECIMAL(20,0)),
           CAST(sum(quantity * price) AS DECIMAL(22,4))
    FROM leg
    WHERE side IN ('S', 'SS', 'SX')
    GROUP BY mpid
),
rated AS (
    SELECT o.member_id, b.name AS member_name, b.billing_account,
           l.mpid, l.charge, l.fee_code, l.tape, l.price_band, l.legs, l.shares, l.notional,
           f.rate_type, f.rate, f.rounding_place, f.rounding_mode,
           CASE f.rate_type
               WHEN 'per_share'    THEN CAST(l.shares * CAST(f.rate AS DECIMAL(12,6)) AS DECIMAL(38,16))
               WHEN 'basis_points' THEN CAST(l.notional * CAST(f.rate AS DECIMAL(12,6)) * CAST('0.0001' AS DECIMAL(5,4)) AS DECIMAL(38,16))
               WHEN 'per_million'  THEN CAST(l.notional * CAST(f.rate AS DECIMAL(12,6)) * CAST('0.000001' AS DECIMAL(7,6)) AS DECIMAL(38,16))
           END AS exact
    FROM line AS l
    LEFT JOIN equities.mpids AS o
      ON o.mpid = l.mpid
     AND o.effective_from <= CAST($1 AS DATE)
     AND (o.effective_to IS NULL OR CAST($1 AS DATE) < o.effective_to)
    LEFT JOIN equities.members AS b
      ON b.member_id = o.member_id
     AND b.effective_from <= CAST($1 AS DATE)
     AND (b.effective_to IS NULL OR CAST($1 AS DATE) < b.effective_to)
    LEFT JOIN equities.fee_schedule AS f
      ON f.charge = l.charge
     AND f.fee_code = l.fee_code
     AND (f.tape = l.tape OR f.tape = '*')
     AND (f.price_band = l.price_band OR f.price_band = '*')
     AND f.effective_from <= CAST($1 AS DATE)
     AND (f.effective_to IS NULL OR CAST($1 AS DATE) < f.effective_to)
)
SELECT member_id, member_name, billing_account,
       mpid, charge, fee_code, tape, price_band, legs, shares, notional,
       rate_type, rate, rounding_place, rounding_mode,
       -- Half-even differs from half-up at a tie alone, where half of the value is
       -- rounded, then doubled, so that the last digit is even.
       CASE
           WHEN rounding_mode = 'half-up'   AND rounding_place = 2 THEN CAST(round(exact, 2) AS DECIMAL(18,4))
           WHEN rounding_mode = 'half-up'   AND rounding_place = 4 THEN CAST(round(exact, 4) AS DECIMAL(18,4))
           WHEN rounding_mode = 'half-even' AND rounding_place = 2 AND abs(exact * 100 - trunc(exact * 100)) <> CAST('0.5' AS DECIMAL(2,1)) THEN CAST(round(exact, 2) AS DECIMAL(18,4))
           WHEN rounding_mode = 'half-even' AND rounding_place = 2 THEN CAST(CAST(round(exact * 50, 0) AS DECIMAL(20,0)) * CAST('0.02' AS DECIMAL(3,2)) AS DECIMAL(18,4))
           WHEN rounding_mode = 'half-even' AND rounding_place = 4 AND abs(exact * 10000 - trunc(exact * 10000)) <> CAST('0.5' AS DECIMAL(2,1)) THEN CAST(round(exact, 4) AS DECIMAL(18,4))
           WHEN rounding_mode = 'half-even' AND rounding_place = 4 THEN CAST(CAST(round(exact * 5000, 0) AS DECIMAL(20,0)) * CAST('0.0002' AS DECIMAL(5,4)) AS DECIMAL(18,4))
           WHEN rounding_mode = 'down'      AND rounding_place = 2 THEN CAST(CAST(trunc(exact * 100) AS DECIMAL(20,0)) * CAST('0.01' AS DECIMAL(3,2)) AS DECIMAL(18,4))
           WHEN rounding_mode = 'down'      AND rounding_place = 4 THEN CAST(CAST(trunc(exact * 10000) AS DECIMAL(20,0)) * CAST('0.0001' AS DECIMAL(5,4)) AS DECIMAL(18,4))
       END AS amount
FROM rated
ORDER BY member_id, mpid, charge, fee_code, tape, price_band
