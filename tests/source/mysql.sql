-- Shapes that a database of one's own may have, for MariaDB and MySQL: a film rental, the history of employees,
-- composite and text keys, no key, 250 columns (`wide`, made by the test), names and types out of the ordinary.
CREATE TABLE language (
    language_id TINYINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name CHAR(20) NOT NULL,
    last_update TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP
);
CREATE TABLE film (
    film_id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    title VARCHAR(128) NOT NULL,
    released YEAR,
    language_id TINYINT UNSIGNED NOT NULL,
    rental_rate DECIMAL(4, 2) NOT NULL DEFAULT 4.99,
    rating ENUM('G', 'PG', 'it''s 18') DEFAULT 'G',
    special_features SET('Trailers', 'Commentaries'),
    details JSON,
    poster BLOB,
    last_update TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    INDEX film_last_update (last_update),
    FOREIGN KEY (language_id) REFERENCES language (language_id)
);
CREATE TABLE film_actor (
    actor VARCHAR(40) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    film_id INT NOT NULL,
    billed_at DATETIME(6) NULL,
    PRIMARY KEY (actor, film_id),
    FOREIGN KEY (film_id) REFERENCES film (film_id)
);
CREATE TABLE rental (
    rental_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    film_id INT NOT NULL,
    `rentalDate` DATETIME NOT NULL,
    return_date DATETIME,
    contact VARCHAR(100) NOT NULL,
    FOREIGN KEY (film_id) REFERENCES film (film_id)
);
CREATE TABLE employees (
    emp_no INT NOT NULL PRIMARY KEY,
    birth_date DATE NOT NULL,
    first_name VARCHAR(14) NOT NULL,
    last_name VARCHAR(16) NOT NULL,
    hire_date DATE
);
CREATE TABLE salaries (
    emp_no INT NOT NULL,
    salary INT NOT NULL,
    from_date DATE NOT NULL,
    to_date DATE NOT NULL,
    PRIMARY KEY (emp_no, from_date),
    FOREIGN KEY (emp_no) REFERENCES employees (emp_no)
);
-- Its keys differ in case and accents, and are one and the same under its collation.
CREATE TABLE coupons (
    code VARCHAR(30) COLLATE utf8mb4_general_ci NOT NULL,
    region CHAR(2) COLLATE utf8mb4_general_ci NOT NULL,
    percent DECIMAL(5, 2) NOT NULL,
    UNIQUE KEY by_percent (percent, code(20), region),
    UNIQUE KEY by_code (code, region)
);
CREATE TABLE log_lines (
    at DATETIME(3),
    line TEXT
);
CREATE TABLE `order-items` (
    `orderNumber` INT NOT NULL,
    `order-line` SMALLINT NOT NULL,
    `select` VARCHAR(10),
    `a b``c"d%s` INT,
    `table` INT AS (`orderNumber` * 10) STORED,
    `note` VARCHAR(20) DEFAULT 'unseen' INVISIBLE,
    `a_name_of_sixty_four_characters_is_the_longest_that_there_can_be` INT,
    PRIMARY KEY (`orderNumber`, `order-line`)
);
CREATE TABLE `user` (
    `key` BINARY(4) NOT NULL PRIMARY KEY,
    `group` DECIMAL(65, 30),
    `end` DECIMAL(50, 10),
    started DATE,
    ratio DOUBLE
);
CREATE TABLE readings (
    reading INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    state VARCHAR(8) NOT NULL,
    value INT NOT NULL,
    hash CHAR(36) NOT NULL
);
CREATE VIEW `films by year` AS SELECT released, COUNT(*) AS films, SUM(rental_rate) AS rates FROM film GROUP BY released;
INSERT INTO language (name) VALUES ('English'), ('Українська');
INSERT INTO film (title, released, language_id, rating, special_features, details, poster) VALUES
    ('Noon', 1999, 1, 'PG', 'Trailers,Commentaries', '{"a": 12345678901234567890}', x'00ff'),
    ('', NULL, 2, 'it''s 18', NULL, NULL, NULL);
INSERT INTO film_actor VALUES ('ann', 1, NULL), ('ann', 2, '2026-01-02 03:04:05.678901'), ('Ann', 1, NULL);
INSERT INTO rental (film_id, `rentalDate`, contact) VALUES
    (1, '2026-01-02 03:04:05', 'ann@example.org'), (2, '2026-01-03 00:00:00', 'bob@example.org'),
    (1, '1899-12-31 23:59:59', 'carl@example.org'), (1, '2026-01-04 00:00:00', 'dora@example.org');
INSERT INTO employees VALUES (1, '1953-09-02', 'Олена', 'O''Hara', '1986-06-26'), (2, '1964-06-02', 'Bo', 'Li', NULL);
INSERT INTO salaries VALUES (1, 60117, '1986-06-26', '1987-06-26'), (1, 62102, '1987-06-26', '9999-01-01'), (2, 1, '1990-01-01', '9999-01-01');
INSERT INTO coupons VALUES ('SPRING', 'ua', 10.00), ('Été ', 'fr', 5.50), ('autumn', 'UA', 7.25);
INSERT INTO log_lines VALUES (NULL, NULL), ('2026-01-02 03:04:05.678', 'twice'), ('2026-01-02 03:04:05.678', 'twice'), (NULL, ''), (NULL, NULL);
INSERT INTO `order-items` (`orderNumber`, `order-line`, `select`, `a b``c"d%s`) VALUES (1, 1, 'one', 7), (1, 2, NULL, NULL);
INSERT INTO `user` VALUES
    (x'00010203', 12345678901234567890123456789012345.123456789012345678901234567891, -9999999999999999999999999999999999999999.0123456789, '2026-01-02', 0.1),
    (x'ff000000', -0.000000000000000000000000000001, NULL, NULL, NULL);
INSERT INTO readings (state, value, hash)
    WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 150)
    SELECT IF(i % 2, 'on', 'off'), i, 'not an UUID' FROM n;
