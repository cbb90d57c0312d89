-- Type 1: the payment method as it is now.
-- Only rows that differ are touched, so publishing the same increment again changes nothing.
INSERT INTO dwh.dim_payment_method AS target (
    payment_method_key,
    method_id,
    code,
    name,
    provider,
    is_online,
    is_active
)
SELECT
    payment_method_key,
    method_id,
    code,
    name,
    provider,
    is_online,
    is_active
FROM {{ staging }}
ON CONFLICT (payment_method_key) DO UPDATE
    SET
        method_id = excluded.method_id,
        code = excluded.code,
        name = excluded.name,
        provider = excluded.provider,
        is_online = excluded.is_online,
        is_active = excluded.is_active
    WHERE row(
        target.method_id,
        target.code,
        target.name,
        target.provider,
        target.is_online,
        target.is_active
    ) IS DISTINCT FROM row(
        excluded.method_id,
        excluded.code,
        excluded.name,
        excluded.provider,
        excluded.is_online,
        excluded.is_active
    )
