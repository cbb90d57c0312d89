-- Every live order item is one line, with the same quantity and money per currency; and every line
-- points at the version of its customer and product that was in force when it was ordered, and has the
-- attributes of its item, order and address, all worked out here once more from ods. Returns (measure,
-- left_value, right_value); a law holds where both agree.
WITH source AS (
    SELECT
        coalesce(orders.currency::TEXT, 'unknown') AS currency,
        count(*) AS lines,
        sum(item.quantity) AS quantity,
        sum(item.line_total) AS line_total
    FROM ods.order_items AS item
    LEFT JOIN ods.orders AS orders ON item.order_id = orders.id AND orders._deleted_at IS NULL
    WHERE item._deleted_at IS NULL
    GROUP BY 1
),

model AS (
    SELECT
        coalesce(currency::TEXT, 'unknown') AS currency,
        count(*) AS lines,
        sum(quantity) AS quantity,
        sum(line_total) AS line_total
    FROM dwh.fact_order_line
    GROUP BY 1
),

wrong AS (
    SELECT
        count(*) FILTER (WHERE item.id IS NULL) AS items,
        count(*) FILTER (WHERE line.customer_key != coalesce(customer.customer_key, -1)) AS customers,
        count(*) FILTER (WHERE line.product_key != coalesce(product.product_key, -1)) AS products,
        count(*) FILTER (WHERE line.category_key != coalesce(product.category_key, -1)) AS categories,
        count(*) FILTER (WHERE line.date_key != coalesce(calendar.date_key, -1)) AS dates,
        count(*) FILTER (
            WHERE item.id IS NOT NULL
            AND row(
                line.order_id,
                line.line_number,
                line.quantity,
                line.unit_price,
                line.discount,
                line.line_total,
                line.order_number,
                line.status,
                line.channel,
                line.currency,
                line.ordered_at,
                line.business_date,
                line.ship_country,
                line.ship_region,
                line.ship_city
            ) IS DISTINCT FROM row(
                item.order_id,
                item.line_number,
                item.quantity,
                item.unit_price,
                item.discount,
                item.line_total,
                orders.order_number,
                orders.status,
                orders.channel,
                orders.currency,
                orders.ordered_at,
                (orders.ordered_at AT TIME ZONE 'Europe/Kyiv')::DATE,
                address.country,
                address.region,
                address.city
            )
        ) AS attributes
    FROM dwh.fact_order_line AS line
    LEFT JOIN ods.order_items AS item ON line.order_item_id = item.id AND item._deleted_at IS NULL
    LEFT JOIN ods.orders AS orders ON item.order_id = orders.id AND orders._deleted_at IS NULL
    LEFT JOIN ods.addresses AS address
        ON orders.shipping_address_id = address.id AND address._deleted_at IS NULL
    LEFT JOIN dwh.dim_customer AS customer
        ON
            orders.customer_id = customer.customer_id
            AND orders.ordered_at >= customer.valid_from
            AND orders.ordered_at < customer.valid_to
    LEFT JOIN dwh.dim_product AS product
        ON
            item.product_id = product.product_id
            AND orders.ordered_at >= product.valid_from
            AND orders.ordered_at < product.valid_to
    LEFT JOIN dwh.dim_date AS calendar ON (orders.ordered_at AT TIME ZONE 'Europe/Kyiv')::DATE = calendar.date
)

SELECT
    'rows' AS measure,
    coalesce((SELECT sum(source.lines) FROM source), 0) AS left_value,
    coalesce((SELECT sum(model.lines) FROM model), 0) AS right_value
UNION ALL
SELECT
    measures.measure || ' ' || coalesce(source.currency, model.currency) AS measure,
    coalesce(measures.left_value, 0) AS left_value,
    coalesce(measures.right_value, 0) AS right_value
FROM source
FULL JOIN model ON source.currency = model.currency
CROSS JOIN
    LATERAL (
        VALUES
        ('quantity', source.quantity, model.quantity),
        ('line_total', source.line_total, model.line_total)
    ) AS measures (measure, left_value, right_value)
UNION ALL
SELECT
    measures.measure,
    0 AS left_value,
    measures.right_value
FROM wrong
CROSS JOIN LATERAL (
    VALUES
    ('lines of no live item', wrong.items),
    ('wrong customer_key', wrong.customers),
    ('wrong product_key', wrong.products),
    ('wrong category_key', wrong.categories),
    ('wrong date_key', wrong.dates),
    ('wrong attributes', wrong.attributes)
) AS measures (measure, right_value)
