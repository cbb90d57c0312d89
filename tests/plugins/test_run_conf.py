"""A run that is started with a configuration that its DAG does not know is refused by its first task."""

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from tallyhouse.errors import TallyhouseError
from tallyhouse_airflow.hooks.run_conf import check_conf
from tallyhouse_airflow.operators.airflow_to_pipeline_info import AirflowToPipelineInfoOperator
from tallyhouse_airflow.operators.run import OpenRunOperator

PARAMS = {"tables": [], "full_refresh": False}


def context(conf: dict[str, Any] | None, params: dict[str, Any] = PARAMS) -> Any:
    return {
        "dag": SimpleNamespace(params=params, dag_id="pancake_nightly"),
        "dag_run": SimpleNamespace(conf=conf, dag_id="pancake_nightly", run_id="manual__1"),
        "run_id": "manual__1",
    }


@pytest.mark.parametrize("conf", [None, {}, {"full_refresh": True}, {"tables": ["pancakes"]}, PARAMS])
def test_what_the_dag_knows_is_taken(conf: dict[str, Any] | None) -> None:
    check_conf(context(conf))


@pytest.mark.parametrize(
    ("conf", "said"),
    [
        (
            {"full_refesh": True},
            r"no parameter 'full_refesh' \(full_refresh\?\)\. There are: full_refresh, tables",
        ),
        ({"full_refresh": True, "tabels": ["x"]}, r"no parameter 'tabels' \(tables\?\)"),
        ({"zzz": 1}, r"no parameter 'zzz'\. There are"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(conf: dict[str, Any], said: str) -> None:
    with pytest.raises(TallyhouseError, match=said):
        check_conf(context(conf))


def test_the_first_task_of_every_kind_of_dag_refuses_before_it_does_anything() -> None:
    operators = (
        OpenRunOperator(task_id="o", pipeline="pancake", dwh_conn_id="none", lake_conn_id="none"),
        AirflowToPipelineInfoOperator(task_id="m", dwh_conn_id="none"),
    )
    for operator in operators:
        with pytest.raises(AirflowFailException, match=r"no parameter 'tabels' \(tables\?\)"):
            operator.execute(context({"tabels": ["x"]}))


def test_an_unknown_table_is_refused_with_the_nearest_one() -> None:
    operator = OpenRunOperator(task_id="o", pipeline="techmarket", tables=["order_itms", "orders"])
    with pytest.raises(
        AirflowFailException, match=r"no table 'order_itms' \(order_items\?\)\. There are: addresses"
    ):
        operator.execute(context({}))
