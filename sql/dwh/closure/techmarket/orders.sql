-- Closes tonight's keys over the joins of the facts, an order with all that hangs on it being the unit:
-- orders whose payment or shipping address changed; whose way to pay or category is new; whose customer
-- or product has a version that is new, where an event of the order falls into it.
INSERT INTO {{ keys }} (kind, id)
SELECT
    'order' AS kind,
    p.order_id AS id
FROM ods.payments AS p
WHERE p.id IN (SELECT k.id::BPCHAR FROM {{ keys }} AS k WHERE k.kind = 'payment')
UNION
SELECT
    'order' AS kind,
    o.id
FROM ods.orders AS o
WHERE o.shipping_address_id IN (SELECT k.id::BPCHAR FROM {{ keys }} AS k WHERE k.kind = 'address')
UNION
SELECT
    'order' AS kind,
    p.order_id AS id
FROM ods.payments AS p
INNER JOIN {{ keys }} AS k ON p.method_id = k.id::SMALLINT
WHERE
    k.kind = 'method'
    AND NOT EXISTS (
        SELECT 1
        FROM ods.payment_methods AS m
        WHERE m.id = p.method_id
    )
UNION
SELECT
    'order' AS kind,
    o.id
FROM ods.orders AS o
INNER JOIN {{ keys }} AS k ON o.customer_id = k.id::BPCHAR
WHERE
    k.kind = 'changed customer'
    AND (
        o.ordered_at >= k.since
        OR EXISTS (
            SELECT 1
            FROM ods.payments AS p
            LEFT JOIN ods.refunds AS r ON p.id = r.payment_id
            WHERE
                p.order_id = o.id
                AND (p.attempted_at >= k.since OR r.refunded_at >= k.since)
        )
    )
UNION
SELECT
    'order' AS kind,
    i.order_id AS id
FROM ods.order_items AS i
INNER JOIN {{ keys }} AS k ON i.product_id = k.id::BPCHAR
INNER JOIN ods.orders AS o ON i.order_id = o.id
WHERE
    k.kind = 'changed product'
    AND o.ordered_at >= k.since
UNION
SELECT
    'order' AS kind,
    i.order_id AS id
FROM ods.order_items AS i
INNER JOIN dwh.dim_product AS d ON i.product_id = d.product_id
WHERE
    d.category_id IN (SELECT k.id::BPCHAR FROM {{ keys }} AS k WHERE k.kind = 'category')
    AND NOT EXISTS (
        SELECT 1
        FROM ods.categories AS c
        WHERE c.id = d.category_id
    )
