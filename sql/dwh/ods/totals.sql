-- Sums the control totals of what a source table's accepted rows became in ods, after apply.sql. `staging`
-- is the quoted name of the same table.
--   ods         the rows of ods under the staged keys
--   superseded  staged rows that were seen no later than what ods had already, and differ from it; their own values
-- Both sums together are those of the accepted rows.
{% from "dwh/ods/rows.jinja" import names, staged_is %}
SELECT
{% for total in totals %}
        coalesce(sum(target."{{ total }}") FILTER (WHERE NOT pair.superseded), 0)::NUMERIC AS "ods_{{ total }}",
        coalesce(sum(staged."{{ total }}") FILTER (WHERE pair.superseded), 0)::NUMERIC
            AS "superseded_{{ total }}"{{ "," if not loop.last }}
{% endfor %}
FROM {{ staging }} AS staged
INNER JOIN ods."{{ table }}" AS target
    ON ({{ names("target.", key) }}) = ({{ names("staged.", key) }})
CROSS JOIN LATERAL (
    SELECT
        (
            {{ staged_is("<=") }}
            AND row({{ names("target.", columns) }}) IS DISTINCT FROM row({{ names("staged.", columns) }})
        ) AS superseded
) AS pair
