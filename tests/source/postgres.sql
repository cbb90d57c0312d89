-- Shapes that a database of one's own may have, for PostgreSQL; see mysql.sql.
CREATE SCHEMA "HR";
CREATE EXTENSION IF NOT EXISTS citext;
CREATE TYPE mpaa AS ENUM ('G', 'PG', 'it''s 18');
CREATE DOMAIN percent AS numeric(5, 2) CHECK (value >= 0);
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.last_update := now(); RETURN NEW; END $$;
CREATE TABLE language (
    language_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name char(20) NOT NULL,
    last_update timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER language_stamp BEFORE UPDATE ON language FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE TABLE film (
    film_id serial PRIMARY KEY,
    title varchar(128) NOT NULL,
    language_id integer NOT NULL REFERENCES language,
    rental_rate numeric(4, 2) NOT NULL DEFAULT 4.99,
    rating mpaa DEFAULT 'G',
    special_features text[],
    details jsonb,
    poster bytea,
    last_update timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON film (last_update);
CREATE TRIGGER film_stamp BEFORE INSERT OR UPDATE ON film FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE TABLE film_actor (
    actor varchar(40) NOT NULL,
    film_id integer NOT NULL REFERENCES film,
    billed_at timestamp,
    PRIMARY KEY (actor, film_id)
);
CREATE TABLE rental (
    rental_id bigserial PRIMARY KEY,
    film_id integer NOT NULL REFERENCES film,
    "rentalDate" timestamptz NOT NULL,
    return_date timestamptz,
    contact text NOT NULL
);
CREATE TABLE "HR".employees (
    emp_no integer PRIMARY KEY,
    birth_date date NOT NULL,
    first_name varchar(14) NOT NULL,
    last_name varchar(16) NOT NULL,
    hire_date date
);
CREATE TABLE "HR".salaries (
    emp_no integer NOT NULL REFERENCES "HR".employees,
    salary integer NOT NULL,
    from_date date NOT NULL,
    to_date date NOT NULL,
    PRIMARY KEY (emp_no, from_date)
);
CREATE TABLE coupons (
    code citext NOT NULL,
    region char(2) NOT NULL,
    "off" percent NOT NULL
);
CREATE UNIQUE INDEX by_code ON coupons (code, region);
CREATE UNIQUE INDEX by_part ON coupons ("off") WHERE "off" > 5;
CREATE TABLE log_lines (
    at timestamp(3),
    line text
);
CREATE TABLE "order-items" (
    "orderNumber" integer NOT NULL,
    "order-line" smallint NOT NULL,
    "select" varchar(10),
    "a b`c""d%s" integer,
    "table" integer GENERATED ALWAYS AS ("orderNumber" * 10) STORED,
    "note" varchar(20) DEFAULT 'unseen',
    "a_name_of_sixty_three_characters_is_the_longest_there_can_be___" integer,
    PRIMARY KEY ("orderNumber", "order-line")
);
CREATE TABLE "user" (
    "key" uuid PRIMARY KEY,
    "group" numeric(65, 30),
    "end" numeric,
    started date,
    ratio double precision,
    during tstzrange,
    at_most interval
);
CREATE TABLE measured (
    day date NOT NULL,
    value integer NOT NULL,
    PRIMARY KEY (day)
) PARTITION BY RANGE (day);
CREATE TABLE measured_2026 PARTITION OF measured FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE VIEW "films by rating" AS SELECT rating, count(*) AS films FROM film GROUP BY rating;
CREATE MATERIALIZED VIEW film_titles AS SELECT film_id, title FROM film;
INSERT INTO language (name) VALUES ('English'), ('Українська');
INSERT INTO film (title, language_id, rating, special_features, details, poster) VALUES
    ('Noon', 1, 'PG', '{Trailers,"Com, mentaries"}', '{"a": 12345678901234567890}', '\x00ff'),
    ('', 2, 'it''s 18', NULL, NULL, NULL);
REFRESH MATERIALIZED VIEW film_titles;
INSERT INTO film_actor VALUES ('ann', 1, NULL), ('ann', 2, '2026-01-02 03:04:05.678901'), ('Ann', 1, NULL);
INSERT INTO rental (film_id, "rentalDate", contact) VALUES
    (1, '2026-01-02 03:04:05+02', 'ann@example.org'), (2, '2026-01-03 00:00:00+00', 'bob@example.org'),
    (1, '1899-12-31 23:59:59+00', 'carl@example.org'), (1, '2026-01-04 00:00:00+00', 'dora@example.org');
INSERT INTO "HR".employees VALUES (1, '1953-09-02', 'Олена', 'O''Hara', '1986-06-26'), (2, '1964-06-02', 'Bo', 'Li', 'infinity');
INSERT INTO "HR".salaries VALUES (1, 60117, '1986-06-26', '1987-06-26'), (1, 62102, '1987-06-26', '9999-01-01'), (2, 1, '1990-01-01', '9999-01-01');
INSERT INTO coupons VALUES ('SPRING', 'ua', 10.00), ('Été', 'fr', 5.50), ('autumn', 'UA', 7.25);
INSERT INTO log_lines VALUES (NULL, NULL), ('2026-01-02 03:04:05.678', 'twice'), ('2026-01-02 03:04:05.678', 'twice'), (NULL, ''), (NULL, NULL);
INSERT INTO "order-items" ("orderNumber", "order-line", "select", "a b`c""d%s") VALUES (1, 1, 'one', 7), (1, 2, NULL, NULL);
INSERT INTO "user" VALUES
    ('00000000-0000-4000-8000-000000000001', 12345678901234567890123456789012345.123456789012345678901234567891, 1e30, '2026-01-02', 0.1, '[2026-01-01,2026-01-02)', '1 day'),
    ('00000000-0000-4000-8000-000000000002', -0.000000000000000000000000000001, 'NaN', NULL, NULL, NULL, NULL);
INSERT INTO measured SELECT date '2026-01-01' + n, n FROM generate_series(1, 40) AS n;
