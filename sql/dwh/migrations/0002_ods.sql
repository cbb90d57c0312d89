-- The typed current state, one table a source table. Columns follow the source contracts; _snapshot
-- and _run say which extract a row's values came with, _deleted_at when the source no longer had it.
-- Indexes serve the transform, which reads the rows around a changed key.
CREATE TABLE ods.roles (
    id SMALLINT PRIMARY KEY,
    code VARCHAR(32) NOT NULL,
    name VARCHAR(100) NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    _snapshot TIMESTAMPTZ NOT NULL,
    _run TEXT NOT NULL,
    _deleted_at TIMESTAMPTZ
);
COMMENT ON TABLE ods.roles IS 'Current state of auth.roles';

CREATE TABLE ods.sessions (
    id CHAR(36) PRIMARY KEY,
    user_id CHAR(36) NOT NULL,
    ip_address VARCHAR(45) NOT NULL,
    user_agent VARCHAR(255) NOT NULL,
    device VARCHAR(32) NOT NULL,
    pages_viewed INTEGER NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    ended_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    _snapshot TIMESTAMPTZ NOT NULL,
    _run TEXT NOT NULL,
    _deleted_at TIMESTAMPTZ
);
COMMENT ON TABLE ods.sessions IS 'Current state of auth.sessions';

CREATE TABLE ods.users (
    id CHAR(36) PRIMARY KEY,
    customer_id CHAR(36),
    role_id SMALLINT NOT NULL,
    email VARCHAR(255) NOT NULL,
    password_hash VARCHAR(100) NOT NULL,
    full_name VARCHAR(200) NOT NULL,
    phone VARCHAR(32),
    locale VARCHAR(10) NOT NULL,
    is_active BOOLEAN NOT NULL,
    is_verified BOOLEAN NOT NULL,
    failed_logins SMALLINT NOT NULL,
    registered_at TIMESTAMPTZ NOT NULL,
    last_login_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    _snapshot TIMESTAMPTZ NOT NULL,
    _run TEXT NOT NULL,
    _deleted_at TIMESTAMPTZ
);
CREATE INDEX ix_ods_users_customer_id ON ods.users (customer_id);
COMMENT ON TABLE ods.users IS 'Current state of auth.users';

CREATE TABLE ods.categories (
    id CHAR(36) PRIMARY KEY,
    parent_category_id CHAR(36),
    name VARCHAR(120) NOT NULL,
    name_uk VARCHAR(120) NOT NULL,
    slug VARCHAR(140) NOT NULL,
    sort_order SMALLINT NOT NULL,
    is_active BOOLEAN NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    _snapshot TIMESTAMPTZ NOT NULL,
    _run TEXT NOT NULL,
    _deleted_at TIMESTAMPTZ
);
CREATE INDEX ix_ods_categories_parent_category_id ON ods.categories (parent_category_id);
COMMENT ON TABLE ods.categories IS 'Current state of catalog.categories';

CREATE TABLE ods.inventory (
    product_id CHAR(36) NOT NULL,
    warehouse_code VARCHAR(16) NOT NULL,
    quantity INTEGER NOT NULL,
    reserved INTEGER NOT NULL,
    reorder_level INTEGER NOT NULL,
    counted_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    _snapshot TIMESTAMPTZ NOT NULL,
    _run TEXT NOT NULL,
    _deleted_at TIMESTAMPTZ,
    PRIMARY KEY (product_id, warehouse_code)
);
COMMENT ON TABLE ods.inventory IS 'Current state of catalog.inventory';

CREATE TABLE ods.product_prices (
    id CHAR(36) PRIMARY KEY,
    product_id CHAR(36) NOT NULL,
    price NUMERIC(12, 2) NOT NULL,
    currency CHAR(3) NOT NULL,
    valid_from TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    _snapshot TIMESTAMPTZ NOT NULL,
    _run TEXT NOT NULL,
    _deleted_at TIMESTAMPTZ
);
CREATE INDEX ix_ods_product_prices_product_id ON ods.product_prices (product_id);
COMMENT ON TABLE ods.product_prices IS 'Current state of catalog.product_prices';

CREATE TABLE ods.products (
    id CHAR(36) PRIMARY KEY,
    category_id CHAR(36) NOT NULL,
    sku VARCHAR(40) NOT NULL,
    name VARCHAR(200) NOT NULL,
    brand VARCHAR(80) NOT NULL,
    description TEXT,
    weight_kg NUMERIC(8, 3),
    attributes TEXT,
    is_active BOOLEAN NOT NULL,
    launched_on DATE,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    _snapshot TIMESTAMPTZ NOT NULL,
    _run TEXT NOT NULL,
    _deleted_at TIMESTAMPTZ
);
CREATE INDEX ix_ods_products_category_id ON ods.products (category_id);
COMMENT ON TABLE ods.products IS 'Current state of catalog.products';

CREATE TABLE ods.addresses (
    id CHAR(36) PRIMARY KEY,
    customer_id CHAR(36) NOT NULL,
    kind VARCHAR(16) NOT NULL,
    is_default BOOLEAN NOT NULL,
    country CHAR(2) NOT NULL,
    region VARCHAR(80) NOT NULL,
    city VARCHAR(80) NOT NULL,
    street VARCHAR(160) NOT NULL,
    postal_code VARCHAR(16) NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    _snapshot TIMESTAMPTZ NOT NULL,
    _run TEXT NOT NULL,
    _deleted_at TIMESTAMPTZ
);
CREATE INDEX ix_ods_addresses_customer_id ON ods.addresses (customer_id);
COMMENT ON TABLE ods.addresses IS 'Current state of orders.addresses';

CREATE TABLE ods.customers (
    id CHAR(36) PRIMARY KEY,
    first_name VARCHAR(100) NOT NULL,
    last_name VARCHAR(100) NOT NULL,
    email VARCHAR(255) NOT NULL,
    phone VARCHAR(32),
    birth_date DATE,
    segment VARCHAR(20) NOT NULL,
    marketing_opt_in BOOLEAN NOT NULL,
    registered_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    _snapshot TIMESTAMPTZ NOT NULL,
    _run TEXT NOT NULL,
    _deleted_at TIMESTAMPTZ
);
COMMENT ON TABLE ods.customers IS 'Current state of orders.customers';

CREATE TABLE ods.order_items (
    id CHAR(36) PRIMARY KEY,
    order_id CHAR(36) NOT NULL,
    line_number SMALLINT NOT NULL,
    product_id CHAR(36) NOT NULL,
    quantity INTEGER NOT NULL,
    unit_price NUMERIC(12, 2) NOT NULL,
    discount NUMERIC(12, 2) NOT NULL,
    line_total NUMERIC(14, 2) NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    _snapshot TIMESTAMPTZ NOT NULL,
    _run TEXT NOT NULL,
    _deleted_at TIMESTAMPTZ
);
CREATE INDEX ix_ods_order_items_order_id ON ods.order_items (order_id);
CREATE INDEX ix_ods_order_items_product_id ON ods.order_items (product_id);
COMMENT ON TABLE ods.order_items IS 'Current state of orders.order_items';

CREATE TABLE ods.orders (
    id CHAR(36) PRIMARY KEY,
    order_number VARCHAR(24) NOT NULL,
    customer_id CHAR(36) NOT NULL,
    shipping_address_id CHAR(36) NOT NULL,
    status VARCHAR(20) NOT NULL,
    channel VARCHAR(20) NOT NULL,
    currency CHAR(3) NOT NULL,
    subtotal NUMERIC(14, 2) NOT NULL,
    shipping_fee NUMERIC(12, 2) NOT NULL,
    total NUMERIC(14, 2) NOT NULL,
    customer_note VARCHAR(255),
    ordered_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    _snapshot TIMESTAMPTZ NOT NULL,
    _run TEXT NOT NULL,
    _deleted_at TIMESTAMPTZ
);
CREATE INDEX ix_ods_orders_customer_id ON ods.orders (customer_id);
CREATE INDEX ix_ods_orders_shipping_address_id ON ods.orders (shipping_address_id);
COMMENT ON TABLE ods.orders IS 'Current state of orders.orders';

CREATE TABLE ods.payment_methods (
    id SMALLINT PRIMARY KEY,
    code VARCHAR(32) NOT NULL,
    name VARCHAR(100) NOT NULL,
    provider VARCHAR(60) NOT NULL,
    is_online BOOLEAN NOT NULL,
    is_active BOOLEAN NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    _snapshot TIMESTAMPTZ NOT NULL,
    _run TEXT NOT NULL,
    _deleted_at TIMESTAMPTZ
);
COMMENT ON TABLE ods.payment_methods IS 'Current state of payments.payment_methods';

CREATE TABLE ods.payments (
    id CHAR(36) PRIMARY KEY,
    order_id CHAR(36) NOT NULL,
    method_id SMALLINT NOT NULL,
    amount NUMERIC(14, 2) NOT NULL,
    currency CHAR(3) NOT NULL,
    status VARCHAR(20) NOT NULL,
    failure_reason VARCHAR(64),
    provider_reference VARCHAR(64) NOT NULL,
    attempted_at TIMESTAMPTZ NOT NULL,
    settled_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    _snapshot TIMESTAMPTZ NOT NULL,
    _run TEXT NOT NULL,
    _deleted_at TIMESTAMPTZ
);
CREATE INDEX ix_ods_payments_order_id ON ods.payments (order_id);
COMMENT ON TABLE ods.payments IS 'Current state of payments.payments';

CREATE TABLE ods.refunds (
    id CHAR(36) PRIMARY KEY,
    payment_id CHAR(36) NOT NULL,
    amount NUMERIC(14, 2) NOT NULL,
    currency CHAR(3) NOT NULL,
    reason VARCHAR(40) NOT NULL,
    refunded_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    _snapshot TIMESTAMPTZ NOT NULL,
    _run TEXT NOT NULL,
    _deleted_at TIMESTAMPTZ
);
CREATE INDEX ix_ods_refunds_payment_id ON ods.refunds (payment_id);
COMMENT ON TABLE ods.refunds IS 'Current state of payments.refunds';

CREATE TABLE ods.pancakes (
    id INTEGER PRIMARY KEY,
    name VARCHAR(100) NOT NULL,
    fluffiness_level INTEGER NOT NULL,
    syrup_type VARCHAR(50) NOT NULL,
    is_buttery BOOLEAN NOT NULL,
    magical_factor NUMERIC(6, 2) NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    taste_notes TEXT,
    _snapshot TIMESTAMPTZ NOT NULL,
    _run TEXT NOT NULL,
    _deleted_at TIMESTAMPTZ
);
COMMENT ON TABLE ods.pancakes IS 'Current state of pancake.pancakes';
