SELECT p.business_date, m.code, m.provider, p.currency,
       count(*), sum((p.status = 'succeeded')::int), sum((p.status = 'failed')::int),
       count(DISTINCT p.order_id), count(DISTINCT CASE p.status WHEN 'succeeded' THEN p.order_id END),
       sum(p.amount), sum(CASE p.status WHEN 'succeeded' THEN p.amount ELSE 0 END)
FROM dwh.fact_payment p, dwh.dim_payment_method m
WHERE m.payment_method_key = p.payment_method_key
GROUP BY 1, 2, 3, 4
