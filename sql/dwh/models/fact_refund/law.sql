-- Every live refund is one row, with the same money per currency; and every row points at the version
-- of its customer that was in force at the refund, at its payment's method and its day, and has its
-- attributes, all worked out here once more from ods. Returns (measure, left_value, right_value); a law
-- holds where both agree.
WITH source AS (
    SELECT
        currency::TEXT AS currency,
        count(*) AS refunds,
        sum(amount) AS amount
    FROM ods.refunds
    WHERE _deleted_at IS NULL
    GROUP BY 1
),

model AS (
    SELECT
        currency::TEXT AS currency,
        count(*) AS refunds,
        sum(amount) AS amount
    FROM dwh.fact_refund
    GROUP BY 1
),

wrong AS (
    SELECT
        count(*) FILTER (WHERE refund.id IS NULL) AS refunds,
        count(*) FILTER (WHERE fact.customer_key != coalesce(customer.customer_key, -1)) AS customers,
        count(*) FILTER (WHERE fact.payment_method_key != coalesce(method.payment_method_key, -1)) AS methods,
        count(*) FILTER (WHERE fact.date_key != coalesce(calendar.date_key, -1)) AS dates,
        count(*) FILTER (
            WHERE refund.id IS NOT NULL
            AND row(
                fact.payment_id,
                fact.refunded_at,
                fact.amount,
                fact.currency,
                fact.reason,
                fact.order_id,
                fact.business_date
            ) IS DISTINCT FROM row(
                refund.payment_id,
                refund.refunded_at,
                refund.amount,
                refund.currency,
                refund.reason,
                payment.order_id,
                (refund.refunded_at AT TIME ZONE 'Europe/Kyiv')::DATE
            )
        ) AS attributes
    FROM dwh.fact_refund AS fact
    LEFT JOIN ods.refunds AS refund ON fact.refund_id = refund.id AND refund._deleted_at IS NULL
    LEFT JOIN ods.payments AS payment ON refund.payment_id = payment.id AND payment._deleted_at IS NULL
    LEFT JOIN ods.orders AS orders ON payment.order_id = orders.id AND orders._deleted_at IS NULL
    LEFT JOIN dwh.dim_customer AS customer
        ON
            orders.customer_id = customer.customer_id
            AND refund.refunded_at >= customer.valid_from
            AND refund.refunded_at < customer.valid_to
    LEFT JOIN dwh.dim_payment_method AS method ON payment.method_id = method.method_id
    LEFT JOIN dwh.dim_date AS calendar ON (refund.refunded_at AT TIME ZONE 'Europe/Kyiv')::DATE = calendar.date
)

SELECT
    'rows' AS measure,
    coalesce((SELECT sum(source.refunds) FROM source), 0) AS left_value,
    coalesce((SELECT sum(model.refunds) FROM model), 0) AS right_value
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
    ('rows of no live refund', wrong.refunds),
    ('wrong customer_key', wrong.customers),
    ('wrong payment_method_key', wrong.methods),
    ('wrong date_key', wrong.dates),
    ('wrong attributes', wrong.attributes)
) AS measures (measure, right_value)
