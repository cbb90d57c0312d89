-- Closes tonight's keys over the joins of the dimensions: the customers that a changed account or
-- address belonged to before, the product that a changed price belonged to before, and the products
-- that waited for a category that is new.
INSERT INTO {{ keys }} (kind, id)
SELECT
    'customer' AS kind,
    u.customer_id AS id
FROM ods.users AS u
WHERE
    u.id IN (SELECT k.id::BPCHAR FROM {{ keys }} AS k WHERE k.kind = 'user')
    AND u.customer_id IS NOT NULL
UNION ALL
SELECT
    'customer' AS kind,
    a.customer_id AS id
FROM ods.addresses AS a
WHERE a.id IN (SELECT k.id::BPCHAR FROM {{ keys }} AS k WHERE k.kind = 'address')
UNION ALL
SELECT
    'product' AS kind,
    pp.product_id AS id
FROM ods.product_prices AS pp
WHERE pp.id IN (SELECT k.id::BPCHAR FROM {{ keys }} AS k WHERE k.kind = 'price')
UNION ALL
SELECT
    'product' AS kind,
    d.product_id AS id
FROM dwh.dim_product AS d
WHERE
    d.category_id IN (SELECT k.id::BPCHAR FROM {{ keys }} AS k WHERE k.kind = 'category')
    AND NOT EXISTS (
        SELECT 1
        FROM ods.categories AS c
        WHERE c.id = d.category_id
    )
