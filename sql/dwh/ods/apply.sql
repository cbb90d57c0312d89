-- Applies what was accepted of one source table to its current state in ods, inside the publishing
-- transaction. `staging` is the quoted name of a table LIKE ods.<table> that holds each key once.
--   inserted   the key is new
--   updated    the staged row was seen later and differs in a contract column, or the row had been
--              deleted and is back
--   unchanged  everything else; the row in ods keeps its own _snapshot and _run
-- The three parts see one snapshot, and each is counted for itself: that they add up to the staged
-- rows is a proof, and a key staged twice breaks it.
{% from "dwh/ods/rows.jinja" import names, staged_is %}
WITH updated AS (
    UPDATE ods."{{ table }}" AS target
    SET
        ({{ names("", columns) }}, _snapshot, _run, _deleted_at)
        = ({{ names("staged.", columns) }}, staged._snapshot, staged._run, NULL)
    FROM {{ staging }} AS staged
    WHERE
        ({{ names("target.", key) }}) = ({{ names("staged.", key) }})
        AND {{ staged_is(">") }}
        AND (
            target._deleted_at IS NOT NULL
            OR row({{ names("target.", columns) }}) IS DISTINCT FROM row({{ names("staged.", columns) }})
        )
    RETURNING 1
),

inserted AS (
    INSERT INTO ods."{{ table }}" ({{ names("", columns) }}, _snapshot, _run)
    SELECT {{ names("staged.", columns) }}, staged._snapshot, staged._run
    FROM {{ staging }} AS staged
    WHERE
        NOT EXISTS (
            SELECT 1 FROM ods."{{ table }}" AS target
            WHERE ({{ names("target.", key) }}) = ({{ names("staged.", key) }})
        )
    RETURNING 1
)

SELECT
    (SELECT count(*) FROM inserted) AS inserted,
    (SELECT count(*) FROM updated) AS updated,
    (
        SELECT count(*)
        FROM {{ staging }} AS staged
        INNER JOIN ods."{{ table }}" AS target
            ON ({{ names("target.", key) }}) = ({{ names("staged.", key) }})
        WHERE
            {{ staged_is("<=") }}
            OR (
                target._deleted_at IS NULL
                AND row({{ names("target.", columns) }}) IS NOT DISTINCT FROM row({{ names("staged.", columns) }})
            )
    ) AS unchanged
