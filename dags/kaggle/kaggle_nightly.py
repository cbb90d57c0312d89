"""# Kaggle's datasets, every night

Fetches the datasets of `jobs/fetch_kaggle/datasets.yaml` into the folder of datasets and the lake, enters
them in the catalogue (kaggle-data-api), and takes the CSV files that have a contract
(`include/contracts/kaggle.yaml`) through the gate into `ods`. The run's ledger must close. It needs a token
of Kaggle: `KAGGLE_API_TOKEN`.

**A re-run** fetches nothing that is there already, goes on with a download that broke off, takes the files
again and changes nothing that is already in the warehouse.

**Parameters**, for a run started by hand: `{"tables": ["olist_sellers"]}` takes that file alone; datasets are
fetched in any case. `{"full_refresh": true}` has no further effect here.
"""

from __future__ import annotations

from airflow.sdk import DAG

from tallyhouse_airflow.operators.fetch_kaggle import FetchKaggleOperator
from tallyhouse_airflow.task_groups.nightly import nightly, nightly_settings

with DAG(
    dag_id="kaggle_nightly",
    doc_md=__doc__,
    description="Kaggle's datasets to the lake, the catalogue and ods",
    **nightly_settings("kaggle", hours=6),
):
    nightly("kaggle", fetch=FetchKaggleOperator)
