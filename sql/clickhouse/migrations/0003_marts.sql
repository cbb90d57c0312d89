-- The marts: each is built anew of the star schema by its sql/clickhouse/models/<mart>/build.sql, which
-- says what its columns mean.
CREATE TABLE IF NOT EXISTS dwh.mart_revenue_daily__a (
    business_date Nullable(Date32),
    category LowCardinality(String),
    region LowCardinality(String),
    currency LowCardinality(String),
    lines UInt64,
    orders UInt64,
    quantity Int64,
    revenue Decimal(38, 2),
    net_revenue Decimal(38, 2)
)
ENGINE = MergeTree
ORDER BY (business_date, category, region, currency)
SETTINGS allow_nullable_key = 1;

CREATE TABLE IF NOT EXISTS dwh.mart_customer_cohorts__a (
    cohort_month Date32,
    month_number UInt16,
    currency LowCardinality(String),
    cohort_customers UInt64,
    customers UInt64,
    orders UInt64,
    revenue Decimal(38, 2)
)
ENGINE = MergeTree
ORDER BY (cohort_month, month_number, currency);

CREATE TABLE IF NOT EXISTS dwh.mart_payment_conversion__a (
    business_date Date32,
    payment_method LowCardinality(String),
    provider LowCardinality(String),
    currency LowCardinality(String),
    attempts UInt64,
    succeeded UInt64,
    failed UInt64,
    orders UInt64,
    paid_orders UInt64,
    attempted_amount Decimal(38, 2),
    paid_amount Decimal(38, 2)
)
ENGINE = MergeTree
ORDER BY (business_date, payment_method, provider, currency);

CREATE TABLE IF NOT EXISTS dwh.mart_pancake_quality__a (
    business_date Date32,
    syrup_type LowCardinality(String),
    is_buttery Bool,
    pancakes UInt64,
    fluffy_pancakes UInt64,
    least_fluffiness Int32,
    most_fluffiness Int32,
    total_fluffiness Int64,
    total_magical_factor Decimal(38, 2)
)
ENGINE = MergeTree
ORDER BY (business_date, syrup_type, is_buttery);
