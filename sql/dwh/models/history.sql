-- noqa: disable=LT02,LT05,ST05
-- What an increment will do to a dimension with history, asked before it is merged; and, of the members that it
-- touches, what the dimension has.
--   versions, current   of the touched members, now
--   opened, opened_current   versions that are new, and those of them that are current
--   reopened, closed    versions that become current, and that are so no longer
WITH live AS (
    SELECT model."{{ surrogate_key }}" AS key, model.is_current
    FROM dwh."{{ table }}" AS model
    WHERE model."{{ natural_key }}" IN (SELECT staged."{{ natural_key }}" FROM {{ staging }} AS staged)
)

SELECT
    count(live.key) AS versions,
    count(live.key) FILTER (WHERE live.is_current) AS "current",
    count(*) FILTER (WHERE live.key IS NULL) AS opened,
    count(*) FILTER (WHERE live.key IS NULL AND staged.is_current) AS opened_current,
    count(*) FILTER (WHERE staged.is_current AND NOT live.is_current) AS reopened,
    count(*) FILTER (WHERE live.is_current AND NOT staged.is_current) AS closed
FROM {{ staging }} AS staged
FULL JOIN live ON staged."{{ surrogate_key }}" = live.key
