-- Every live category is one member, as it is now, with the way from its root worked out here once
-- more. A category whose parent is not live counts as a root.
-- Returns (measure, left_value, right_value); a law holds where both agree.
WITH RECURSIVE live AS (
    SELECT
        category.id,
        parent.id AS live_parent_id,
        category.parent_category_id,
        category.name,
        category.name_uk,
        category.slug,
        category.is_active
    FROM ods.categories AS category
    LEFT JOIN ods.categories AS parent ON category.parent_category_id = parent.id AND parent._deleted_at IS NULL
    WHERE category._deleted_at IS NULL
),

tree AS (
    SELECT
        id,
        1 AS level,
        name::TEXT AS path,
        name AS root_name
    FROM live
    WHERE live_parent_id IS NULL
    UNION ALL
    SELECT
        live.id,
        tree.level + 1 AS level,
        tree.path || ' > ' || live.name AS path,
        tree.root_name
    FROM tree
    INNER JOIN live ON tree.id = live.live_parent_id
)

SELECT
    'rows' AS measure,
    (SELECT count(*) FROM live) AS left_value,
    (SELECT count(*) FROM dwh.dim_category WHERE category_key != -1) AS right_value
UNION ALL
SELECT
    'rows as in ods' AS measure,
    (SELECT count(*) FROM live) AS left_value,
    count(*) AS right_value
FROM live
INNER JOIN tree ON live.id = tree.id
INNER JOIN dwh.dim_category AS member ON live.id = member.category_id
WHERE
    row(
        live.parent_category_id,
        live.name,
        live.name_uk,
        live.slug,
        live.is_active,
        tree.level,
        tree.path,
        tree.root_name
    ) IS NOT DISTINCT FROM row(
        member.parent_category_id,
        member.name,
        member.name_uk,
        member.slug,
        member.is_active,
        member.level,
        member.path,
        member.root_name
    )
