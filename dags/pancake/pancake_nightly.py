"""# Pancakes, every night

Takes the pancake application's table whole, since it keeps no `updated_at`, checks it, and publishes
pancakes and their ratings into the warehouse and ClickHouse. The run's ledger must close.

**A re-run** takes the table again and changes nothing that is already there.

**Parameters**, for a run started by hand: `{"full_refresh": true}` has no further effect here. A key
that is not known is refused, with the nearest one that is.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from tallyhouse_airflow.task_groups.nightly import nightly, nightly_params

with DAG(
    dag_id="pancake_nightly",
    doc_md=__doc__,
    description="The pancake application to the star schema and ClickHouse",
    schedule="30 2 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Kyiv"),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    default_args={
        "owner": "data-platform",
        "retries": 1,
        "retry_delay": timedelta(seconds=30),
        "execution_timeout": timedelta(hours=1),
    },
    params=nightly_params("pancake"),
    render_template_as_native_obj=True,
    tags=["pancake", "nightly"],
):
    nightly("pancake")
