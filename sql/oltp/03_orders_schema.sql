-- generated, do not edit: scripts/dbml.sh makes this file from docs/db/orders_mysql.dbml
SET NAMES utf8mb4;
ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci;

CREATE TABLE `customers` (
  `id` char(36) PRIMARY KEY,
  `first_name` varchar(100) NOT NULL,
  `last_name` varchar(100) NOT NULL,
  `email` varchar(255) NOT NULL,
  `phone` varchar(32),
  `birth_date` date,
  `segment` varchar(20) NOT NULL DEFAULT 'regular',
  `marketing_opt_in` boolean NOT NULL DEFAULT false,
  `registered_at` datetime(6) NOT NULL COMMENT 'Business time, UTC',
  `created_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock',
  `updated_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock; the extraction cursor'
);

CREATE TABLE `addresses` (
  `id` char(36) PRIMARY KEY,
  `customer_id` char(36) NOT NULL,
  `kind` varchar(16) NOT NULL COMMENT 'shipping or billing',
  `is_default` boolean NOT NULL DEFAULT false,
  `country` char(2) NOT NULL,
  `region` varchar(80) NOT NULL,
  `city` varchar(80) NOT NULL,
  `street` varchar(160) NOT NULL,
  `postal_code` varchar(16) NOT NULL,
  `created_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock',
  `updated_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock; the extraction cursor'
);

CREATE TABLE `orders` (
  `id` char(36) PRIMARY KEY,
  `order_number` varchar(24) UNIQUE NOT NULL,
  `customer_id` char(36) NOT NULL,
  `shipping_address_id` char(36) NOT NULL,
  `status` varchar(20) NOT NULL COMMENT 'pending, paid, shipped, delivered, cancelled, returned',
  `channel` varchar(20) NOT NULL COMMENT 'web, mobile, marketplace, phone',
  `currency` char(3) NOT NULL,
  `subtotal` decimal(14,2) NOT NULL COMMENT 'Sum of line_total',
  `shipping_fee` decimal(12,2) NOT NULL DEFAULT 0,
  `total` decimal(14,2) NOT NULL COMMENT 'subtotal + shipping_fee',
  `customer_note` varchar(255),
  `ordered_at` datetime(6) NOT NULL COMMENT 'Business time, UTC',
  `created_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock',
  `updated_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock; the extraction cursor'
);

CREATE TABLE `order_items` (
  `id` char(36) PRIMARY KEY,
  `order_id` char(36) NOT NULL,
  `line_number` smallint NOT NULL,
  `product_id` char(36) NOT NULL COMMENT 'Ref: Catalog DB (products.id), no FK',
  `quantity` int NOT NULL,
  `unit_price` decimal(12,2) NOT NULL,
  `discount` decimal(12,2) NOT NULL DEFAULT 0 COMMENT 'Amount off the whole line',
  `line_total` decimal(14,2) NOT NULL COMMENT 'quantity * unit_price - discount',
  `created_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock',
  `updated_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock; the extraction cursor'
);

CREATE INDEX `ix_customers_email` ON `customers` (`email`);

CREATE INDEX `ix_customers_updated_at` ON `customers` (`updated_at`);

CREATE INDEX `ix_addresses_customer` ON `addresses` (`customer_id`);

CREATE INDEX `ix_addresses_updated_at` ON `addresses` (`updated_at`);

CREATE INDEX `ix_orders_customer_ordered` ON `orders` (`customer_id`, `ordered_at`);

CREATE INDEX `ix_orders_updated_at` ON `orders` (`updated_at`);

CREATE UNIQUE INDEX `ux_order_items_order_line` ON `order_items` (`order_id`, `line_number`);

CREATE INDEX `ix_order_items_product` ON `order_items` (`product_id`);

CREATE INDEX `ix_order_items_updated_at` ON `order_items` (`updated_at`);

ALTER TABLE `customers` COMMENT = 'Buyers; the account is in Auth DB (users.customer_id), no FK';

ALTER TABLE `addresses` COMMENT = 'Addresses of customers';

ALTER TABLE `orders` COMMENT = 'Orders; the currency of their money is here';

ALTER TABLE `order_items` COMMENT = 'Lines of orders';

ALTER TABLE `addresses` ADD FOREIGN KEY (`customer_id`) REFERENCES `customers` (`id`);

ALTER TABLE `orders` ADD FOREIGN KEY (`customer_id`) REFERENCES `customers` (`id`);

ALTER TABLE `orders` ADD FOREIGN KEY (`shipping_address_id`) REFERENCES `addresses` (`id`);

ALTER TABLE `order_items` ADD FOREIGN KEY (`order_id`) REFERENCES `orders` (`id`);
