-- Every live payment method is one member, as it is now.
-- Returns (measure, left_value, right_value); a law holds where both agree.
WITH live AS (
    SELECT *
    FROM ods.payment_methods
    WHERE _deleted_at IS NULL
)

SELECT
    'rows' AS measure,
    (SELECT count(*) FROM live) AS left_value,
    (SELECT count(*) FROM dwh.dim_payment_method WHERE payment_method_key != -1) AS right_value
UNION ALL
SELECT
    'rows as in ods' AS measure,
    (SELECT count(*) FROM live) AS left_value,
    count(*) AS right_value
FROM live
INNER JOIN dwh.dim_payment_method AS member ON live.id = member.method_id
WHERE
    row(live.code, live.name, live.provider, live.is_online, live.is_active)
    IS NOT DISTINCT FROM row(member.code, member.name, member.provider, member.is_online, member.is_active)
