-- noqa: disable=LT02,LT05,ST05
-- Brings an increment into a model's table, by primary key. An increment of a dimension with history holds
-- all versions of each member that it touches, valid_from and valid_to worked out again; a version keeps
-- its key, so an older one is closed by being updated.
-- Only rows that differ are touched, so publishing the same increment again changes nothing.
{% from "dwh/ods/rows.jinja" import names with context %}
{% set others = columns | reject("in", key) | list %}
INSERT INTO dwh."{{ table }}" AS target ({{ names("", columns) }})
SELECT {{ names("", columns) }}
FROM {{ staging }}
{% if not bare %}
ON CONFLICT ({{ names("", key) }}) DO UPDATE
    SET
{% for column in others %}
        "{{ column }}" = excluded."{{ column }}"{{ "," if not loop.last }}
{% endfor %}
    WHERE
        row({{ names("target.", others) }}) IS DISTINCT FROM row({{ names("excluded.", others) }})
{% endif %}
