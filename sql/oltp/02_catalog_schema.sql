-- generated, do not edit: scripts/dbml.sh makes this file from docs/db/catalog_mysql.dbml
SET NAMES utf8mb4;
ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci;

CREATE TABLE `categories` (
  `id` char(36) PRIMARY KEY,
  `parent_category_id` char(36) COMMENT 'NULL for a root category',
  `name` varchar(120) NOT NULL,
  `name_uk` varchar(120) NOT NULL,
  `slug` varchar(140) UNIQUE NOT NULL,
  `sort_order` smallint NOT NULL DEFAULT 0,
  `is_active` boolean NOT NULL DEFAULT true,
  `created_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock',
  `updated_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock; the extraction cursor'
);

CREATE TABLE `products` (
  `id` char(36) PRIMARY KEY,
  `category_id` char(36) NOT NULL,
  `sku` varchar(40) UNIQUE NOT NULL,
  `name` varchar(200) NOT NULL,
  `brand` varchar(80) NOT NULL,
  `description` text,
  `weight_kg` decimal(8,3),
  `attributes` json,
  `is_active` boolean NOT NULL DEFAULT true,
  `launched_on` date,
  `created_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock',
  `updated_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock; the extraction cursor'
);

CREATE TABLE `product_prices` (
  `id` char(36) PRIMARY KEY,
  `product_id` char(36) NOT NULL,
  `price` decimal(12,2) NOT NULL,
  `currency` char(3) NOT NULL DEFAULT 'UAH',
  `valid_from` datetime(6) NOT NULL COMMENT 'Business time, UTC; holds until the next price of the product',
  `created_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock',
  `updated_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock; the extraction cursor'
);

CREATE TABLE `inventory` (
  `product_id` char(36) NOT NULL,
  `warehouse_code` varchar(16) NOT NULL,
  `quantity` int NOT NULL DEFAULT 0,
  `reserved` int NOT NULL DEFAULT 0,
  `reorder_level` int NOT NULL DEFAULT 0,
  `counted_at` datetime(6) NOT NULL COMMENT 'Business time, UTC',
  `created_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock',
  `updated_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock; the extraction cursor',
  PRIMARY KEY (`product_id`, `warehouse_code`)
);

CREATE INDEX `ix_categories_updated_at` ON `categories` (`updated_at`);

CREATE INDEX `ix_products_updated_at` ON `products` (`updated_at`);

CREATE INDEX `ix_product_prices_product_from` ON `product_prices` (`product_id`, `valid_from`);

CREATE INDEX `ix_product_prices_updated_at` ON `product_prices` (`updated_at`);

CREATE INDEX `ix_inventory_updated_at` ON `inventory` (`updated_at`);

ALTER TABLE `categories` COMMENT = 'A tree of categories';

ALTER TABLE `products` COMMENT = 'What is sold';

ALTER TABLE `product_prices` COMMENT = 'List prices over time';

ALTER TABLE `inventory` COMMENT = 'Stock per product and warehouse';

ALTER TABLE `categories` ADD FOREIGN KEY (`parent_category_id`) REFERENCES `categories` (`id`);

ALTER TABLE `products` ADD FOREIGN KEY (`category_id`) REFERENCES `categories` (`id`);

ALTER TABLE `product_prices` ADD FOREIGN KEY (`product_id`) REFERENCES `products` (`id`);

ALTER TABLE `inventory` ADD FOREIGN KEY (`product_id`) REFERENCES `products` (`id`);
