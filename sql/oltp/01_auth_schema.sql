-- generated, do not edit: scripts/dbml.sh makes this file from docs/db/auth_mysql.dbml
SET NAMES utf8mb4;
ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci;

CREATE TABLE `roles` (
  `id` smallint PRIMARY KEY,
  `code` varchar(32) UNIQUE NOT NULL,
  `name` varchar(100) NOT NULL,
  `created_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock',
  `updated_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock; the extraction cursor'
);

CREATE TABLE `users` (
  `id` char(36) PRIMARY KEY,
  `customer_id` char(36) COMMENT 'Ref: Orders DB (customers.id), no FK',
  `role_id` smallint NOT NULL,
  `email` varchar(255) UNIQUE NOT NULL,
  `password_hash` varchar(100) NOT NULL,
  `full_name` varchar(200) NOT NULL,
  `phone` varchar(32),
  `locale` varchar(10) NOT NULL DEFAULT 'uk_UA',
  `is_active` boolean NOT NULL DEFAULT true,
  `is_verified` boolean NOT NULL DEFAULT false,
  `failed_logins` smallint NOT NULL DEFAULT 0,
  `registered_at` datetime(6) NOT NULL COMMENT 'Business time, UTC',
  `last_login_at` datetime(6) COMMENT 'Business time, UTC',
  `created_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock',
  `updated_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock; the extraction cursor'
);

CREATE TABLE `sessions` (
  `id` char(36) PRIMARY KEY,
  `user_id` char(36) NOT NULL,
  `ip_address` varchar(45) NOT NULL,
  `user_agent` varchar(255) NOT NULL,
  `device` varchar(32) NOT NULL,
  `pages_viewed` int NOT NULL DEFAULT 0,
  `started_at` datetime(6) NOT NULL COMMENT 'Business time, UTC',
  `ended_at` datetime(6) COMMENT 'Business time, UTC; NULL while open',
  `created_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock',
  `updated_at` datetime(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6) NOT NULL COMMENT 'Technical: set by the server clock; the extraction cursor'
);

CREATE INDEX `ix_roles_updated_at` ON `roles` (`updated_at`);

CREATE INDEX `ix_users_customer` ON `users` (`customer_id`);

CREATE INDEX `ix_users_updated_at` ON `users` (`updated_at`);

CREATE INDEX `ix_sessions_user_started` ON `sessions` (`user_id`, `started_at`);

CREATE INDEX `ix_sessions_updated_at` ON `sessions` (`updated_at`);

ALTER TABLE `roles` COMMENT = 'What an account may do';

ALTER TABLE `users` COMMENT = 'Accounts; staff have no customer';

ALTER TABLE `sessions` COMMENT = 'Visits of signed-in users';

ALTER TABLE `users` ADD FOREIGN KEY (`role_id`) REFERENCES `roles` (`id`);

ALTER TABLE `sessions` ADD FOREIGN KEY (`user_id`) REFERENCES `users` (`id`);
