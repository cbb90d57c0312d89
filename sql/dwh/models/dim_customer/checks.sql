-- The current version of each live customer has the account and the default shipping address that changed
-- last.
-- Returns (measure, left_value, right_value); a check holds where both agree.
WITH live AS (
    SELECT
        customer.id,
        account.id AS user_id,
        customer.first_name || ' ' || customer.last_name AS full_name,
        home.country,
        home.region,
        home.city,
        account.locale,
        account.is_active,
        account.is_verified
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
    WHERE customer._deleted_at IS NULL{{ touched(["id"], "customer") }}
)

SELECT
    'current versions as in ods' AS measure,
    (SELECT count(*) FROM live) AS left_value,
    count(*) AS right_value
FROM live
INNER JOIN dwh.dim_customer AS member ON live.id = member.customer_id AND member.is_current
WHERE
    row(
        live.user_id,
        live.full_name,
        live.country,
        live.region,
        live.city,
        live.locale,
        live.is_active,
        live.is_verified
    ) IS NOT DISTINCT FROM row(
        member.user_id,
        member.full_name,
        member.country,
        member.region,
        member.city,
        member.locale,
        member.is_active,
        member.is_verified
    )
