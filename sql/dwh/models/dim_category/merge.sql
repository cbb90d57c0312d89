-- Type 1: the category as the catalog has it now.
-- Only rows that differ are touched, so publishing the same increment again changes nothing.
INSERT INTO dwh.dim_category AS target (
    category_key,
    category_id,
    parent_category_id,
    name,
    name_uk,
    slug,
    level,
    path,
    root_name,
    is_active
)
SELECT
    category_key,
    category_id,
    parent_category_id,
    name,
    name_uk,
    slug,
    level,
    path,
    root_name,
    is_active
FROM {{ staging }}
ON CONFLICT (category_key) DO UPDATE
    SET
        category_id = excluded.category_id,
        parent_category_id = excluded.parent_category_id,
        name = excluded.name,
        name_uk = excluded.name_uk,
        slug = excluded.slug,
        level = excluded.level,
        path = excluded.path,
        root_name = excluded.root_name,
        is_active = excluded.is_active
    WHERE row(
        target.category_id,
        target.parent_category_id,
        target.name,
        target.name_uk,
        target.slug,
        target.level,
        target.path,
        target.root_name,
        target.is_active
    ) IS DISTINCT FROM row(
        excluded.category_id,
        excluded.parent_category_id,
        excluded.name,
        excluded.name_uk,
        excluded.slug,
        excluded.level,
        excluded.path,
        excluded.root_name,
        excluded.is_active
    )
