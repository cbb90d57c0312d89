-- noqa: disable=LT02,LT05,ST05
-- Which rows break what checks.sql counts: key, how, and by how many rows.
{% from "dwh/models/joined.jinja" import joined, wrong_attributes with context %}
SELECT
    {{ named }} AS named,
    'missing in {{ table }}' AS how,
    1 AS surplus
FROM ods."{{ driver_table }}" AS "{{ driver }}"
WHERE
    "{{ driver }}"._deleted_at IS NULL
    AND NOT EXISTS (
        SELECT 1 FROM dwh."{{ table }}" AS model
        WHERE {{ members or "TRUE" }}
        {% for own, key in driver_key %} AND model."{{ own }}" = "{{ driver }}"."{{ key }}"{% endfor %}

    )
UNION ALL
SELECT
    '{{ surrogate_key }}=' || min(model."{{ surrogate_key }}")::TEXT AS named,
    count(*) || ' times in {{ table }}' AS how,
    count(*) - 1 AS surplus
FROM dwh."{{ table }}" AS model
WHERE {{ members or "TRUE" }}
GROUP BY {% for own, _ in driver_key %}model."{{ own }}"{{ ", " if not loop.last }}{% endfor %}

HAVING count(*) > 1
UNION ALL
SELECT
    '{{ surrogate_key }}=' || found.key,
    found.how,
    1 AS surplus
FROM (
    SELECT
        model."{{ surrogate_key }}"::TEXT AS key,
        CASE
            WHEN "{{ driver }}"._run IS NULL THEN 'of no live row of {{ driver_table }}'
{% for measure, value in keys.items() %}
            WHEN model."{{ measure[6:] }}" != {{ value }} THEN '{{ measure }}'
{% endfor %}
{% if attributes %}
            WHEN ({{ wrong_attributes() }}) THEN 'differs from {{ driver_table }}'
{% endif %}
        END AS how
    {{ joined() }}
    WHERE {{ members or "TRUE" }}
) AS found
WHERE found.how IS NOT NULL
