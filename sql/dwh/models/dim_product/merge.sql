-- SCD2: the increment holds all versions of each product it touches, valid_from and valid_to
-- recomputed; a version keeps its key, so an older one is closed by being updated.
-- Only rows that differ are touched, so publishing the same increment again changes nothing.
INSERT INTO dwh.dim_product AS target (
    product_key,
    product_id,
    sku,
    name,
    brand,
    category_id,
    category_key,
    list_price,
    list_currency,
    is_active,
    launched_on,
    version_at,
    valid_from,
    valid_to,
    is_current
)
SELECT
    product_key,
    product_id,
    sku,
    name,
    brand,
    category_id,
    category_key,
    list_price,
    list_currency,
    is_active,
    launched_on,
    version_at,
    valid_from,
    valid_to,
    is_current
FROM {{ staging }}
ON CONFLICT (product_key) DO UPDATE
    SET
        product_id = excluded.product_id,
        sku = excluded.sku,
        name = excluded.name,
        brand = excluded.brand,
        category_id = excluded.category_id,
        category_key = excluded.category_key,
        list_price = excluded.list_price,
        list_currency = excluded.list_currency,
        is_active = excluded.is_active,
        launched_on = excluded.launched_on,
        version_at = excluded.version_at,
        valid_from = excluded.valid_from,
        valid_to = excluded.valid_to,
        is_current = excluded.is_current
    WHERE row(
        target.product_id,
        target.sku,
        target.name,
        target.brand,
        target.category_id,
        target.category_key,
        target.list_price,
        target.list_currency,
        target.is_active,
        target.launched_on,
        target.version_at,
        target.valid_from,
        target.valid_to,
        target.is_current
    ) IS DISTINCT FROM row(
        excluded.product_id,
        excluded.sku,
        excluded.name,
        excluded.brand,
        excluded.category_id,
        excluded.category_key,
        excluded.list_price,
        excluded.list_currency,
        excluded.is_active,
        excluded.launched_on,
        excluded.version_at,
        excluded.valid_from,
        excluded.valid_to,
        excluded.is_current
    )
