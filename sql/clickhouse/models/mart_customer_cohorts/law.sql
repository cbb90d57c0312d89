-- Every order of a known customer that was neither cancelled nor returned is in one cohort, with the
-- same money per currency. Returns (measure, left_value, right_value) as text, fact against mart; a law
-- holds where both agree.
WITH fact AS (
    SELECT
        assumeNotNull(currency) AS currency,
        uniqExact(order_id) AS orders,
        sum(line_total) AS revenue
    FROM dwh.fact_order_line
    WHERE
        customer_key != -1
        AND business_date IS NOT NULL
        AND status NOT IN ('cancelled', 'returned')
    GROUP BY currency
),

mart AS (
    SELECT
        currency,
        sum(orders) AS orders,
        sum(revenue) AS revenue
    FROM dwh.mart_customer_cohorts
    GROUP BY currency
)

SELECT  -- noqa: ST06
    concat(law.1, ' ', if(fact.currency = '', mart.currency, fact.currency)) AS measure,
    law.2 AS left_value,
    law.3 AS right_value
FROM fact
FULL JOIN mart ON fact.currency = mart.currency
ARRAY JOIN
    [
        ('orders', toString(fact.orders), toString(mart.orders)),
        ('revenue', toString(fact.revenue), toString(mart.revenue))
    ] AS law
