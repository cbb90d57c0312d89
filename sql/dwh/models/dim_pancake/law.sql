-- Every live pancake is one member, as it is now.
-- Returns (measure, left_value, right_value); a law holds where both agree.
WITH live AS (
    SELECT *
    FROM ods.pancakes
    WHERE _deleted_at IS NULL
)

SELECT
    'rows' AS measure,
    (SELECT count(*) FROM live) AS left_value,
    (SELECT count(*) FROM dwh.dim_pancake WHERE pancake_key != -1) AS right_value
UNION ALL
SELECT
    'rows as in ods' AS measure,
    (SELECT count(*) FROM live) AS left_value,
    count(*) AS right_value
FROM live
INNER JOIN dwh.dim_pancake AS member ON live.id = member.pancake_id
WHERE
    row(live.name, live.syrup_type, live.is_buttery)
    IS NOT DISTINCT FROM row(member.name, member.syrup_type, member.is_buttery)
