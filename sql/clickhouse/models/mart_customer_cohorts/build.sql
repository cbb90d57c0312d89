-- What each month's new customers bought since: customers by the month of their first order, and their
-- orders by months since then (0 is the first). Cancelled and returned orders are left out, and so are
-- orders of unknown customers; the mart's totals prove that no other is. `cohort_customers` is the size
-- of the whole cohort, in all currencies.
INSERT INTO {{ staging }}
WITH purchases AS (
    SELECT
        customer.customer_id,
        line.order_id,
        assumeNotNull(line.currency) AS currency,
        toStartOfMonth(assumeNotNull(line.business_date)) AS month,
        sum(line.line_total) AS revenue
    FROM dwh.fact_order_line AS line
    INNER JOIN dwh.dim_customer AS customer ON line.customer_key = customer.customer_key
    WHERE
        line.customer_key != -1
        AND line.business_date IS NOT NULL
        AND line.status NOT IN ('cancelled', 'returned')
    GROUP BY
        customer.customer_id,
        line.order_id,
        currency,
        month
),

cohorts AS (
    SELECT
        customer_id,
        min(month) AS cohort_month
    FROM purchases
    GROUP BY customer_id
),

sizes AS (
    SELECT
        cohort_month,
        count() AS cohort_customers
    FROM cohorts
    GROUP BY cohort_month
)

SELECT
    cohorts.cohort_month,
    dateDiff('month', cohorts.cohort_month, purchases.month) AS month_number,
    purchases.currency,
    any(sizes.cohort_customers) AS cohort_customers,
    uniqExact(purchases.customer_id) AS customers,
    count() AS orders,
    sum(purchases.revenue) AS revenue
FROM purchases
INNER JOIN cohorts ON purchases.customer_id = cohorts.customer_id
INNER JOIN sizes ON cohorts.cohort_month = sizes.cohort_month
GROUP BY
    cohorts.cohort_month,
    month_number,
    purchases.currency
