"""Rules of the DAG collection. Every message says how to fix what it found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.models.dag import DAG

from tallyhouse.contracts import load_pipeline
from tallyhouse.contracts.load import PIPELINES
from tallyhouse.publish.target import task as task_of
from tallyhouse.settings import TargetsSetting

REPOSITORY = Path(__file__).resolve().parents[2]
DAGS = REPOSITORY / "dags"
PATHS = (REPOSITORY / "include", REPOSITORY / "plugins", REPOSITORY)
PARSE_SECONDS = 10
FIRST = (
    *("OpenRunOperator", "AirflowToPipelineInfoOperator"),
    *("MaintainLakeOperator", "RebuildWarehouseOperator"),
)


@pytest.fixture(scope="module")
def bag() -> DagBag:
    return DagBag(DAGS)


def dags(bag: DagBag) -> list[DAG]:
    return list(bag.dags.values())


def test_the_folder_holds_exactly_these_dags(bag: DagBag) -> None:
    ours = {"kaggle_nightly", "pancake_nightly", "techmarket_nightly"}
    # And those of databases that were added.
    nightly = ours | {f"{path.parent.name}_nightly" for path in PIPELINES.glob("*/pipeline.yaml")}
    others = {"events_curated", "maintain_lake", "monitor_pipelines", "rebuild_warehouse"}
    assert set(bag.dags) == {*others, *nightly} - {"events_nightly"}


def test_every_dag_can_be_imported(bag: DagBag) -> None:
    assert bag.import_errors == {}


def test_the_folder_parses_fast_and_without_any_server() -> None:
    # A fresh process whose every connection attempt fails: parsing may not touch a server.
    code = (
        "import socket, sys, time\n"
        "def refuse(*args, **kwargs): raise RuntimeError('a DAG file opened a connection')\n"
        "import airflow.settings\n"
        "socket.socket.connect = refuse; socket.create_connection = refuse\n"
        "from airflow.dag_processing.dagbag import DagBag\n"
        # Processor time: what else the machine does is not the folder's fault.
        "began = time.process_time()\n"
        f"bag = DagBag({str(DAGS)!r})\n"
        "print(time.process_time() - began)\n"
        "sys.exit(str(bag.import_errors) if bag.import_errors else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, PATHS))},
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seconds = float(done.stdout.split()[-1])
    assert seconds < PARSE_SECONDS, f"the folder takes {seconds} s to parse: import less"


def test_every_dag_explains_itself(bag: DagBag) -> None:
    for dag in dags(bag):
        assert dag.doc_md, f"{dag.dag_id}: give the file a docstring and pass doc_md=__doc__"
        assert "re-run" in dag.doc_md, f"{dag.dag_id}: say in the docstring what a re-run does"
        assert dag.description, f"{dag.dag_id}: give it a description"
        assert dag.tags, f"{dag.dag_id}: give it tags"


def test_every_dag_says_how_often_how_many_and_how_long(bag: DagBag) -> None:
    for dag in dags(bag):
        assert dag.catchup is False, f"{dag.dag_id}: pass catchup=False; the window comes from the watermark"
        assert dag.max_active_runs == 1, f"{dag.dag_id}: pass max_active_runs=1"
        assert dag.dagrun_timeout, f"{dag.dag_id}: pass dagrun_timeout"
        for task in dag.tasks:
            assert task.execution_timeout, (
                f"{dag.dag_id}.{task.task_id}: set execution_timeout in default_args"
            )
            assert task.retries >= 1, f"{dag.dag_id}.{task.task_id}: set retries in default_args"
            assert task.owner != "airflow", f"{dag.dag_id}.{task.task_id}: set owner in default_args"


def test_params_are_typed_and_described(bag: DagBag) -> None:
    for dag in dags(bag):
        for name, param in dag.params.items():
            schema = dag.params.get_param(name).schema
            assert schema.get("type"), f"{dag.dag_id}: give param {name} a type ({param!r})"
            assert schema.get("description") or dag.params.get_param(name).description, (
                f"{dag.dag_id}: describe param {name}; the web form shows it"
            )


@pytest.mark.parametrize("pipeline", ["techmarket", "pancake", "kaggle"])
def test_the_form_offers_the_tables_of_the_contract(bag: DagBag, pipeline: str) -> None:
    schema = bag.dags[f"{pipeline}_nightly"].params.get_param("tables").schema
    contract = [table.name for table in load_pipeline(pipeline).tables]
    assert schema["items"]["enum"] == contract, f"list the tables of {pipeline} in its DAG file as contracted"


def test_every_dag_begins_with_a_task_that_refuses_unknown_parameters(bag: DagBag) -> None:
    for dag in dags(bag):
        for task in dag.roots:
            assert type(task).__name__ in FIRST, (
                f"{dag.dag_id}.{task.task_id}: begin with a task that calls hooks.run_conf.check_conf"
            )


@pytest.mark.parametrize("pipeline", ["techmarket", "pancake"])
def test_each_target_has_the_task_whose_name_etl_run_target_keeps(bag: DagBag, pipeline: str) -> None:
    found = [task for task in bag.dags[f"{pipeline}_nightly"].task_ids if task.startswith("publish.")]
    targets = load_pipeline(pipeline).targets
    assert targets == TargetsSetting().names
    assert found == ["publish.warehouse", *map(task_of, targets)]


def test_a_pipeline_without_models_ends_in_ods(bag: DagBag) -> None:
    found = [task for task in bag.dags["kaggle_nightly"].task_ids if task.startswith("publish.")]
    assert found == ["publish.warehouse"]
    assert load_pipeline("kaggle").targets == ()


def test_a_target_that_is_switched_on_has_a_task_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TARGETS", "clickhouse,duckdb")
    dag = DagBag(DAGS / "pancake").dags["pancake_nightly"]
    for task in ("publish.clickhouse", "publish.duckdb"):
        assert dag.task_dict[task].upstream_task_ids == {"open_run", "publish.warehouse"}
        assert dag.task_dict[task].downstream_task_ids == {"close_run"}


def test_a_dag_file_is_wiring() -> None:
    for path in DAGS.rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 100, f"{path.name}: move what is not wiring into plugins/ or include/"
        for line in lines:
            assert "Variable.get" not in line, f"{path.name}: read variables in the task, not at parse time"


@pytest.mark.parametrize(
    "task", ["extract.orders", "check", "transform", "publish.warehouse", "publish.clickhouse"]
)
def test_clearing_a_task_keeps_to_its_run(bag: DagBag, task: str) -> None:
    dag = bag.dags["techmarket_nightly"]
    cleared = dag.partial_subset([task], include_downstream=True, include_upstream=False).task_dict
    assert "open_run" not in cleared, (
        "open_run must not be cleared with a later task: it would open another run"
    )
    assert "close_run" in cleared


def test_a_dag_that_publishes_says_so_by_assets(bag: DagBag) -> None:
    found = {
        (dag.dag_id, task.task_id): [asset.name for asset in task.outlets]
        for dag in dags(bag)
        for task in dag.tasks
        if task.outlets
    }
    expected = {
        ("events_curated", "publish.curated"): ["events lake/curated"],
        ("kaggle_nightly", "publish.warehouse"): ["kaggle warehouse/ods"],
    }
    for pipeline in ("techmarket", "pancake"):
        warehouse = [f"{pipeline} warehouse/ods", f"{pipeline} warehouse/star-schema"]
        clickhouse = [f"{pipeline} clickhouse/star-schema", f"{pipeline} clickhouse/marts"]
        expected[f"{pipeline}_nightly", "publish.warehouse"] = warehouse
        expected[f"{pipeline}_nightly", "publish.clickhouse"] = clickhouse
    assert found == expected


def test_no_parameter_of_the_web_form_is_required(bag: DagBag) -> None:
    for dag in dags(bag):
        for name, param in dag.params.items():
            types = dag.params.get_param(name).schema["type"]
            assert "null" in types, (
                f"{dag.dag_id}, {name}: let its type include null, {param!r} is its default"
            )
