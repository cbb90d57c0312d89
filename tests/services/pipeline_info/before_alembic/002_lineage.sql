-- Lineage: the events as they came, and the graph that they add up to.
CREATE TABLE lineage_event (
  fingerprint TEXT PRIMARY KEY,
  event_time TIMESTAMPTZ NOT NULL,
  event_type TEXT,
  run_id TEXT NOT NULL,
  job TEXT NOT NULL,
  doc JSON NOT NULL
);
CREATE INDEX lineage_event_by_run ON lineage_event (run_id, event_time);
CREATE INDEX lineage_event_by_job ON lineage_event (job, event_time DESC);

CREATE TABLE lineage_edge (
  source TEXT COLLATE "C" NOT NULL,
  target TEXT COLLATE "C" NOT NULL,
  last_seen TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (source, target)
);
CREATE INDEX lineage_edge_by_target ON lineage_edge (target);
CREATE INDEX lineage_edge_by_last_seen ON lineage_edge (last_seen DESC);

CREATE TABLE lineage_column (
  target TEXT COLLATE "C" NOT NULL,
  target_field TEXT COLLATE "C" NOT NULL,
  source TEXT COLLATE "C" NOT NULL,
  source_field TEXT COLLATE "C" NOT NULL,
  how TEXT NOT NULL,
  last_seen TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (target, target_field, source, source_field)
);
CREATE INDEX lineage_column_by_source ON lineage_column (source);
