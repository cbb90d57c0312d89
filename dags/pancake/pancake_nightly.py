"""# Pancakes, every night

Takes the pancake application's table whole, since it keeps no `updated_at`, checks it, and publishes
pancakes and their ratings into the warehouse and ClickHouse. The run's ledger must close.

**A re-run** takes the table again and changes nothing that is already there.

**Parameters**, for a run started by hand: `{"full_refresh": true}` has no further effect here. A key
that is not known is refused, with the nearest one that is.
"""

from __future__ import annotations

from airflow.sdk import DAG

from tallyhouse_airflow.task_groups.nightly import nightly, nightly_settings

with DAG(
    dag_id="pancake_nightly",
    doc_md=__doc__,
    description="The pancake application to the star schema and ClickHouse",
    **nightly_settings("pancake", schedule="30 2 * * *"),
):
    nightly("pancake")
