-- Type 1: the pancake as it is now.
-- Only rows that differ are touched, so publishing the same increment again changes nothing.
INSERT INTO dwh.dim_pancake AS target (
    pancake_key,
    pancake_id,
    name,
    syrup_type,
    is_buttery
)
SELECT
    pancake_key,
    pancake_id,
    name,
    syrup_type,
    is_buttery
FROM {{ staging }}
ON CONFLICT (pancake_key) DO UPDATE
    SET
        pancake_id = excluded.pancake_id,
        name = excluded.name,
        syrup_type = excluded.syrup_type,
        is_buttery = excluded.is_buttery
    WHERE row(
        target.pancake_id,
        target.name,
        target.syrup_type,
        target.is_buttery
    ) IS DISTINCT FROM row(
        excluded.pancake_id,
        excluded.name,
        excluded.syrup_type,
        excluded.is_buttery
    )
