SELECT r.business_date, coalesce(p.syrup_type, 'Unknown'), coalesce(p.is_buttery, false), count(*),
       sum(CASE WHEN r.fluffiness_level BETWEEN 8 AND 10 THEN 1 ELSE 0 END),
       min(r.fluffiness_level), max(r.fluffiness_level), sum(r.fluffiness_level), sum(r.magical_factor)
FROM dwh.fact_pancake_rating r LEFT JOIN dwh.dim_pancake p USING (pancake_key)
GROUP BY 1, 2, 3
