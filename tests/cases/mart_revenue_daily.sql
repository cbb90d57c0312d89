SELECT l.business_date, coalesce(c.root_name, 'Unknown'), coalesce(l.ship_region, 'Unknown'), coalesce(l.currency::text, 'Unknown'),
       count(*), count(DISTINCT l.order_id), sum(l.quantity), sum(l.line_total),
       coalesce(sum(l.line_total) FILTER (WHERE l.status IS NULL OR l.status NOT IN ('cancelled', 'returned')), 0)
FROM dwh.fact_order_line l LEFT JOIN dwh.dim_category c USING (category_key)
GROUP BY 1, 2, 3, 4
