-- Every live customer has one current version, which is as the stores have the customer, the account
-- and the default shipping address now; a customer's versions follow one another without a gap or an
-- overlap, from the open past to the open future.
-- Returns (measure, left_value, right_value); a law holds where both agree.
WITH live AS (
    SELECT
        customer.id,
        account.id AS user_id,
        customer.first_name || ' ' || customer.last_name AS full_name,
        customer.email,
        customer.phone,
        customer.segment,
        customer.marketing_opt_in,
        home.country,
        home.region,
        home.city,
        account.locale,
        account.is_active,
        account.is_verified,
        customer.registered_at
    FROM ods.customers AS customer
    LEFT JOIN (
        SELECT DISTINCT ON (customer_id) *
        FROM ods.users
        WHERE customer_id IS NOT NULL AND _deleted_at IS NULL
        ORDER BY
            customer_id ASC,
            updated_at DESC,
            id DESC
    ) AS account ON customer.id = account.customer_id
    LEFT JOIN (
        SELECT DISTINCT ON (customer_id) *
        FROM ods.addresses
        WHERE kind = 'shipping' AND is_default AND _deleted_at IS NULL
        ORDER BY
            customer_id ASC,
            updated_at DESC,
            id DESC
    ) AS home ON customer.id = home.customer_id
    WHERE customer._deleted_at IS NULL
),

versions AS (
    SELECT
        *,
        coalesce(
            lag(valid_to) OVER (PARTITION BY customer_id ORDER BY valid_from), '1900-01-01 00:00:00+00'
        ) AS previous_valid_to,
        lead(customer_key) OVER (PARTITION BY customer_id ORDER BY valid_from) IS NULL AS is_last
    FROM dwh.dim_customer
    WHERE customer_key != -1
)

SELECT
    'current versions' AS measure,
    (SELECT count(*) FROM live) AS left_value,
    (SELECT count(*) FROM versions WHERE is_current) AS right_value
UNION ALL
SELECT
    'current versions as in ods' AS measure,
    (SELECT count(*) FROM live) AS left_value,
    count(*) AS right_value
FROM live
INNER JOIN versions AS member ON live.id = member.customer_id AND member.is_current
WHERE
    row(
        live.user_id,
        live.full_name,
        live.email,
        live.phone,
        live.segment,
        live.marketing_opt_in,
        live.country,
        live.region,
        live.city,
        live.locale,
        live.is_active,
        live.is_verified,
        live.registered_at
    ) IS NOT DISTINCT FROM row(
        member.user_id,
        member.full_name,
        member.email,
        member.phone,
        member.segment,
        member.marketing_opt_in,
        member.country,
        member.region,
        member.city,
        member.locale,
        member.is_active,
        member.is_verified,
        member.registered_at
    )
UNION ALL
SELECT
    'versions that do not follow one another' AS measure,
    0 AS left_value,
    count(*) AS right_value
FROM versions
WHERE
    valid_from != previous_valid_to
    OR valid_from >= valid_to
    OR is_last != is_current
    OR is_last != (valid_to = '2299-12-31 00:00:00+00')
