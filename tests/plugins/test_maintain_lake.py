"""The lake's upkeep as Airflow starts it: the night's run removes, one by hand lists unless told."""

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.api.datamodels._generated import DagRunType
from airflow.sdk.exceptions import AirflowFailException

from tallyhouse.lake import Lake
from tallyhouse.settings import Settings
from tallyhouse_airflow.operators.maintain_lake import MaintainLakeOperator

pytestmark = pytest.mark.integration


def execute(run_type: DagRunType, *, conf: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
    context: Any = {
        "dag": SimpleNamespace(dag_id="maintain_lake", params={"apply": None}),
        "dag_run": SimpleNamespace(conf=conf or {}, dag_id="maintain_lake", run_id="r", run_type=run_type),
    }
    return MaintainLakeOperator(task_id="maintain", **arguments).execute(context)


@pytest.mark.parametrize(
    ("run_type", "apply", "applied"),
    [
        (DagRunType.SCHEDULED, None, True),
        (DagRunType.MANUAL, None, False),
        (DagRunType.MANUAL, True, True),
        (DagRunType.SCHEDULED, False, False),
    ],
)
def test_the_night_removes_and_a_hand_lists_unless_told(
    run_type: DagRunType, apply: bool | None, applied: bool, settings: Settings
) -> None:
    found = execute(run_type, apply=apply)
    assert found["applied"] is applied
    # Everything of the stack's lake is younger than the grace.
    assert found["places"] == found["bytes"] == 0


def test_a_lake_beyond_its_budget_fails_the_task(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    lake = Lake.s3(
        settings.lake_bucket,
        endpoint=settings.minio_url,
        access_key=settings.minio_root_user,
        secret_key=settings.minio_root_password,
    )
    lake.write_json("report/of-a-test.json", "x" * 1000)
    try:
        monkeypatch.setenv("LAKE_BUDGET_GB", "0.000001")
        with pytest.raises(
            AirflowFailException, match=r"lake: the lake has .* of 1\.0 kB \(LAKE_BUDGET_GB\)"
        ):
            execute(DagRunType.MANUAL)
    finally:
        lake.filesystem.delete_file(lake.path("report/of-a-test.json"))


def test_a_misspelt_parameter_is_refused() -> None:
    with pytest.raises(AirflowFailException, match=r"no parameter 'aply' \(apply\?\)"):
        execute(DagRunType.SCHEDULED, conf={"aply": True})
