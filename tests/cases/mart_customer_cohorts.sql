WITH kept AS (
    SELECT c.customer_id, date_trunc('month', l.business_date)::date AS month, l.currency, l.order_id, l.line_total
    FROM dwh.fact_order_line l, dwh.dim_customer c
    WHERE c.customer_key = l.customer_key AND c.customer_key <> -1
      AND l.status NOT IN ('cancelled', 'returned') AND l.business_date IS NOT NULL
), firsts AS (
    SELECT *, min(month) OVER (PARTITION BY customer_id) AS cohort FROM kept
)
SELECT f.cohort,
       (extract(year FROM f.month) - extract(year FROM f.cohort)) * 12
           + extract(month FROM f.month) - extract(month FROM f.cohort),
       f.currency,
       (SELECT count(DISTINCT g.customer_id) FROM firsts g WHERE g.cohort = f.cohort),
       count(DISTINCT f.customer_id), count(DISTINCT f.order_id), sum(f.line_total)
FROM firsts f
GROUP BY 1, 2, 3
