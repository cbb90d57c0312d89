-- Every live pancake is rated once, with the same totals, and its row points at that pancake and at its
-- day. Returns (measure, left_value, right_value); a law holds where both agree.
WITH source AS (
    SELECT
        count(*) AS pancakes,
        coalesce(sum(fluffiness_level), 0) AS fluffiness_level,
        coalesce(sum(magical_factor), 0) AS magical_factor
    FROM ods.pancakes
    WHERE _deleted_at IS NULL
),

model AS (
    SELECT
        count(*) AS pancakes,
        coalesce(sum(fluffiness_level), 0) AS fluffiness_level,
        coalesce(sum(magical_factor), 0) AS magical_factor
    FROM dwh.fact_pancake_rating
),

wrong AS (
    SELECT
        count(*) FILTER (WHERE fact.pancake_key != coalesce(pancake.pancake_key, -1)) AS pancakes,
        count(*) FILTER (WHERE fact.date_key != coalesce(calendar.date_key, -1)) AS dates
    FROM dwh.fact_pancake_rating AS fact
    LEFT JOIN dwh.dim_pancake AS pancake ON fact.pancake_id = pancake.pancake_id
    LEFT JOIN dwh.dim_date AS calendar ON (fact.created_at AT TIME ZONE 'Europe/Kyiv')::DATE = calendar.date
)

SELECT
    measures.measure,
    measures.left_value,
    measures.right_value
FROM source
CROSS JOIN model
CROSS JOIN wrong
CROSS JOIN LATERAL (
    VALUES
    ('rows', source.pancakes, model.pancakes),
    ('fluffiness_level', source.fluffiness_level, model.fluffiness_level),
    ('magical_factor', source.magical_factor, model.magical_factor),
    ('wrong pancake_key', 0, wrong.pancakes),
    ('wrong date_key', 0, wrong.dates)
) AS measures (measure, left_value, right_value)
