-- What analysts read: the star schema and the ledger, not ods, which holds password hashes and
-- addresses. Run after every migration, once the role exists: tables made later by the same owner are
-- readable too.
GRANT USAGE ON SCHEMA dwh, etl TO {{ reader }};
GRANT SELECT ON ALL TABLES IN SCHEMA dwh, etl TO {{ reader }};
ALTER DEFAULT PRIVILEGES IN SCHEMA dwh, etl GRANT SELECT ON TABLES TO {{ reader }};
