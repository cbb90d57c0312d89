-- Runs by month, their summaries, and the idempotency keys that were used.
CREATE TABLE run (
  id TEXT COLLATE "C" NOT NULL,
  start_utc TIMESTAMPTZ NOT NULL,
  end_utc TIMESTAMPTZ,
  pipeline_name TEXT,
  script_name TEXT,
  pipeline_type TEXT,
  environment TEXT,
  date_code TEXT,
  state TEXT,
  elapsed_seconds DOUBLE PRECISION,
  rowcount BIGINT,
  -- JSON, not JSONB: the document is given back as it came, to the last digit.
  doc JSON NOT NULL,
  PRIMARY KEY (start_utc, id)
) PARTITION BY RANGE (start_utc);

-- One for each filter, each in the order that pages come in.
CREATE INDEX run_by_pipeline ON run (pipeline_name, start_utc DESC, id DESC);
CREATE INDEX run_by_script ON run (script_name, start_utc DESC, id DESC);
CREATE INDEX run_by_type ON run (pipeline_type, start_utc DESC, id DESC);
CREATE INDEX run_by_environment ON run (environment, start_utc DESC, id DESC);
CREATE INDEX run_by_date_code ON run (date_code, start_utc DESC, id DESC);
CREATE INDEX run_by_state ON run (state, start_utc DESC, id DESC);

CREATE TABLE pipeline_summary (
  signature TEXT COLLATE "C" PRIMARY KEY,
  pipeline_name TEXT,
  script_name TEXT,
  pipeline_type TEXT,
  environment TEXT,
  total_runs BIGINT NOT NULL,
  total_rowcount NUMERIC NOT NULL,
  elapsed_sum DOUBLE PRECISION NOT NULL,
  elapsed_runs BIGINT NOT NULL,
  rowcount_runs BIGINT NOT NULL,
  first_start TIMESTAMPTZ NOT NULL,
  last_start TIMESTAMPTZ NOT NULL,
  last_id TEXT COLLATE "C" NOT NULL,
  last_end TIMESTAMPTZ,
  last_elapsed DOUBLE PRECISION,
  last_rowcount BIGINT,
  last_state TEXT
);

-- Apart from the runs, because a unique index of a partitioned table has to hold its partition key.
CREATE TABLE idempotency_key (
  key TEXT COLLATE "C" PRIMARY KEY,
  fingerprint TEXT NOT NULL,
  run_id TEXT COLLATE "C" NOT NULL,
  start_utc TIMESTAMPTZ NOT NULL
);
