SELECT l.business_date, c.root_name, coalesce(l.ship_region, 'Unknown'), coalesce(l.currency::text, 'Unknown'),
       count(*), count(DISTINCT l.order_id), sum(l.quantity), sum(l.line_total),
       coalesce(sum(l.line_total) FILTER (WHERE l.status IS NULL OR l.status NOT IN ('cancelled', 'returned')), 0)
FROM dwh.fact_order_line l, dwh.dim_category c
WHERE c.category_key = l.category_key
GROUP BY 1, 2, 3, 4
