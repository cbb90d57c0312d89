-- Lineage by environment, with names of any length (an index holds their hashes), and when each part was
-- last reported. Run by PostgreSQL as it is, and by SQLite without the function, which Python gives it there.
-- The function is in the service's own schema: its role need not have the right to make temporary objects.
CREATE FUNCTION name_key(TEXT) RETURNS TEXT LANGUAGE sql
  AS 'SELECT encode(sha256(convert_to($1, ''UTF8'')), ''hex'')';

-- What an event did not say the environment of has the empty one: only who may see all sees it.
ALTER TABLE lineage_event ADD COLUMN environment TEXT NOT NULL DEFAULT '';
ALTER TABLE lineage_event ADD COLUMN reported_at TIMESTAMPTZ;
DROP INDEX lineage_event_by_job;

CREATE TABLE lineage_node (
  environment TEXT NOT NULL,
  node_key TEXT COLLATE "C" NOT NULL,
  node TEXT NOT NULL,
  folded TEXT NOT NULL,
  last_seen TIMESTAMPTZ NOT NULL,
  reported_at TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (environment, node_key)
);

CREATE TABLE lineage_link (
  environment TEXT NOT NULL,
  source_key TEXT COLLATE "C" NOT NULL,
  target_key TEXT COLLATE "C" NOT NULL,
  source TEXT NOT NULL,
  target TEXT NOT NULL,
  last_seen TIMESTAMPTZ NOT NULL,
  reported_at TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (environment, source_key, target_key)
);
CREATE INDEX lineage_link_by_source ON lineage_link (source_key);
CREATE INDEX lineage_link_by_target ON lineage_link (target_key);

-- origin_key is the hash of target, its field, source and its field.
CREATE TABLE lineage_origin (
  environment TEXT NOT NULL,
  origin_key TEXT COLLATE "C" NOT NULL,
  target_key TEXT COLLATE "C" NOT NULL,
  source_key TEXT COLLATE "C" NOT NULL,
  target TEXT NOT NULL,
  target_field TEXT NOT NULL,
  source TEXT NOT NULL,
  source_field TEXT NOT NULL,
  how TEXT NOT NULL,
  last_seen TIMESTAMPTZ NOT NULL,
  reported_at TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (environment, origin_key)
);
CREATE INDEX lineage_origin_by_target ON lineage_origin (target_key);
CREATE INDEX lineage_origin_by_source ON lineage_origin (source_key);

INSERT INTO lineage_link
  SELECT '', name_key(source), name_key(target), source, target, last_seen, last_seen
  FROM lineage_edge;
INSERT INTO lineage_origin
  SELECT '',
    name_key(name_key(target) || name_key(target_field)
      || name_key(source) || name_key(source_field)),
    name_key(target), name_key(source),
    target, target_field, source, source_field, how, last_seen, last_seen
  FROM lineage_column;
INSERT INTO lineage_node
  SELECT '', name_key(node), node, lower(node), max(last_seen), max(last_seen)
  FROM (
    SELECT source AS node, last_seen FROM lineage_edge
    UNION ALL
    SELECT target AS node, last_seen FROM lineage_edge
  ) AS ends
  GROUP BY node;

DROP TABLE lineage_edge;
DROP TABLE lineage_column;
DROP FUNCTION name_key(TEXT);
