-- Indexes of the declared joins.
-- dwh.dim_date has another comment
COMMENT ON TABLE dwh.dim_date IS 'Days of 2015 to 2035, filled by a migration';

-- dwh.dim_pancake has another comment
COMMENT ON TABLE dwh.dim_pancake IS 'The pancakes; type 1';

-- dwh.fact_pancake_rating has another comment
COMMENT ON TABLE dwh.fact_pancake_rating IS 'How each pancake came out';

-- dwh.dim_category has another comment
COMMENT ON TABLE dwh.dim_category IS 'Categories of products, with each one''s way from its root; type 1';

-- dwh.dim_customer has another comment
COMMENT ON TABLE dwh.dim_customer IS 'Customers, conformed of orders.customers, auth.users and orders.addresses; SCD2';

-- dwh.dim_payment_method has another comment
COMMENT ON TABLE dwh.dim_payment_method IS 'The ways to pay; type 1';

-- dwh.dim_product has another comment
COMMENT ON TABLE dwh.dim_product IS 'Products with their list price in force; SCD2';

-- dwh.fact_payment has another comment
COMMENT ON TABLE dwh.fact_payment IS 'Attempts to pay for orders';

-- dwh.fact_refund has another comment
COMMENT ON TABLE dwh.fact_refund IS 'Refunds of payments';

-- dwh.fact_order_line has another comment
COMMENT ON TABLE dwh.fact_order_line IS 'Lines of orders';

-- index ix_ods_categories_parent_category_id serves no join
DROP INDEX ods.ix_ods_categories_parent_category_id;

-- index ix_ods_payments_method_id is missing
CREATE INDEX ix_ods_payments_method_id ON ods.payments (method_id);
