-- One row an attempt to pay.
-- Only rows that differ are touched, so publishing the same increment again changes nothing.
INSERT INTO dwh.fact_payment AS target (
    payment_id,
    order_id,
    customer_key,
    payment_method_key,
    date_key,
    business_date,
    attempted_at,
    settled_at,
    status,
    failure_reason,
    amount,
    currency
)
SELECT
    payment_id,
    order_id,
    customer_key,
    payment_method_key,
    date_key,
    business_date,
    attempted_at,
    settled_at,
    status,
    failure_reason,
    amount,
    currency
FROM {{ staging }}
ON CONFLICT (payment_id) DO UPDATE
    SET
        order_id = excluded.order_id,
        customer_key = excluded.customer_key,
        payment_method_key = excluded.payment_method_key,
        date_key = excluded.date_key,
        business_date = excluded.business_date,
        attempted_at = excluded.attempted_at,
        settled_at = excluded.settled_at,
        status = excluded.status,
        failure_reason = excluded.failure_reason,
        amount = excluded.amount,
        currency = excluded.currency
    WHERE row(
        target.order_id,
        target.customer_key,
        target.payment_method_key,
        target.date_key,
        target.business_date,
        target.attempted_at,
        target.settled_at,
        target.status,
        target.failure_reason,
        target.amount,
        target.currency
    ) IS DISTINCT FROM row(
        excluded.order_id,
        excluded.customer_key,
        excluded.payment_method_key,
        excluded.date_key,
        excluded.business_date,
        excluded.attempted_at,
        excluded.settled_at,
        excluded.status,
        excluded.failure_reason,
        excluded.amount,
        excluded.currency
    )
