-- What analysts read. Run after every migration, once the role exists: tables made later by the same
-- owner are readable too.
GRANT USAGE ON SCHEMA dwh, ods, etl TO {{ reader }};
GRANT SELECT ON ALL TABLES IN SCHEMA dwh, ods, etl TO {{ reader }};
ALTER DEFAULT PRIVILEGES IN SCHEMA dwh, ods, etl GRANT SELECT ON TABLES TO {{ reader }};
