-- How attempts to pay end, by business day of the attempt, method and currency. The rest of `attempts`
-- is pending. `paid_orders` are the orders with an attempt that succeeded that day by that method.
INSERT INTO {{ staging }}
SELECT
    payment.business_date,
    coalesce(method.code, 'Unknown') AS payment_method,
    coalesce(method.provider, 'Unknown') AS provider,
    payment.currency,
    count() AS attempts,
    countIf(payment.status = 'succeeded') AS succeeded,
    countIf(payment.status = 'failed') AS failed,
    uniqExact(payment.order_id) AS orders,
    uniqExactIf(payment.order_id, payment.status = 'succeeded') AS paid_orders,
    sum(payment.amount) AS attempted_amount,
    sumIf(payment.amount, payment.status = 'succeeded') AS paid_amount
FROM dwh.fact_payment AS payment
LEFT JOIN dwh.dim_payment_method AS method ON payment.payment_method_key = method.payment_method_key
GROUP BY
    payment.business_date,
    payment_method,
    provider,
    payment.currency
SETTINGS join_use_nulls = 1
