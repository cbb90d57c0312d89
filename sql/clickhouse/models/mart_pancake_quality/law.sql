-- Every rated pancake is in the mart, with the same totals. Returns (measure, left_value, right_value)
-- as text, fact against mart; a law holds where both agree.
WITH fact AS (
    SELECT
        count() AS pancakes,
        countIf(fluffiness_level >= 8) AS fluffy_pancakes,
        sum(fluffiness_level) AS total_fluffiness,
        sum(magical_factor) AS total_magical_factor
    FROM dwh.fact_pancake_rating
),

mart AS (
    SELECT
        sum(pancakes) AS pancakes,
        sum(fluffy_pancakes) AS fluffy_pancakes,
        sum(total_fluffiness) AS total_fluffiness,
        sum(total_magical_factor) AS total_magical_factor
    FROM dwh.mart_pancake_quality
)

SELECT
    law.1 AS measure,
    law.2 AS left_value,
    law.3 AS right_value
FROM fact
CROSS JOIN mart
ARRAY JOIN
    [
        ('rows', toString(fact.pancakes), toString(mart.pancakes)),
        ('fluffy_pancakes', toString(fact.fluffy_pancakes), toString(mart.fluffy_pancakes)),
        ('total_fluffiness', toString(fact.total_fluffiness), toString(mart.total_fluffiness)),
        ('total_magical_factor', toString(fact.total_magical_factor), toString(mart.total_magical_factor))
    ] AS law
