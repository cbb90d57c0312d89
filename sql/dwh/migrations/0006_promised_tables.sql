-- What a run promised to take when it was opened: it is published with all of them or not at all.
ALTER TABLE etl.run ADD COLUMN tables TEXT[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN etl.run.tables IS 'Names of the tables that the run promised to take';
