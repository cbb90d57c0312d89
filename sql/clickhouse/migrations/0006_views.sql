-- What people query are views, each over two tables, `__a` and `__b`. `etl_slots` says which of the two each
-- view shows, by the last row of `etl_run` that names it. All views ask for it in the same words: a query then
-- asks once, and sees one state of them all.
ALTER TABLE dwh.etl_run
ADD COLUMN IF NOT EXISTS slots Map(LowCardinality(String), LowCardinality(String));

CREATE OR REPLACE VIEW dwh.etl_slots AS
SELECT mapFromArrays(groupArray(shown.name), groupArray(shown.last_slot)) AS slots
FROM (
    SELECT
        name,
        argMax(slot, applied_at) AS last_slot
    FROM dwh.etl_run
    ARRAY JOIN
        mapKeys(slots) AS name,
        mapValues(slots) AS slot
    GROUP BY name
) AS shown;

CREATE TABLE IF NOT EXISTS dwh.dim_pancake__b AS dwh.dim_pancake__a;

CREATE TABLE IF NOT EXISTS dwh.fact_pancake_rating__b AS dwh.fact_pancake_rating__a;

CREATE TABLE IF NOT EXISTS dwh.mart_pancake_quality__b AS dwh.mart_pancake_quality__a;

CREATE TABLE IF NOT EXISTS dwh.dim_category__b AS dwh.dim_category__a;

CREATE TABLE IF NOT EXISTS dwh.dim_customer__b AS dwh.dim_customer__a;

CREATE TABLE IF NOT EXISTS dwh.dim_payment_method__b AS dwh.dim_payment_method__a;

CREATE TABLE IF NOT EXISTS dwh.dim_product__b AS dwh.dim_product__a;

CREATE TABLE IF NOT EXISTS dwh.fact_payment__b AS dwh.fact_payment__a;

CREATE TABLE IF NOT EXISTS dwh.fact_refund__b AS dwh.fact_refund__a;

CREATE TABLE IF NOT EXISTS dwh.fact_order_line__b AS dwh.fact_order_line__a;

CREATE TABLE IF NOT EXISTS dwh.mart_customer_cohorts__b AS dwh.mart_customer_cohorts__a;

CREATE TABLE IF NOT EXISTS dwh.mart_payment_conversion__b AS dwh.mart_payment_conversion__a;

CREATE TABLE IF NOT EXISTS dwh.mart_revenue_daily__b AS dwh.mart_revenue_daily__a;

CREATE OR REPLACE VIEW dwh.dim_pancake AS
SELECT
    pancake_key,
    pancake_id,
    name,
    syrup_type,
    is_buttery
FROM dwh.dim_pancake__a
WHERE (SELECT slots FROM dwh.etl_slots)['dim_pancake'] != 'b'
UNION ALL
SELECT
    pancake_key,
    pancake_id,
    name,
    syrup_type,
    is_buttery
FROM dwh.dim_pancake__b
WHERE (SELECT slots FROM dwh.etl_slots)['dim_pancake'] = 'b';

CREATE OR REPLACE VIEW dwh.fact_pancake_rating AS
SELECT
    pancake_id,
    pancake_key,
    date_key,
    business_date,
    created_at,
    fluffiness_level,
    magical_factor,
    taste_notes
FROM dwh.fact_pancake_rating__a
WHERE (SELECT slots FROM dwh.etl_slots)['fact_pancake_rating'] != 'b'
UNION ALL
SELECT
    pancake_id,
    pancake_key,
    date_key,
    business_date,
    created_at,
    fluffiness_level,
    magical_factor,
    taste_notes
FROM dwh.fact_pancake_rating__b
WHERE (SELECT slots FROM dwh.etl_slots)['fact_pancake_rating'] = 'b';

CREATE OR REPLACE VIEW dwh.mart_pancake_quality AS
SELECT
    business_date,
    syrup_type,
    is_buttery,
    pancakes,
    fluffy_pancakes,
    least_fluffiness,
    most_fluffiness,
    total_fluffiness,
    total_magical_factor
FROM dwh.mart_pancake_quality__a
WHERE (SELECT slots FROM dwh.etl_slots)['mart_pancake_quality'] != 'b'
UNION ALL
SELECT
    business_date,
    syrup_type,
    is_buttery,
    pancakes,
    fluffy_pancakes,
    least_fluffiness,
    most_fluffiness,
    total_fluffiness,
    total_magical_factor
FROM dwh.mart_pancake_quality__b
WHERE (SELECT slots FROM dwh.etl_slots)['mart_pancake_quality'] = 'b';

CREATE OR REPLACE VIEW dwh.dim_category AS
SELECT
    category_key,
    category_id,
    parent_category_id,
    name,
    name_uk,
    slug,
    level,
    path,
    root_name,
    is_active
FROM dwh.dim_category__a
WHERE (SELECT slots FROM dwh.etl_slots)['dim_category'] != 'b'
UNION ALL
SELECT
    category_key,
    category_id,
    parent_category_id,
    name,
    name_uk,
    slug,
    level,
    path,
    root_name,
    is_active
FROM dwh.dim_category__b
WHERE (SELECT slots FROM dwh.etl_slots)['dim_category'] = 'b';

CREATE OR REPLACE VIEW dwh.dim_customer AS
SELECT
    customer_key,
    customer_id,
    user_id,
    full_name,
    email,
    phone,
    segment,
    marketing_opt_in,
    country,
    region,
    city,
    locale,
    is_active,
    is_verified,
    registered_at,
    version_at,
    valid_from,
    valid_to,
    is_current
FROM dwh.dim_customer__a
WHERE (SELECT slots FROM dwh.etl_slots)['dim_customer'] != 'b'
UNION ALL
SELECT
    customer_key,
    customer_id,
    user_id,
    full_name,
    email,
    phone,
    segment,
    marketing_opt_in,
    country,
    region,
    city,
    locale,
    is_active,
    is_verified,
    registered_at,
    version_at,
    valid_from,
    valid_to,
    is_current
FROM dwh.dim_customer__b
WHERE (SELECT slots FROM dwh.etl_slots)['dim_customer'] = 'b';

CREATE OR REPLACE VIEW dwh.dim_payment_method AS
SELECT
    payment_method_key,
    method_id,
    code,
    name,
    provider,
    is_online,
    is_active
FROM dwh.dim_payment_method__a
WHERE (SELECT slots FROM dwh.etl_slots)['dim_payment_method'] != 'b'
UNION ALL
SELECT
    payment_method_key,
    method_id,
    code,
    name,
    provider,
    is_online,
    is_active
FROM dwh.dim_payment_method__b
WHERE (SELECT slots FROM dwh.etl_slots)['dim_payment_method'] = 'b';

CREATE OR REPLACE VIEW dwh.dim_product AS
SELECT
    product_key,
    product_id,
    sku,
    name,
    brand,
    category_id,
    category_key,
    list_price,
    list_currency,
    is_active,
    launched_on,
    version_at,
    valid_from,
    valid_to,
    is_current
FROM dwh.dim_product__a
WHERE (SELECT slots FROM dwh.etl_slots)['dim_product'] != 'b'
UNION ALL
SELECT
    product_key,
    product_id,
    sku,
    name,
    brand,
    category_id,
    category_key,
    list_price,
    list_currency,
    is_active,
    launched_on,
    version_at,
    valid_from,
    valid_to,
    is_current
FROM dwh.dim_product__b
WHERE (SELECT slots FROM dwh.etl_slots)['dim_product'] = 'b';

CREATE OR REPLACE VIEW dwh.fact_payment AS
SELECT
    payment_id,
    order_id,
    customer_key,
    payment_method_key,
    date_key,
    business_date,
    attempted_at,
    settled_at,
    status,
    failure_reason,
    amount,
    currency
FROM dwh.fact_payment__a
WHERE (SELECT slots FROM dwh.etl_slots)['fact_payment'] != 'b'
UNION ALL
SELECT
    payment_id,
    order_id,
    customer_key,
    payment_method_key,
    date_key,
    business_date,
    attempted_at,
    settled_at,
    status,
    failure_reason,
    amount,
    currency
FROM dwh.fact_payment__b
WHERE (SELECT slots FROM dwh.etl_slots)['fact_payment'] = 'b';

CREATE OR REPLACE VIEW dwh.fact_refund AS
SELECT
    refund_id,
    payment_id,
    order_id,
    customer_key,
    payment_method_key,
    date_key,
    business_date,
    refunded_at,
    amount,
    currency,
    reason
FROM dwh.fact_refund__a
WHERE (SELECT slots FROM dwh.etl_slots)['fact_refund'] != 'b'
UNION ALL
SELECT
    refund_id,
    payment_id,
    order_id,
    customer_key,
    payment_method_key,
    date_key,
    business_date,
    refunded_at,
    amount,
    currency,
    reason
FROM dwh.fact_refund__b
WHERE (SELECT slots FROM dwh.etl_slots)['fact_refund'] = 'b';

CREATE OR REPLACE VIEW dwh.fact_order_line AS
SELECT
    order_item_id,
    order_id,
    order_number,
    line_number,
    customer_key,
    product_key,
    category_key,
    date_key,
    business_date,
    ordered_at,
    status,
    channel,
    ship_country,
    ship_region,
    ship_city,
    currency,
    quantity,
    unit_price,
    discount,
    line_total
FROM dwh.fact_order_line__a
WHERE (SELECT slots FROM dwh.etl_slots)['fact_order_line'] != 'b'
UNION ALL
SELECT
    order_item_id,
    order_id,
    order_number,
    line_number,
    customer_key,
    product_key,
    category_key,
    date_key,
    business_date,
    ordered_at,
    status,
    channel,
    ship_country,
    ship_region,
    ship_city,
    currency,
    quantity,
    unit_price,
    discount,
    line_total
FROM dwh.fact_order_line__b
WHERE (SELECT slots FROM dwh.etl_slots)['fact_order_line'] = 'b';

CREATE OR REPLACE VIEW dwh.mart_customer_cohorts AS
SELECT
    cohort_month,
    month_number,
    currency,
    cohort_customers,
    customers,
    orders,
    revenue
FROM dwh.mart_customer_cohorts__a
WHERE (SELECT slots FROM dwh.etl_slots)['mart_customer_cohorts'] != 'b'
UNION ALL
SELECT
    cohort_month,
    month_number,
    currency,
    cohort_customers,
    customers,
    orders,
    revenue
FROM dwh.mart_customer_cohorts__b
WHERE (SELECT slots FROM dwh.etl_slots)['mart_customer_cohorts'] = 'b';

CREATE OR REPLACE VIEW dwh.mart_payment_conversion AS
SELECT
    business_date,
    payment_method,
    provider,
    currency,
    attempts,
    succeeded,
    failed,
    orders,
    paid_orders,
    attempted_amount,
    paid_amount
FROM dwh.mart_payment_conversion__a
WHERE (SELECT slots FROM dwh.etl_slots)['mart_payment_conversion'] != 'b'
UNION ALL
SELECT
    business_date,
    payment_method,
    provider,
    currency,
    attempts,
    succeeded,
    failed,
    orders,
    paid_orders,
    attempted_amount,
    paid_amount
FROM dwh.mart_payment_conversion__b
WHERE (SELECT slots FROM dwh.etl_slots)['mart_payment_conversion'] = 'b';

CREATE OR REPLACE VIEW dwh.mart_revenue_daily AS
SELECT
    business_date,
    category,
    region,
    currency,
    lines,
    orders,
    quantity,
    revenue,
    net_revenue
FROM dwh.mart_revenue_daily__a
WHERE (SELECT slots FROM dwh.etl_slots)['mart_revenue_daily'] != 'b'
UNION ALL
SELECT
    business_date,
    category,
    region,
    currency,
    lines,
    orders,
    quantity,
    revenue,
    net_revenue
FROM dwh.mart_revenue_daily__b
WHERE (SELECT slots FROM dwh.etl_slots)['mart_revenue_daily'] = 'b';
