SELECT p.business_date, coalesce(m.code, 'Unknown'), coalesce(m.provider, 'Unknown'), p.currency,
       count(*), sum((p.status = 'succeeded')::int), sum((p.status = 'failed')::int),
       count(DISTINCT p.order_id), count(DISTINCT CASE p.status WHEN 'succeeded' THEN p.order_id END),
       sum(p.amount), sum(CASE p.status WHEN 'succeeded' THEN p.amount ELSE 0 END)
FROM dwh.fact_payment p LEFT JOIN dwh.dim_payment_method m USING (payment_method_key)
GROUP BY 1, 2, 3, 4
