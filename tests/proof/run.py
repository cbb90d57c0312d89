"""A run of the pancake pipeline, task after task, in one process: what Airflow's tasks do, without Airflow.

A process that was killed is started again as Airflow tries a task again: the tasks that ended stay done, the
one that was killed begins anew under the next number. Processes are forked off one that has imported all of
this, which takes longer than a task.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from tallyhouse_airflow.operators.lake_to_postgres import LakeToPostgresOperator
from tallyhouse_airflow.operators.postgres_to_lake import PostgresToLakeOperator
from tallyhouse_airflow.operators.run import CloseRunOperator, OpenRunOperator
from tallyhouse_airflow.operators.spark_job import CheckBatchOperator, TransformBatchOperator
from tallyhouse_airflow.operators.warehouse_to_target import WarehouseToTargetOperator

if not hasattr(sys.modules["__main__"], "__file__"):
    # In the process that is forked. Without one PySpark takes itself for run by its own tests, and ends it.
    sys.modules["__main__"].__file__ = __file__

PIPELINE = "pancake"
FRESH: dict[str, Any] = {"done": [], "run_id": "", "tries": 0}
"""The state of a run of which nothing is done."""
TASKS: dict[str, Callable[[str], Any]] = {
    "open_run": lambda _: OpenRunOperator(task_id="open_run", pipeline=PIPELINE),
    "extract.pancake": lambda run: PostgresToLakeOperator(
        task_id="pancake", source="pancake", run_id=run, allow_deletes=True
    ),
    "check": lambda run: CheckBatchOperator(task_id="check", pipeline=PIPELINE, run_id=run),
    "transform": lambda run: TransformBatchOperator(task_id="transform", pipeline=PIPELINE, run_id=run),
    "publish.warehouse": lambda run: LakeToPostgresOperator(
        task_id="warehouse", pipeline=PIPELINE, run_id=run
    ),
    "publish.clickhouse": lambda run: WarehouseToTargetOperator(
        task_id="clickhouse", pipeline=PIPELINE, run_id=run, target="clickhouse"
    ),
    "close_run": lambda run: CloseRunOperator(task_id="close_run", run_id=run),
}


def launch(state: Path, environment: dict[str, str], log: Path) -> BaseProcess:
    """Begins to carry out what is left to do, in a process that leads a group of its own.

    Args:
        state: A file with what is done.
        environment: All of the process's environment.
        log: Where it says what it does.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "tallyhouse.quality.check"])
    process = context.Process(target=_main, args=(state, environment, log))
    # The first one starts the process that is forked; Airflow reads some of its environment when imported.
    with patch.dict(os.environ, environment, clear=True):
        process.start()
    return process


def _main(file: Path, environment: dict[str, str], log: Path) -> None:
    os.setsid()
    with log.open("ab") as sink:
        for stream in (1, 2):
            os.dup2(sink.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    state = json.loads(file.read_text()) if file.exists() else FRESH | {"done": []}
    for name, operator in TASKS.items():
        if name in state["done"]:
            continue
        state["tries"] += 1
        _keep(file, state)
        ti = SimpleNamespace(
            try_number=state["tries"],
            task_id=name,
            dag_id="pancake_nightly",
            xcom_push=lambda **_: None,
            get_task_states=lambda **_: {},
        )
        dag_run = SimpleNamespace(conf={}, dag_id="pancake_nightly", run_id="proof")
        result = operator(state["run_id"]).execute(
            {
                "ti": ti,
                "dag": SimpleNamespace(dag_id="pancake_nightly", params={}),
                "dag_run": dag_run,
                "run_id": "proof",
                "params": {},
            }
        )
        if name == "open_run":
            state["run_id"] = result
        state["done"].append(name)
        state["tries"] = 0
        _keep(file, state)


def _keep(file: Path, state: dict[str, Any]) -> None:
    aside = file.with_suffix(".new")
    aside.write_text(json.dumps(state))
    aside.replace(file)
