-- Of a line that does not close: which rows differ, some of them.
ALTER TABLE etl.ledger ADD COLUMN keys TEXT[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN etl.ledger.keys IS 'Of a line that does not close, up to 20 rows that differ: key, and how';
