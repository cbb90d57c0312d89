-- Every live payment is one row, with the same money per currency; and every row points at the version
-- of its customer that was in force at the attempt, at its method and day, and has its attributes, all
-- worked out here once more from ods. Returns (measure, left_value, right_value); a law holds where
-- both agree.
WITH source AS (
    SELECT
        currency::TEXT AS currency,
        count(*) AS payments,
        sum(amount) AS amount
    FROM ods.payments
    WHERE _deleted_at IS NULL
    GROUP BY 1
),

model AS (
    SELECT
        currency::TEXT AS currency,
        count(*) AS payments,
        sum(amount) AS amount
    FROM dwh.fact_payment
    GROUP BY 1
),

wrong AS (
    SELECT
        count(*) FILTER (WHERE payment.id IS NULL) AS payments,
        count(*) FILTER (WHERE fact.customer_key != coalesce(customer.customer_key, -1)) AS customers,
        count(*) FILTER (WHERE fact.payment_method_key != coalesce(method.payment_method_key, -1)) AS methods,
        count(*) FILTER (WHERE fact.date_key != coalesce(calendar.date_key, -1)) AS dates,
        count(*) FILTER (
            WHERE payment.id IS NOT NULL
            AND row(
                fact.order_id,
                fact.attempted_at,
                fact.settled_at,
                fact.status,
                fact.failure_reason,
                fact.amount,
                fact.currency,
                fact.business_date
            ) IS DISTINCT FROM row(
                payment.order_id,
                payment.attempted_at,
                payment.settled_at,
                payment.status,
                payment.failure_reason,
                payment.amount,
                payment.currency,
                (payment.attempted_at AT TIME ZONE 'Europe/Kyiv')::DATE
            )
        ) AS attributes
    FROM dwh.fact_payment AS fact
    LEFT JOIN ods.payments AS payment ON fact.payment_id = payment.id AND payment._deleted_at IS NULL
    LEFT JOIN ods.orders AS orders ON payment.order_id = orders.id AND orders._deleted_at IS NULL
    LEFT JOIN dwh.dim_customer AS customer
        ON
            orders.customer_id = customer.customer_id
            AND payment.attempted_at >= customer.valid_from
            AND payment.attempted_at < customer.valid_to
    LEFT JOIN dwh.dim_payment_method AS method ON payment.method_id = method.method_id
    LEFT JOIN dwh.dim_date AS calendar ON (payment.attempted_at AT TIME ZONE 'Europe/Kyiv')::DATE = calendar.date
)

SELECT
    'rows' AS measure,
    coalesce((SELECT sum(source.payments) FROM source), 0) AS left_value,
    coalesce((SELECT sum(model.payments) FROM model), 0) AS right_value
UNION ALL
SELECT
    'amount ' || coalesce(source.currency, model.currency) AS measure,
    coalesce(source.amount, 0) AS left_value,
    coalesce(model.amount, 0) AS right_value
FROM source
FULL JOIN model ON source.currency = model.currency
UNION ALL
SELECT
    measures.measure,
    0 AS left_value,
    measures.right_value
FROM wrong
CROSS JOIN LATERAL (
    VALUES
    ('rows of no live payment', wrong.payments),
    ('wrong customer_key', wrong.customers),
    ('wrong payment_method_key', wrong.methods),
    ('wrong date_key', wrong.dates),
    ('wrong attributes', wrong.attributes)
) AS measures (measure, right_value)
