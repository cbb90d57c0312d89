-- Every attempt to pay is in the mart, ended as it did, with the same money per currency. Returns
-- (measure, left_value, right_value) as text, fact against mart; a law holds where both agree.
WITH fact AS (
    SELECT
        currency,
        count() AS attempts,
        countIf(status = 'succeeded') AS succeeded,
        countIf(status = 'failed') AS failed,
        sum(amount) AS attempted_amount,
        sumIf(amount, status = 'succeeded') AS paid_amount
    FROM dwh.fact_payment
    GROUP BY currency
),

mart AS (
    SELECT
        currency,
        sum(attempts) AS attempts,
        sum(succeeded) AS succeeded,
        sum(failed) AS failed,
        sum(attempted_amount) AS attempted_amount,
        sum(paid_amount) AS paid_amount
    FROM dwh.mart_payment_conversion
    GROUP BY currency
)

SELECT
    'rows' AS measure,
    (SELECT toString(sum(fact.attempts)) FROM fact) AS left_value,
    (SELECT toString(sum(mart.attempts)) FROM mart) AS right_value
UNION ALL
SELECT
    concat(law.1, ' ', if(fact.currency = '', mart.currency, fact.currency)) AS measure,
    law.2 AS left_value,
    law.3 AS right_value
FROM fact
FULL JOIN mart ON fact.currency = mart.currency
ARRAY JOIN
    [
        ('succeeded', toString(fact.succeeded), toString(mart.succeeded)),
        ('failed', toString(fact.failed), toString(mart.failed)),
        ('attempted_amount', toString(fact.attempted_amount), toString(mart.attempted_amount)),
        ('paid_amount', toString(fact.paid_amount), toString(mart.paid_amount))
    ] AS law
