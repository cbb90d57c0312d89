-- The way of each live category from its root, worked out here once more. A category whose parent is not
-- live counts as a root.
-- Returns (measure, left_value, right_value); a check holds where both agree.
WITH RECURSIVE live AS (
    SELECT
        category.id,
        parent.id AS live_parent_id,
        category.name
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
    'ways from the root' AS measure,
    (SELECT count(*) FROM live) AS left_value,
    count(*) AS right_value
FROM tree
INNER JOIN dwh.dim_category AS member ON tree.id = member.category_id
WHERE
    row(tree.level, tree.path, tree.root_name)
    IS NOT DISTINCT FROM row(member.level, member.path, member.root_name)
