-- generated, do not edit: scripts/dbml.sh makes this file from docs/db/payments_mysql.dbml
SET NAMES utf8mb4;
ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci;

CREATE TABLE `payment_methods` (
  `id` smallint PRIMARY KEY,
  `code` varchar(32) UNIQUE NOT NULL,
  `name` varchar(100) NOT NULL,
  `provider` varchar(60) NOT NULL,
  `is_online` boolean NOT NULL DEFAULT true,
  `is_active` boolean NOT NULL DEFAULT true,
  `created_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock',
  `updated_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock; the extraction cursor'
);

CREATE TABLE `payments` (
  `id` char(36) PRIMARY KEY,
  `order_id` char(36) NOT NULL COMMENT 'Ref: Orders DB (orders.id), no FK',
  `method_id` smallint NOT NULL,
  `amount` decimal(14,2) NOT NULL,
  `currency` char(3) NOT NULL,
  `status` varchar(20) NOT NULL COMMENT 'pending, succeeded, failed',
  `failure_reason` varchar(64),
  `provider_reference` varchar(64) NOT NULL,
  `attempted_at` datetime(6) NOT NULL COMMENT 'Business time, UTC',
  `settled_at` datetime(6) COMMENT 'Business time, UTC',
  `created_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock',
  `updated_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock; the extraction cursor'
);

CREATE TABLE `refunds` (
  `id` char(36) PRIMARY KEY,
  `payment_id` char(36) NOT NULL,
  `amount` decimal(14,2) NOT NULL,
  `currency` char(3) NOT NULL,
  `reason` varchar(40) NOT NULL,
  `refunded_at` datetime(6) NOT NULL COMMENT 'Business time, UTC',
  `created_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock',
  `updated_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock; the extraction cursor'
);

CREATE INDEX `ix_payment_methods_updated_at` ON `payment_methods` (`updated_at`);

CREATE INDEX `ix_payments_order` ON `payments` (`order_id`);

CREATE INDEX `ix_payments_updated_at` ON `payments` (`updated_at`);

CREATE INDEX `ix_refunds_payment` ON `refunds` (`payment_id`);

CREATE INDEX `ix_refunds_updated_at` ON `refunds` (`updated_at`);

ALTER TABLE `payment_methods` COMMENT = 'Ways to pay';

ALTER TABLE `payments` COMMENT = 'Attempts to pay an order';

ALTER TABLE `refunds` COMMENT = 'Money given back';

ALTER TABLE `payments` ADD FOREIGN KEY (`method_id`) REFERENCES `payment_methods` (`id`);

ALTER TABLE `refunds` ADD FOREIGN KEY (`payment_id`) REFERENCES `payments` (`id`);
