"""# TechMarket, every night

Extracts the four TechMarket stores (auth, catalog, orders, payments), checks what came, builds the
increments of the star schema, publishes them into the warehouse in one transaction and brings
ClickHouse to the same state. The run's ledger must close: every source row is accounted for.

**A re-run** takes the window since the last *published* run again, what was then still open included,
and changes nothing that is already there. A run that failed has published nothing and has moved no
watermark, so the next one takes its rows too.

**Parameters**, for a run started by hand: `{"tables": ["orders", "order_items"]}` takes only those
tables, `{"full_refresh": true}` takes whole tables, `{"allow_deletes": true}` deletes more rows than a
contract's limit. A key or a table that is not known is refused, with the nearest one that is.
"""

from __future__ import annotations

from airflow.sdk import DAG

from tallyhouse_airflow.task_groups.nightly import nightly, nightly_settings

with DAG(
    dag_id="techmarket_nightly",
    doc_md=__doc__,
    description="Four MySQL stores to the star schema and ClickHouse, with a ledger that closes",
    **nightly_settings("techmarket", hours=4),
):
    nightly("techmarket")
