-- The calendar, and the unknown member (-1) of every dimension, which facts point to where a key is
-- not known. Its natural key is the nil UUID, or -1.
INSERT INTO dwh.dim_date (
    date_key, date, year, quarter, month, month_name, day, iso_year, iso_week, weekday, weekday_name, is_weekend
)
SELECT
    to_char(days.day, 'YYYYMMDD')::INTEGER AS date_key,
    days.day::DATE AS date,
    extract(YEAR FROM days.day)::SMALLINT AS year,
    extract(QUARTER FROM days.day)::SMALLINT AS quarter,
    extract(MONTH FROM days.day)::SMALLINT AS month,
    to_char(days.day, 'FMMonth') AS month_name,
    extract(DAY FROM days.day)::SMALLINT AS day,
    extract(ISOYEAR FROM days.day)::SMALLINT AS iso_year,
    extract(WEEK FROM days.day)::SMALLINT AS iso_week,
    extract(ISODOW FROM days.day)::SMALLINT AS weekday,
    to_char(days.day, 'FMDay') AS weekday_name,
    extract(ISODOW FROM days.day) >= 6 AS is_weekend
FROM generate_series(TIMESTAMP '2015-01-01', TIMESTAMP '2035-12-31', INTERVAL '1 day') AS days (day)
UNION ALL
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
    FALSE AS is_weekend;

INSERT INTO dwh.dim_category (
    category_key, category_id, parent_category_id, name, name_uk, slug, level, path, root_name, is_active
)
VALUES (
    -1, '00000000-0000-0000-0000-000000000000', NULL, 'Unknown', 'Невідомо', 'unknown', 1, 'Unknown', 'Unknown', FALSE
);

INSERT INTO dwh.dim_payment_method (payment_method_key, method_id, code, name, provider, is_online, is_active)
VALUES (-1, -1, 'unknown', 'Unknown', 'Unknown', FALSE, FALSE);

INSERT INTO dwh.dim_product (
    product_key, product_id, sku, name, brand, category_id, category_key, list_price, list_currency, is_active,
    launched_on, version_at, valid_from, valid_to, is_current
)
VALUES (
    -1, '00000000-0000-0000-0000-000000000000', 'unknown', 'Unknown', 'Unknown',
    '00000000-0000-0000-0000-000000000000', -1, NULL, NULL, FALSE, NULL,
    '1900-01-01 00:00:00+00', '1900-01-01 00:00:00+00', '2299-12-31 00:00:00+00', TRUE
);

INSERT INTO dwh.dim_customer (
    customer_key, customer_id, user_id, full_name, email, phone, segment, marketing_opt_in, country, region, city,
    locale, is_active, is_verified, registered_at, version_at, valid_from, valid_to, is_current
)
VALUES (
    -1, '00000000-0000-0000-0000-000000000000', NULL, 'Unknown', 'unknown', NULL, 'unknown', FALSE, NULL, NULL, NULL,
    NULL, NULL, NULL, '1900-01-01 00:00:00+00', '1900-01-01 00:00:00+00', '1900-01-01 00:00:00+00',
    '2299-12-31 00:00:00+00', TRUE
);

INSERT INTO dwh.dim_pancake (pancake_key, pancake_id, name, syrup_type, is_buttery)
VALUES (-1, -1, 'Unknown', 'Unknown', FALSE);
