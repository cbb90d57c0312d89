"""What the operators of a run have in common: their arguments, and the frame of `execute`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import BaseOperator

from tallyhouse.contracts import PipelineContract, load_pipeline
from tallyhouse_airflow.hooks.lake import LakeHook
from tallyhouse_airflow.hooks.postgres import CheckedPostgresHook
from tallyhouse_airflow.hooks.run_failures import kept_errors

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg


class RunOperator(BaseOperator):
    """A task of a run; what it does is its `carry_out`.

    Why it fails is kept in `etl.run`. Its errors need not say in which run and of what they are: that is
    added here.

    :param run_id: the run, from `etl.run` (templated)
    :param lake_conn_id: connection of the lake
    :param dwh_conn_id: connection of the warehouse, which keeps runs, ledgers and watermarks
    """

    template_fields: Sequence[str] = ("run_id",)
    target: str | None = None
    """The target that the task is about, where it is about one: it alone fails with the task."""

    def __init__(
        self,
        *,
        run_id: str | XComArg,
        lake_conn_id: str = "s3_lake",
        dwh_conn_id: str = "pg_dwh",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_id = cast(str, run_id)  # what `open_run` returned, once Airflow has rendered it
        self.lake_conn_id = lake_conn_id
        self.dwh_conn_id = dwh_conn_id

    @property
    @abstractmethod
    def about(self) -> str:
        """What errors are said to be of, such as `pipeline techmarket`."""

    @property
    def lake_hook(self) -> LakeHook:
        """The lake's."""
        return LakeHook(aws_conn_id=self.lake_conn_id)

    @property
    def warehouse(self) -> CheckedPostgresHook:
        """The warehouse's."""
        return CheckedPostgresHook(postgres_conn_id=self.dwh_conn_id)

    def errors(self, context: Context) -> AbstractContextManager[None]:
        """What surrounds the work: errors get their context, and Airflow's class, and are kept."""
        return kept_errors(self, context)

    def execute(self, context: Context) -> Any:
        """Does the task's work.

        Returns:
            What `carry_out` returns: a small manifest, never data.

        Raises:
            AirflowFailException: A permanent error; retrying would only repeat it.
            AirflowException: A transient one, as when a server went away.
        """
        with self.errors(context):
            return self.carry_out(context)

    @abstractmethod
    def carry_out(self, context: Context) -> Any:
        """The task's work."""


class PipelineOperator(RunOperator):
    """A task of a run that needs to know its whole pipeline.

    :param pipeline: name of the pipeline's contract (templated)

    See `RunOperator` for the other parameters.
    """

    template_fields: Sequence[str] = ("pipeline", "run_id")

    def __init__(self, *, pipeline: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline

    @property
    def about(self) -> str:
        """See `RunOperator`."""
        return f"pipeline {self.pipeline}"

    @property
    def contract(self) -> PipelineContract:
        """The pipeline's contract."""
        return load_pipeline(self.pipeline)
