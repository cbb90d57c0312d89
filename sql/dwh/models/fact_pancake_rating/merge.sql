-- One row a rated pancake.
-- Only rows that differ are touched, so publishing the same increment again changes nothing.
INSERT INTO dwh.fact_pancake_rating AS target (
    pancake_id,
    pancake_key,
    date_key,
    business_date,
    created_at,
    fluffiness_level,
    magical_factor,
    taste_notes
)
SELECT
    pancake_id,
    pancake_key,
    date_key,
    business_date,
    created_at,
    fluffiness_level,
    magical_factor,
    taste_notes
FROM {{ staging }}
ON CONFLICT (pancake_id) DO UPDATE
    SET
        pancake_key = excluded.pancake_key,
        date_key = excluded.date_key,
        business_date = excluded.business_date,
        created_at = excluded.created_at,
        fluffiness_level = excluded.fluffiness_level,
        magical_factor = excluded.magical_factor,
        taste_notes = excluded.taste_notes
    WHERE row(
        target.pancake_key,
        target.date_key,
        target.business_date,
        target.created_at,
        target.fluffiness_level,
        target.magical_factor,
        target.taste_notes
    ) IS DISTINCT FROM row(
        excluded.pancake_key,
        excluded.date_key,
        excluded.business_date,
        excluded.created_at,
        excluded.fluffiness_level,
        excluded.magical_factor,
        excluded.taste_notes
    )
