-- Every live product has one current version, which is as the catalog has it now, its latest list price
-- included; a product's versions follow one another without a gap or an overlap, from the open past to
-- the open future. Returns (measure, left_value, right_value); a law holds where both agree.
WITH live AS (
    SELECT
        product.id,
        product.sku,
        product.name,
        product.brand,
        product.category_id,
        coalesce(category.category_key, -1) AS category_key,
        price.price,
        price.currency,
        product.is_active,
        product.launched_on
    FROM ods.products AS product
    LEFT JOIN dwh.dim_category AS category ON product.category_id = category.category_id
    LEFT JOIN (
        SELECT DISTINCT ON (product_id)
            product_id,
            price,
            currency
        FROM ods.product_prices
        WHERE _deleted_at IS NULL
        ORDER BY
            product_id ASC,
            valid_from DESC,
            updated_at DESC,
            id DESC
    ) AS price ON product.id = price.product_id
    WHERE product._deleted_at IS NULL
),

versions AS (
    SELECT
        *,
        coalesce(
            lag(valid_to) OVER (PARTITION BY product_id ORDER BY valid_from), '1900-01-01 00:00:00+00'
        ) AS previous_valid_to,
        lead(product_key) OVER (PARTITION BY product_id ORDER BY valid_from) IS NULL AS is_last
    FROM dwh.dim_product
    WHERE product_key != -1
)

SELECT
    'current versions' AS measure,
    (SELECT count(*) FROM live) AS left_value,
    (SELECT count(*) FROM versions WHERE is_current) AS right_value
UNION ALL
SELECT
    'current versions as in ods' AS measure,
    (SELECT count(*) FROM live) AS left_value,
    count(*) AS right_value
FROM live
INNER JOIN versions AS member ON live.id = member.product_id AND member.is_current
WHERE
    row(
        live.sku,
        live.name,
        live.brand,
        live.category_id,
        live.category_key,
        live.price,
        live.currency,
        live.is_active,
        live.launched_on
    ) IS NOT DISTINCT FROM row(
        member.sku,
        member.name,
        member.brand,
        member.category_id,
        member.category_key,
        member.list_price,
        member.list_currency,
        member.is_active,
        member.launched_on
    )
UNION ALL
SELECT
    'versions that do not follow one another' AS measure,
    0 AS left_value,
    count(*) AS right_value
FROM versions
WHERE
    valid_from != previous_valid_to
    OR valid_from >= valid_to
    OR is_last != is_current
    OR is_last != (valid_to = '2299-12-31 00:00:00+00')
