-- The star schema, with the columns and the order of PostgreSQL's, and which runs it shows. The server
-- has no transaction for these statements, so each is safe to repeat. `__a` is what 0006 puts behind a view.
CREATE TABLE IF NOT EXISTS dwh.etl_run (
    run_id String,
    subject LowCardinality(String),
    applied_at DateTime64(6, 'UTC')
)
ENGINE = MergeTree
ORDER BY (subject, applied_at, run_id);

CREATE TABLE IF NOT EXISTS dwh.dim_date (
    date_key Int32,
    date Nullable(Date32),
    year Int16,
    quarter Int16,
    month Int16,
    month_name LowCardinality(String),
    day Int16,
    iso_year Int16,
    iso_week Int16,
    weekday Int16,
    weekday_name LowCardinality(String),
    is_weekend Bool
)
ENGINE = MergeTree
ORDER BY date_key;

CREATE TABLE IF NOT EXISTS dwh.dim_category__a (
    category_key Int64,
    category_id String,
    parent_category_id Nullable(String),
    name String,
    name_uk String,
    slug String,
    level Int16,
    path String,
    root_name LowCardinality(String),
    is_active Bool
)
ENGINE = MergeTree
ORDER BY category_key;

CREATE TABLE IF NOT EXISTS dwh.dim_payment_method__a (
    payment_method_key Int64,
    method_id Int16,
    code LowCardinality(String),
    name String,
    provider LowCardinality(String),
    is_online Bool,
    is_active Bool
)
ENGINE = MergeTree
ORDER BY payment_method_key;

CREATE TABLE IF NOT EXISTS dwh.dim_product__a (
    product_key Int64,
    product_id String,
    sku String,
    name String,
    brand LowCardinality(String),
    category_id String,
    category_key Int64,
    list_price Nullable(Decimal(12, 2)),
    list_currency LowCardinality(Nullable(String)),
    is_active Bool,
    launched_on Nullable(Date32),
    version_at DateTime64(6, 'UTC'),
    valid_from DateTime64(6, 'UTC'),
    valid_to DateTime64(6, 'UTC'),
    is_current Bool
)
ENGINE = MergeTree
ORDER BY (product_id, valid_from);

CREATE TABLE IF NOT EXISTS dwh.dim_customer__a (
    customer_key Int64,
    customer_id String,
    user_id Nullable(String),
    full_name String,
    email String,
    phone Nullable(String),
    segment LowCardinality(String),
    marketing_opt_in Bool,
    country LowCardinality(Nullable(String)),
    region LowCardinality(Nullable(String)),
    city LowCardinality(Nullable(String)),
    locale LowCardinality(Nullable(String)),
    is_active Nullable(Bool),
    is_verified Nullable(Bool),
    registered_at DateTime64(6, 'UTC'),
    version_at DateTime64(6, 'UTC'),
    valid_from DateTime64(6, 'UTC'),
    valid_to DateTime64(6, 'UTC'),
    is_current Bool
)
ENGINE = MergeTree
ORDER BY (customer_id, valid_from);

CREATE TABLE IF NOT EXISTS dwh.dim_pancake__a (
    pancake_key Int64,
    pancake_id Int32,
    name String,
    syrup_type LowCardinality(String),
    is_buttery Bool
)
ENGINE = MergeTree
ORDER BY pancake_key;

CREATE TABLE IF NOT EXISTS dwh.fact_order_line__a (
    order_item_id String,
    order_id String,
    order_number Nullable(String),
    line_number Int16,
    customer_key Int64,
    product_key Int64,
    category_key Int64,
    date_key Int32,
    business_date Nullable(Date32),
    ordered_at Nullable(DateTime64(6, 'UTC')),
    status LowCardinality(Nullable(String)),
    channel LowCardinality(Nullable(String)),
    ship_country LowCardinality(Nullable(String)),
    ship_region LowCardinality(Nullable(String)),
    ship_city LowCardinality(Nullable(String)),
    currency LowCardinality(Nullable(String)),
    quantity Int32,
    unit_price Decimal(12, 2),
    discount Decimal(12, 2),
    line_total Decimal(14, 2)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(business_date)
ORDER BY (business_date, product_key, order_item_id)
SETTINGS allow_nullable_key = 1;

CREATE TABLE IF NOT EXISTS dwh.fact_payment__a (
    payment_id String,
    order_id String,
    customer_key Int64,
    payment_method_key Int64,
    date_key Int32,
    business_date Date32,
    attempted_at DateTime64(6, 'UTC'),
    settled_at Nullable(DateTime64(6, 'UTC')),
    status LowCardinality(String),
    failure_reason LowCardinality(Nullable(String)),
    amount Decimal(14, 2),
    currency LowCardinality(String)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(business_date)
ORDER BY (business_date, payment_method_key, payment_id);

CREATE TABLE IF NOT EXISTS dwh.fact_refund__a (
    refund_id String,
    payment_id String,
    order_id Nullable(String),
    customer_key Int64,
    payment_method_key Int64,
    date_key Int32,
    business_date Date32,
    refunded_at DateTime64(6, 'UTC'),
    amount Decimal(14, 2),
    currency LowCardinality(String),
    reason LowCardinality(String)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(business_date)
ORDER BY (business_date, payment_method_key, refund_id);

CREATE TABLE IF NOT EXISTS dwh.fact_pancake_rating__a (
    pancake_id Int32,
    pancake_key Int64,
    date_key Int32,
    business_date Date32,
    created_at DateTime64(6, 'UTC'),
    fluffiness_level Int32,
    magical_factor Decimal(6, 2),
    taste_notes Nullable(String)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(business_date)
ORDER BY (business_date, pancake_id);
