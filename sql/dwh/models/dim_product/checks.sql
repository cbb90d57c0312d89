-- The current version of each live product has its latest list price.
-- Returns (measure, left_value, right_value); a check holds where both agree.
WITH live AS (
    SELECT
        product.id,
        price.price,
        price.currency
    FROM ods.products AS product
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
    WHERE product._deleted_at IS NULL{{ touched(["id"], "product") }}
)

SELECT
    'current list prices as in ods' AS measure,
    (SELECT count(*) FROM live) AS left_value,
    count(*) AS right_value
FROM live
INNER JOIN dwh.dim_product AS member ON live.id = member.product_id AND member.is_current
WHERE row(live.price, live.currency) IS NOT DISTINCT FROM row(member.list_price, member.list_currency)
