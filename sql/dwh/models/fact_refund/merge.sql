-- One row a refund.
-- Only rows that differ are touched, so publishing the same increment again changes nothing.
INSERT INTO dwh.fact_refund AS target (
    refund_id,
    payment_id,
    order_id,
    customer_key,
    payment_method_key,
    date_key,
    business_date,
    refunded_at,
    amount,
    currency,
    reason
)
SELECT
    refund_id,
    payment_id,
    order_id,
    customer_key,
    payment_method_key,
    date_key,
    business_date,
    refunded_at,
    amount,
    currency,
    reason
FROM {{ staging }}
ON CONFLICT (refund_id) DO UPDATE
    SET
        payment_id = excluded.payment_id,
        order_id = excluded.order_id,
        customer_key = excluded.customer_key,
        payment_method_key = excluded.payment_method_key,
        date_key = excluded.date_key,
        business_date = excluded.business_date,
        refunded_at = excluded.refunded_at,
        amount = excluded.amount,
        currency = excluded.currency,
        reason = excluded.reason
    WHERE row(
        target.payment_id,
        target.order_id,
        target.customer_key,
        target.payment_method_key,
        target.date_key,
        target.business_date,
        target.refunded_at,
        target.amount,
        target.currency,
        target.reason
    ) IS DISTINCT FROM row(
        excluded.payment_id,
        excluded.order_id,
        excluded.customer_key,
        excluded.payment_method_key,
        excluded.date_key,
        excluded.business_date,
        excluded.refunded_at,
        excluded.amount,
        excluded.currency,
        excluded.reason
    )
