-- Every live pancake is rated once, with the same totals and attributes, and its row points at that
-- pancake and at its day. Returns (measure, left_value, right_value); a law holds where both agree.
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
        count(*) FILTER (WHERE fact.date_key != coalesce(calendar.date_key, -1)) AS dates,
        count(*) FILTER (WHERE source.id IS NULL) AS strangers,
        count(*) FILTER (
            WHERE source.id IS NOT NULL
            AND row(
                fact.created_at,
                fact.fluffiness_level,
                fact.magical_factor,
                fact.taste_notes,
                fact.business_date
            ) IS DISTINCT FROM row(
                source.created_at,
                source.fluffiness_level,
                source.magical_factor,
                source.taste_notes,
                (source.created_at AT TIME ZONE 'Europe/Kyiv')::DATE
            )
        ) AS attributes
    FROM dwh.fact_pancake_rating AS fact
    LEFT JOIN ods.pancakes AS source ON fact.pancake_id = source.id AND source._deleted_at IS NULL
    LEFT JOIN dwh.dim_pancake AS pancake ON fact.pancake_id = pancake.pancake_id
    LEFT JOIN dwh.dim_date AS calendar ON (source.created_at AT TIME ZONE 'Europe/Kyiv')::DATE = calendar.date
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
    ('wrong date_key', 0, wrong.dates),
    ('rows of no live pancake', 0, wrong.strangers),
    ('wrong attributes', 0, wrong.attributes)
) AS measures (measure, left_value, right_value)
