SELECT r.business_date, p.syrup_type, p.is_buttery, count(*),
       sum(CASE WHEN r.fluffiness_level BETWEEN 8 AND 10 THEN 1 ELSE 0 END),
       min(r.fluffiness_level), max(r.fluffiness_level), sum(r.fluffiness_level), sum(r.magical_factor)
FROM dwh.fact_pancake_rating r, dwh.dim_pancake p
WHERE p.pancake_key = r.pancake_key
GROUP BY 1, 2, 3
