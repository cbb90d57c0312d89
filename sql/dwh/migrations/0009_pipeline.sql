-- What a run carries was called a subject; the rows stay as they are.
ALTER TABLE etl.run RENAME COLUMN subject TO pipeline;
ALTER TABLE etl.ledger RENAME COLUMN subject TO pipeline;
ALTER INDEX etl.ix_run_subject_started RENAME TO ix_run_pipeline_started;
COMMENT ON TABLE etl.run IS 'One row per run of a pipeline';
COMMENT ON COLUMN etl.run.run_id IS '<pipeline>-<UTC time>-<4 hex digits>';

-- Parts of the ledger's lines: what was quarantined was called kept aside, what was superseded overtaken.
UPDATE etl.ledger
SET parts = (parts - 'kept aside') || jsonb_build_object('quarantined', parts -> 'kept aside')
WHERE parts ? 'kept aside';

UPDATE etl.ledger
SET parts = (parts - 'overtaken') || jsonb_build_object('superseded', parts -> 'overtaken')
WHERE parts ? 'overtaken';
