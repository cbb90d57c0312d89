-- Revenue by business day, root category, shipping region and currency. `revenue` is of every line
-- ordered, so it adds up to fact_order_line; `net_revenue` leaves cancelled and returned orders out.
INSERT INTO {{ staging }}
SELECT
    line.business_date,
    coalesce(category.root_name, 'Unknown') AS category,
    coalesce(line.ship_region, 'Unknown') AS region,
    coalesce(line.currency, 'Unknown') AS currency,
    count() AS lines,
    uniqExact(line.order_id) AS orders,
    sum(line.quantity) AS quantity,
    sum(line.line_total) AS revenue,
    sumIf(line.line_total, coalesce(line.status, '') NOT IN ('cancelled', 'returned')) AS net_revenue
FROM dwh.fact_order_line AS line
LEFT JOIN dwh.dim_category AS category ON line.category_key = category.category_key
GROUP BY
    line.business_date,
    category,
    region,
    currency
SETTINGS join_use_nulls = 1
