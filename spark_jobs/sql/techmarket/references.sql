-- What the touched orders name: their payments, and the members whose versions their facts point at.
INSERT INTO {{ keys }} (kind, id)
SELECT
    'payment',
    p.id
FROM ods.payments AS p
WHERE p.order_id IN (SELECT k.id::bpchar FROM {{ keys }} AS k WHERE k.kind = 'order')
UNION
SELECT
    'customer of order',
    o.customer_id
FROM ods.orders AS o
WHERE o.id IN (SELECT k.id::bpchar FROM {{ keys }} AS k WHERE k.kind = 'order')
UNION
SELECT
    'address of order',
    o.shipping_address_id
FROM ods.orders AS o
WHERE o.id IN (SELECT k.id::bpchar FROM {{ keys }} AS k WHERE k.kind = 'order')
UNION
SELECT
    'product of order',
    i.product_id
FROM ods.order_items AS i
WHERE i.order_id IN (SELECT k.id::bpchar FROM {{ keys }} AS k WHERE k.kind = 'order')
