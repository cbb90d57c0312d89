-- How good the pancakes are, by business day, syrup and butter. A pancake is fluffy from level 8 of 10.
-- Totals, not averages, so that rows can be added up: an average is total / pancakes.
INSERT INTO {{ staging }}
SELECT
    rating.business_date,
    coalesce(pancake.syrup_type, 'Unknown') AS syrup_type,
    coalesce(pancake.is_buttery, FALSE) AS is_buttery,
    count() AS pancakes,
    countIf(rating.fluffiness_level >= 8) AS fluffy_pancakes,
    min(rating.fluffiness_level) AS least_fluffiness,
    max(rating.fluffiness_level) AS most_fluffiness,
    sum(rating.fluffiness_level) AS total_fluffiness,
    sum(rating.magical_factor) AS total_magical_factor
FROM dwh.fact_pancake_rating AS rating
LEFT JOIN dwh.dim_pancake AS pancake ON rating.pancake_key = pancake.pancake_key
GROUP BY
    rating.business_date,
    syrup_type,
    is_buttery
SETTINGS join_use_nulls = 1
