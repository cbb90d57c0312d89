-- Every order line is in the mart, with the same quantity and money per currency. Returns (measure,
-- left_value, right_value) as text, fact against mart; a law holds where both agree.
WITH fact AS (
    SELECT
        coalesce(currency, 'Unknown') AS currency,
        count() AS lines,
        sum(quantity) AS quantity,
        sum(line_total) AS revenue,
        sumIf(line_total, coalesce(status, '') NOT IN ('cancelled', 'returned')) AS net_revenue
    FROM dwh.fact_order_line
    GROUP BY currency
),

mart AS (
    SELECT
        currency,
        sum(lines) AS lines,
        sum(quantity) AS quantity,
        sum(revenue) AS revenue,
        sum(net_revenue) AS net_revenue
    FROM dwh.mart_revenue_daily
    GROUP BY currency
)

SELECT
    'rows' AS measure,
    (SELECT toString(sum(fact.lines)) FROM fact) AS left_value,
    (SELECT toString(sum(mart.lines)) FROM mart) AS right_value
UNION ALL
SELECT
    concat(law.1, ' ', if(fact.currency = '', mart.currency, fact.currency)) AS measure,
    law.2 AS left_value,
    law.3 AS right_value
FROM fact
FULL JOIN mart ON fact.currency = mart.currency
ARRAY JOIN
    [
        ('quantity', toString(fact.quantity), toString(mart.quantity)),
        ('revenue', toString(fact.revenue), toString(mart.revenue)),
        ('net_revenue', toString(fact.net_revenue), toString(mart.net_revenue))
    ] AS law
