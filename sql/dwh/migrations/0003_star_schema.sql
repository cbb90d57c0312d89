-- The star schema. No foreign keys: each model's law proves that every key of a fact resolves, and a
-- merge may then load in any order.
CREATE TABLE dwh.dim_date (
    date_key INTEGER PRIMARY KEY,
    date DATE,
    year SMALLINT NOT NULL,
    quarter SMALLINT NOT NULL,
    month SMALLINT NOT NULL,
    month_name VARCHAR(9) NOT NULL,
    day SMALLINT NOT NULL,
    iso_year SMALLINT NOT NULL,
    iso_week SMALLINT NOT NULL,
    weekday SMALLINT NOT NULL,
    weekday_name VARCHAR(9) NOT NULL,
    is_weekend BOOLEAN NOT NULL
);
COMMENT ON TABLE dwh.dim_date IS 'Days of 2015 to 2035, seeded by a migration';
COMMENT ON COLUMN dwh.dim_date.date_key IS 'yyyymmdd; -1 unknown';
COMMENT ON COLUMN dwh.dim_date.date IS 'NULL for the unknown member only';
COMMENT ON COLUMN dwh.dim_date.weekday IS '1 Monday to 7 Sunday';

CREATE TABLE dwh.dim_category (
    category_key BIGINT PRIMARY KEY,
    category_id CHAR(36) NOT NULL,
    parent_category_id CHAR(36),
    name VARCHAR(120) NOT NULL,
    name_uk VARCHAR(120) NOT NULL,
    slug VARCHAR(140) NOT NULL,
    level SMALLINT NOT NULL,
    path TEXT NOT NULL,
    root_name VARCHAR(120) NOT NULL,
    is_active BOOLEAN NOT NULL
);
CREATE UNIQUE INDEX ux_dim_category_id ON dwh.dim_category (category_id);
COMMENT ON TABLE dwh.dim_category IS 'Type 1, of catalog.categories';
COMMENT ON COLUMN dwh.dim_category.parent_category_id IS 'NULL for a root';
COMMENT ON COLUMN dwh.dim_category.level IS '1 for a root';
COMMENT ON COLUMN dwh.dim_category.path IS 'A > B > C';

CREATE TABLE dwh.dim_payment_method (
    payment_method_key BIGINT PRIMARY KEY,
    method_id SMALLINT NOT NULL,
    code VARCHAR(32) NOT NULL,
    name VARCHAR(100) NOT NULL,
    provider VARCHAR(60) NOT NULL,
    is_online BOOLEAN NOT NULL,
    is_active BOOLEAN NOT NULL
);
CREATE UNIQUE INDEX ux_dim_payment_method_id ON dwh.dim_payment_method (method_id);
COMMENT ON TABLE dwh.dim_payment_method IS 'Type 1, of payments.payment_methods';

CREATE TABLE dwh.dim_product (
    product_key BIGINT PRIMARY KEY,
    product_id CHAR(36) NOT NULL,
    sku VARCHAR(40) NOT NULL,
    name VARCHAR(200) NOT NULL,
    brand VARCHAR(80) NOT NULL,
    category_id CHAR(36) NOT NULL,
    category_key BIGINT NOT NULL,
    list_price NUMERIC(12, 2),
    list_currency CHAR(3),
    is_active BOOLEAN NOT NULL,
    launched_on DATE,
    version_at TIMESTAMPTZ NOT NULL,
    valid_from TIMESTAMPTZ NOT NULL,
    valid_to TIMESTAMPTZ NOT NULL,
    is_current BOOLEAN NOT NULL
);
CREATE INDEX ix_dim_product_id ON dwh.dim_product (product_id, valid_from);
COMMENT ON TABLE dwh.dim_product IS 'SCD2, of catalog.products with the list price in force';
COMMENT ON COLUMN dwh.dim_product.list_price IS 'In force at version_at; NULL without any price';
COMMENT ON COLUMN dwh.dim_product.version_at IS 'Greatest updated_at of the product and of its latest price';
COMMENT ON COLUMN dwh.dim_product.valid_from IS 'Inclusive; 1900-01-01 for the first version';
COMMENT ON COLUMN dwh.dim_product.valid_to IS 'Exclusive; 2299-12-31 while current';

CREATE TABLE dwh.dim_customer (
    customer_key BIGINT PRIMARY KEY,
    customer_id CHAR(36) NOT NULL,
    user_id CHAR(36),
    full_name VARCHAR(201) NOT NULL,
    email VARCHAR(255) NOT NULL,
    phone VARCHAR(32),
    segment VARCHAR(20) NOT NULL,
    marketing_opt_in BOOLEAN NOT NULL,
    country CHAR(2),
    region VARCHAR(80),
    city VARCHAR(80),
    locale VARCHAR(10),
    is_active BOOLEAN,
    is_verified BOOLEAN,
    registered_at TIMESTAMPTZ NOT NULL,
    version_at TIMESTAMPTZ NOT NULL,
    valid_from TIMESTAMPTZ NOT NULL,
    valid_to TIMESTAMPTZ NOT NULL,
    is_current BOOLEAN NOT NULL
);
CREATE INDEX ix_dim_customer_id ON dwh.dim_customer (customer_id, valid_from);
COMMENT ON TABLE dwh.dim_customer IS 'SCD2, conformed of orders.customers, auth.users and orders.addresses';
COMMENT ON COLUMN dwh.dim_customer.user_id IS 'NULL without an account';
COMMENT ON COLUMN dwh.dim_customer.country IS 'Country, region and city of the default shipping address';
COMMENT ON COLUMN dwh.dim_customer.version_at IS 'Greatest updated_at of customer, user and address';
COMMENT ON COLUMN dwh.dim_customer.valid_from IS 'Inclusive; 1900-01-01 for the first version';
COMMENT ON COLUMN dwh.dim_customer.valid_to IS 'Exclusive; 2299-12-31 while current';

CREATE TABLE dwh.fact_order_line (
    order_item_id CHAR(36) PRIMARY KEY,
    order_id CHAR(36) NOT NULL,
    order_number VARCHAR(24),
    line_number SMALLINT NOT NULL,
    customer_key BIGINT NOT NULL,
    product_key BIGINT NOT NULL,
    category_key BIGINT NOT NULL,
    date_key INTEGER NOT NULL,
    business_date DATE,
    ordered_at TIMESTAMPTZ,
    status VARCHAR(20),
    channel VARCHAR(20),
    ship_country CHAR(2),
    ship_region VARCHAR(80),
    ship_city VARCHAR(80),
    currency CHAR(3),
    quantity INTEGER NOT NULL,
    unit_price NUMERIC(12, 2) NOT NULL,
    discount NUMERIC(12, 2) NOT NULL,
    line_total NUMERIC(14, 2) NOT NULL
);
CREATE INDEX ix_fact_order_line_business_date ON dwh.fact_order_line (business_date);
COMMENT ON TABLE dwh.fact_order_line IS 'One row a line of an order';
COMMENT ON COLUMN dwh.fact_order_line.order_number IS 'NULL, as all that comes of the order, when the order is unknown';
COMMENT ON COLUMN dwh.fact_order_line.business_date IS 'Europe/Kyiv day of ordered_at';

CREATE TABLE dwh.fact_payment (
    payment_id CHAR(36) PRIMARY KEY,
    order_id CHAR(36) NOT NULL,
    customer_key BIGINT NOT NULL,
    payment_method_key BIGINT NOT NULL,
    date_key INTEGER NOT NULL,
    business_date DATE NOT NULL,
    attempted_at TIMESTAMPTZ NOT NULL,
    settled_at TIMESTAMPTZ,
    status VARCHAR(20) NOT NULL,
    failure_reason VARCHAR(64),
    amount NUMERIC(14, 2) NOT NULL,
    currency CHAR(3) NOT NULL
);
CREATE INDEX ix_fact_payment_business_date ON dwh.fact_payment (business_date);
COMMENT ON TABLE dwh.fact_payment IS 'One row an attempt to pay';
COMMENT ON COLUMN dwh.fact_payment.business_date IS 'Europe/Kyiv day of attempted_at';

CREATE TABLE dwh.fact_refund (
    refund_id CHAR(36) PRIMARY KEY,
    payment_id CHAR(36) NOT NULL,
    order_id CHAR(36),
    customer_key BIGINT NOT NULL,
    payment_method_key BIGINT NOT NULL,
    date_key INTEGER NOT NULL,
    business_date DATE NOT NULL,
    refunded_at TIMESTAMPTZ NOT NULL,
    amount NUMERIC(14, 2) NOT NULL,
    currency CHAR(3) NOT NULL,
    reason VARCHAR(40) NOT NULL
);
CREATE INDEX ix_fact_refund_business_date ON dwh.fact_refund (business_date);
COMMENT ON TABLE dwh.fact_refund IS 'One row a refund';
COMMENT ON COLUMN dwh.fact_refund.order_id IS 'NULL when the payment is unknown';
COMMENT ON COLUMN dwh.fact_refund.business_date IS 'Europe/Kyiv day of refunded_at';

CREATE TABLE dwh.dim_pancake (
    pancake_key BIGINT PRIMARY KEY,
    pancake_id INTEGER NOT NULL,
    name VARCHAR(100) NOT NULL,
    syrup_type VARCHAR(50) NOT NULL,
    is_buttery BOOLEAN NOT NULL
);
CREATE UNIQUE INDEX ux_dim_pancake_id ON dwh.dim_pancake (pancake_id);
COMMENT ON TABLE dwh.dim_pancake IS 'Type 1, of pancake.pancakes';

CREATE TABLE dwh.fact_pancake_rating (
    pancake_id INTEGER PRIMARY KEY,
    pancake_key BIGINT NOT NULL,
    date_key INTEGER NOT NULL,
    business_date DATE NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    fluffiness_level INTEGER NOT NULL,
    magical_factor NUMERIC(6, 2) NOT NULL,
    taste_notes TEXT
);
CREATE INDEX ix_fact_pancake_rating_business_date ON dwh.fact_pancake_rating (business_date);
COMMENT ON TABLE dwh.fact_pancake_rating IS 'One row a rated pancake';
COMMENT ON COLUMN dwh.fact_pancake_rating.business_date IS 'Europe/Kyiv day of created_at';
