-- The versions of a dimension with history follow one another without a gap or an overlap, from the open
-- past to the open future, and the last one is the current one; of a member that the source deleted the last
-- one has an end, and none is current.
-- Returns (measure, left_value, right_value); a check holds where both agree.
WITH versions AS (
    SELECT
        valid_from,
        valid_to,
        is_current,
        coalesce(lag(valid_to) OVER member, '1900-01-01 00:00:00+00') AS previous_valid_to,
        lead(valid_from) OVER member IS NULL AS is_last
    FROM dwh."{{ table }}"
    WHERE "{{ surrogate_key }}" != -1{{ touched([natural_key]) }}
    WINDOW member AS (PARTITION BY "{{ natural_key }}" ORDER BY valid_from)
)

SELECT
    'versions that do not follow one another' AS measure,
    0 AS left_value,
    count(*) AS right_value
FROM versions
WHERE
    valid_from != previous_valid_to
    OR valid_from >= valid_to
    OR (is_current AND NOT is_last)
    OR is_current != (valid_to = '2299-12-31 00:00:00+00')
