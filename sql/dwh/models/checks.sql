-- noqa: disable=LT02,LT05,ST05
-- What every model has to keep, derived from its definition: each live row of the table that it has rows of
-- is one row (or one current version), with the same sums per group; no row is of anything else; and every
-- key and every column that is a copy is what `ods` and the dimensions say, worked out here once more.
-- With `touched`, a table of keys of that table, only rows of these keys are looked at.
-- Returns (measure, left_value, right_value); a check holds where both agree. differing.sql names the rows.
{% from "dwh/models/joined.jinja" import joined, wrong_attributes with context %}
WITH source AS (
    SELECT
        {{ "coalesce(%s::TEXT, '%s')" | format(by, no_group) if by else "''" }} AS grouped,
        count(*) AS total
{%- for name, value in sums.items() %},
        coalesce(sum({{ value }}), 0) AS "{{ name }}"
{%- endfor %}

    FROM ods."{{ driver_table }}" AS "{{ driver }}"
{% for join in joins if by and "JOIN ods." in join %}
    {{ join }}
{% endfor %}
    WHERE "{{ driver }}"._deleted_at IS NULL{{ touched(driver_key | map("last"), driver) }}
    GROUP BY 1
),

target AS (
    SELECT
        {{ "coalesce(model.\"%s\"::TEXT, '%s')" | format(by_column, no_group) if by else "''" }} AS grouped,
        count(*) AS total
{%- for name in sums %},
        coalesce(sum(model."{{ name }}"), 0) AS "{{ name }}"
{%- endfor %}

    FROM dwh."{{ table }}" AS model
    WHERE {{ members or "TRUE" }}{{ touched(driver_key | map("first"), "model") }}
    GROUP BY 1
),

wrong AS (
    SELECT
        count(*) FILTER (WHERE "{{ driver }}"._run IS NULL) AS strangers
{%- for measure, value in keys.items() %},
        count(*) FILTER (WHERE model."{{ measure[6:] }}" != {{ value }}) AS "{{ measure }}"
{%- endfor %}
{%- if attributes %},
        count(*) FILTER (
            WHERE {{ wrong_attributes() }}
        ) AS attributes
{%- endif %}

    {{ joined() }}
    WHERE {{ members or "TRUE" }}{{ touched(driver_key | map("first"), "model") }}
)

SELECT
    '{{ rows_measure }}' AS measure,
    coalesce((SELECT sum(source.total) FROM source), 0) AS left_value,
    coalesce((SELECT sum(target.total) FROM target), 0) AS right_value
{% if sums %}
UNION ALL
SELECT
    rtrim(measures.measure || ' ' || coalesce(source.grouped, target.grouped)) AS measure,
    coalesce(measures.left_value, 0) AS left_value,
    coalesce(measures.right_value, 0) AS right_value
FROM source
FULL JOIN target ON source.grouped = target.grouped
CROSS JOIN LATERAL (
    VALUES
{% for name in sums %}
    ('{{ name }}', source."{{ name }}", target."{{ name }}"){{ "," if not loop.last }}
{% endfor %}
) AS measures (measure, left_value, right_value)
{% endif %}
UNION ALL
SELECT
    measures.measure,
    0 AS left_value,
    measures.right_value
FROM wrong
CROSS JOIN LATERAL (
    VALUES
{% for measure in keys %}
    ('{{ measure }}', wrong."{{ measure }}"),
{% endfor %}
{% if attributes %}
    ('wrong attributes', wrong.attributes),
{% endif %}
    ('rows of no live {{ driver_table }}', wrong.strangers)
) AS measures (measure, right_value)
