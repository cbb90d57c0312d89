-- To find rows that changed without their cursor, the digest of each row that was taken is remembered:
-- digest.<table> (k, the number of its key; d, its digest), made and dropped by publishing as the contract
-- says. Which slice of a table's keys was compared when, and which keys a replica lacked.
CREATE SCHEMA digest;

CREATE TABLE etl.compared (
    source TEXT NOT NULL,
    table_name TEXT NOT NULL,
    slices INTEGER NOT NULL,
    slice INTEGER NOT NULL,
    run_id TEXT NOT NULL REFERENCES etl.run (run_id),
    compared_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (source, table_name, slice)
);
COMMENT ON TABLE etl.compared IS 'When the rows of a source table were last compared with what was taken of them';
COMMENT ON COLUMN etl.compared.slices IS 'Into so many slices fall its keys';
COMMENT ON COLUMN etl.compared.run_id IS 'The run that compared this one';
COMMENT ON COLUMN etl.compared.compared_at IS 'The source as it was then';

CREATE TABLE etl.missing_key (
    source TEXT NOT NULL,
    table_name TEXT NOT NULL,
    k BIGINT NOT NULL,
    missed_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (source, table_name, k)
);
COMMENT ON TABLE etl.missing_key IS 'Keys that a replica lacked; deleted once they are missing for its lag';
COMMENT ON COLUMN etl.missing_key.k IS 'The number of the key';
COMMENT ON COLUMN etl.missing_key.missed_at IS 'Missing since';
