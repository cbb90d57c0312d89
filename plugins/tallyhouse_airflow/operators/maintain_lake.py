"""The lake's upkeep."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from tallyhouse.lake.bucket import Bucket
from tallyhouse.lake.upkeep import budget, report, upkeep
from tallyhouse.settings import LakeUpkeep
from tallyhouse_airflow.hooks.failures import one_line_errors
from tallyhouse_airflow.hooks.lake import LakeHook
from tallyhouse_airflow.hooks.postgres import CheckedPostgresHook
from tallyhouse_airflow.hooks.run_conf import check_conf

if TYPE_CHECKING:
    from airflow.sdk import Context


class MaintainLakeOperator(BaseOperator):
    """Removes what nobody needs any more in the lake, or lists it; warns before the lake meets its budget.

    :param apply: whether it is removed; None: in a scheduled run, and not in one started by hand (templated)
    :param lake_conn_id: connection of the lake
    :param dwh_conn_id: connection of the warehouse, which says what became of each run
    """

    template_fields: Sequence[str] = ("apply",)
    ui_color = "#eeeeee"

    def __init__(
        self,
        *,
        apply: bool | str | None = None,
        lake_conn_id: str = "s3_lake",
        dwh_conn_id: str = "pg_dwh",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.apply = apply
        self.lake_conn_id = lake_conn_id
        self.dwh_conn_id = dwh_conn_id

    def execute(self, context: Context) -> dict[str, int | bool]:
        """Does the upkeep.

        Returns:
            Whether it was `applied`, in how many `places` something may go, or went, its `bytes`, and the
            bytes that the lake `held`.

        Raises:
            AirflowFailException: An unknown parameter, or a lake that is larger than its budget.
            AirflowException: A server went away; what was removed until then nobody needed.
        """
        with one_line_errors("lake"):
            check_conf(context)
            scheduled = context["dag_run"].run_type == "scheduled"
            applied = scheduled if self.apply is None else bool(self.apply)
            hook = LakeHook(aws_conn_id=self.lake_conn_id)
            lake = hook.get_lake()
            bucket, keep = Bucket(hook.get_conn(), hook.bucket()), LakeUpkeep()  # type: ignore[call-arg]
            warehouse = CheckedPostgresHook(postgres_conn_id=self.dwh_conn_id)
            with warehouse.connect() as connection:
                survey = upkeep(connection, lake, bucket, keep, now=datetime.now(UTC), apply=applied)
            for line in report(survey, applied=applied):
                self.log.info("%s", line)
            if warning := budget(survey, keep, applied=applied):
                self.log.warning("%s", warning)
        return {
            "applied": applied,
            "places": len(survey.leftovers),
            "bytes": survey.going,
            "held": survey.bytes,
        }
