-- The outbox of the ingest service. A database from before it had revisions has all of it: every statement
-- may be repeated, so that it is taken over by running them.

-- What is known of every event, for good: its id says whether it was here before.
CREATE TABLE IF NOT EXISTS ingest.event (
    id uuid PRIMARY KEY,
    event_type text NOT NULL,
    schema_version integer NOT NULL, -- 0: no schema
    content uuid NOT NULL, -- SHA-256 of type and payload, cut to 128 bits
    digest uuid NOT NULL, -- MD5 of the document, as S3's ETag has it
    size integer NOT NULL, -- bytes of the document
    object uuid NOT NULL, -- raw/<object>.json in the bucket: the event's own id, or its bulk's
    received_at timestamptz NOT NULL
);

-- Documents that are still to be carried: a row an object, its documents one a line. Filled by the
-- transaction that fills ingest.event, emptied behind the slower of the two carriers.
CREATE TABLE IF NOT EXISTS ingest.outbox (
    seq bigint PRIMARY KEY,
    object uuid NOT NULL,
    events integer NOT NULL,
    body bytea NOT NULL,
    queued_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
ALTER TABLE ingest.outbox ALTER COLUMN body SET STORAGE EXTERNAL;

-- How far each has come: 'accepted' in filling the outbox, 'kafka' and 'raw' in carrying it.
CREATE TABLE IF NOT EXISTS ingest.progress (
    name text PRIMARY KEY,
    seq bigint NOT NULL DEFAULT 0,
    events bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO ingest.progress (name) VALUES ('accepted'), ('kafka'), ('raw') ON CONFLICT DO NOTHING;

-- Takes a batch of events in, each once, in one transaction. The row 'accepted' is locked for it, so that
-- numbers are given out in the order of the commits and without gaps: a carrier that has seen number 7
-- will never find a 6 later.
--
-- Returns the events of the batch that were here before, with what they were.
CREATE OR REPLACE FUNCTION ingest.accept(
    ids uuid[], types text[], versions integer[], contents uuid[], digests uuid[], objects uuid[],
    times timestamptz[], bodies bytea[]
) RETURNS TABLE (known uuid, known_content uuid, known_at timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    last bigint;
    fresh uuid[];
    made bigint;
BEGIN
    SELECT seq INTO last FROM ingest.progress WHERE name = 'accepted' FOR UPDATE;
    WITH inserted AS (
        INSERT INTO ingest.event
        SELECT id, type, version, content, digest, octet_length(body), object, received
        FROM unnest(ids, types, versions, contents, digests, objects, times, bodies)
            AS given (id, type, version, content, digest, object, received, body)
        ON CONFLICT (id) DO NOTHING
        RETURNING id
    )
    SELECT coalesce(array_agg(id), '{}') INTO fresh FROM inserted;
    IF cardinality(fresh) = cardinality(ids) THEN
        INSERT INTO ingest.outbox (seq, object, events, body)
        SELECT last + row_number() OVER (ORDER BY min(place)), object, count(*),
            string_agg(body, '\x0a'::bytea ORDER BY place)
        FROM unnest(objects, bodies) WITH ORDINALITY AS given (object, body, place)
        GROUP BY object;
        GET DIAGNOSTICS made = ROW_COUNT;
    ELSE
        INSERT INTO ingest.outbox (seq, object, events, body)
        SELECT last + row_number() OVER (ORDER BY min(place)), object, count(*),
            string_agg(body, '\x0a'::bytea ORDER BY place)
        FROM unnest(ids, objects, bodies) WITH ORDINALITY AS given (id, object, body, place)
        WHERE id = ANY (fresh)
        GROUP BY object;
        GET DIAGNOSTICS made = ROW_COUNT;
        RETURN QUERY SELECT id, content, received_at FROM ingest.event
        WHERE id = ANY (ids) AND id <> ALL (fresh);
    END IF;
    UPDATE ingest.progress SET seq = seq + made, events = events + cardinality(fresh)
    WHERE name = 'accepted';
END $$;
