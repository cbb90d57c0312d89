-- The calendar, and the unknown member (-1) of every dimension: the same rows as in PostgreSQL. Each
-- statement adds only what is not there yet.
INSERT INTO dwh.dim_date
SELECT
    toInt32(formatDateTime(days.day, '%Y%m%d')) AS date_key,
    days.day AS date,
    toYear(days.day) AS year,
    toQuarter(days.day) AS quarter,
    toMonth(days.day) AS month,
    formatDateTime(days.day, '%M') AS month_name,
    toDayOfMonth(days.day) AS day_of_month,
    toISOYear(days.day) AS iso_year,
    toISOWeek(days.day) AS iso_week,
    toDayOfWeek(days.day) AS weekday,
    formatDateTime(days.day, '%W') AS weekday_name,
    toDayOfWeek(days.day) >= 6 AS is_weekend
FROM (SELECT toDate32('2015-01-01') + number AS day FROM numbers(7670)) AS days
WHERE toInt32(formatDateTime(days.day, '%Y%m%d')) NOT IN (SELECT dim_date.date_key FROM dwh.dim_date);

INSERT INTO dwh.dim_date
SELECT
    -1 AS date_key,
    NULL AS date,
    0 AS year,
    0 AS quarter,
    0 AS month,
    'Unknown' AS month_name,
    0 AS day,
    0 AS iso_year,
    0 AS iso_week,
    0 AS weekday,
    'Unknown' AS weekday_name,
    FALSE AS is_weekend
WHERE -1 NOT IN (SELECT date_key FROM dwh.dim_date);

INSERT INTO dwh.dim_category__a
SELECT
    -1 AS category_key,
    '00000000-0000-0000-0000-000000000000' AS category_id,
    NULL AS parent_category_id,
    'Unknown' AS name,
    'Невідомо' AS name_uk,
    'unknown' AS slug,
    1 AS level,
    'Unknown' AS path,
    'Unknown' AS root_name,
    FALSE AS is_active
WHERE -1 NOT IN (SELECT category_key FROM dwh.dim_category__a);

INSERT INTO dwh.dim_payment_method__a
SELECT
    -1 AS payment_method_key,
    -1 AS method_id,
    'unknown' AS code,
    'Unknown' AS name,
    'Unknown' AS provider,
    FALSE AS is_online,
    FALSE AS is_active
WHERE -1 NOT IN (SELECT payment_method_key FROM dwh.dim_payment_method__a);

INSERT INTO dwh.dim_product__a
SELECT
    -1 AS product_key,
    '00000000-0000-0000-0000-000000000000' AS product_id,
    'unknown' AS sku,
    'Unknown' AS name,
    'Unknown' AS brand,
    '00000000-0000-0000-0000-000000000000' AS category_id,
    -1 AS category_key,
    NULL AS list_price,
    NULL AS list_currency,
    FALSE AS is_active,
    NULL AS launched_on,
    toDateTime64('1900-01-01 00:00:00', 6, 'UTC') AS version_at,
    toDateTime64('1900-01-01 00:00:00', 6, 'UTC') AS valid_from,
    toDateTime64('2299-12-31 00:00:00', 6, 'UTC') AS valid_to,
    TRUE AS is_current
WHERE -1 NOT IN (SELECT product_key FROM dwh.dim_product__a);

INSERT INTO dwh.dim_customer__a
SELECT
    -1 AS customer_key,
    '00000000-0000-0000-0000-000000000000' AS customer_id,
    NULL AS user_id,
    'Unknown' AS full_name,
    'unknown' AS email,
    NULL AS phone,
    'unknown' AS segment,
    FALSE AS marketing_opt_in,
    NULL AS country,
    NULL AS region,
    NULL AS city,
    NULL AS locale,
    NULL AS is_active,
    NULL AS is_verified,
    toDateTime64('1900-01-01 00:00:00', 6, 'UTC') AS registered_at,
    toDateTime64('1900-01-01 00:00:00', 6, 'UTC') AS version_at,
    toDateTime64('1900-01-01 00:00:00', 6, 'UTC') AS valid_from,
    toDateTime64('2299-12-31 00:00:00', 6, 'UTC') AS valid_to,
    TRUE AS is_current
WHERE -1 NOT IN (SELECT customer_key FROM dwh.dim_customer__a);

INSERT INTO dwh.dim_pancake__a
SELECT
    -1 AS pancake_key,
    -1 AS pancake_id,
    'Unknown' AS name,
    'Unknown' AS syrup_type,
    FALSE AS is_buttery
WHERE -1 NOT IN (SELECT pancake_key FROM dwh.dim_pancake__a);
