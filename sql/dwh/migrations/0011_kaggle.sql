-- The files of Kaggle's datasets that have a contract: current state, one table per file.
CREATE TABLE ods.olist_order_items (
    order_id CHAR(32) NOT NULL,
    order_item_id INTEGER NOT NULL,
    product_id CHAR(32) NOT NULL,
    seller_id CHAR(32) NOT NULL,
    shipping_limit_date TIMESTAMPTZ NOT NULL,
    price NUMERIC(10, 2) NOT NULL,
    freight_value NUMERIC(10, 2) NOT NULL,
    _snapshot TIMESTAMPTZ NOT NULL,
    _run TEXT NOT NULL,
    _deleted_at TIMESTAMPTZ,
    PRIMARY KEY (order_id, order_item_id)
);
COMMENT ON TABLE ods.olist_order_items IS 'Current state of kaggle.olist_order_items';

CREATE TABLE ods.olist_sellers (
    seller_id CHAR(32) PRIMARY KEY,
    seller_zip_code_prefix VARCHAR(5) NOT NULL,
    seller_city VARCHAR(100) NOT NULL,
    seller_state CHAR(2) NOT NULL,
    _snapshot TIMESTAMPTZ NOT NULL,
    _run TEXT NOT NULL,
    _deleted_at TIMESTAMPTZ
);
COMMENT ON TABLE ods.olist_sellers IS 'Current state of kaggle.olist_sellers';
