-- What the touched orders name: their payments, and the members whose versions their facts point at.
INSERT INTO {{ keys }} (kind, id)
SELECT
    'payment' AS kind,
    p.id
FROM ods.payments AS p
WHERE p.order_id IN (SELECT k.id::BPCHAR FROM {{ keys }} AS k WHERE k.kind = 'order')
UNION
SELECT
    'customer of order' AS kind,
    o.customer_id AS id
FROM ods.orders AS o
WHERE o.id IN (SELECT k.id::BPCHAR FROM {{ keys }} AS k WHERE k.kind = 'order')
UNION
SELECT
    'address of order' AS kind,
    o.shipping_address_id AS id
FROM ods.orders AS o
WHERE o.id IN (SELECT k.id::BPCHAR FROM {{ keys }} AS k WHERE k.kind = 'order')
UNION
SELECT
    'product of order' AS kind,
    i.product_id AS id
FROM ods.order_items AS i
WHERE i.order_id IN (SELECT k.id::BPCHAR FROM {{ keys }} AS k WHERE k.kind = 'order')
