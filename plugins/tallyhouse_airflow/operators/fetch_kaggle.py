"""Kaggle's datasets to the folder, the lake and the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tallyhouse.errors import TallyhouseError
from tallyhouse_airflow.hooks.failures import find_connection
from tallyhouse_airflow.operators.of_a_run import RunOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class FetchKaggleOperator(RunOperator):
    """Runs jobs/fetch_kaggle, the same code as its command, with what Airflow's connections say.

    Returns a small manifest: the version, files and bytes of each dataset.

    :param kaggle_conn_id: Kaggle's token as its password, in its extra `data_root`, and `endpoint` only where
        another server stands in Kaggle's place
    :param catalogue_conn_id: connection of the Kaggle data API

    See `RunOperator` for the other parameters.
    """

    ui_color = "#dbe9f6"

    def __init__(
        self, *, kaggle_conn_id: str = "kaggle", catalogue_conn_id: str = "kaggle_data", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.kaggle_conn_id = kaggle_conn_id
        self.catalogue_conn_id = catalogue_conn_id

    @property
    def about(self) -> str:
        """See `RunOperator`."""
        return "datasets of Kaggle"

    def carry_out(self, context: Context) -> dict[str, dict[str, Any]]:
        """Brings every dataset of datasets.yaml.

        Returns:
            By dataset: `version`, `files` and `bytes`.

        Raises:
            TallyhouseError: One of them could not be fetched; the others were.
        """
        from jobs.fetch_kaggle.errors import FetchError  # noqa: PLC0415 - only this task needs it
        from jobs.fetch_kaggle.fetch import fetch_all  # noqa: PLC0415
        from jobs.fetch_kaggle.settings import Settings, read_wanted  # noqa: PLC0415

        settings = Settings.model_validate(self._settings())
        try:
            outcomes = fetch_all(settings, read_wanted(settings.fetch_kaggle_datasets))
        except FetchError as error:
            raise _failure([str(error)], transient=error.transient) from error
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        if errors:
            raise _failure([str(error) for error in errors], transient=all(e.transient for e in errors))
        return {
            held.ref: {"version": held.version, "files": len(held.files), "bytes": held.total_bytes}
            for outcome in outcomes
            if (held := outcome.held) is not None
        }

    def _settings(self) -> dict[str, Any]:
        kaggle = find_connection(self.kaggle_conn_id)
        catalogue = find_connection(self.catalogue_conn_id)
        hook = self.lake_hook
        lake = hook.access()
        root = kaggle.extra_dejson.get("data_root")
        if not root:
            raise TallyhouseError(
                f"the connection {self.kaggle_conn_id} names no folder for datasets",
                remedy='Put {"data_root": "/…"} into its extra',
            )
        return {
            "kaggle_data_root": Path(root),
            "kaggle_api_token": kaggle.password or "",
            "kaggle_endpoint": kaggle.extra_dejson.get("endpoint") or "",
            "kaggle_data_api_url": f"{catalogue.schema or 'http'}://{catalogue.host}:{catalogue.port}",
            "kaggle_data_api_key": catalogue.password or "",
            "minio_endpoint": lake["endpoint"],
            "lake_bucket": hook.bucket(),
            "lake_region": hook.conn_config.region_name or "us-east-1",
            "minio_access_key": lake["access_key"],
            "minio_secret_key": lake["secret_key"],
        }


def _failure(said: list[str], *, transient: bool) -> TallyhouseError:
    return TallyhouseError(
        "; ".join(said),
        remedy="What was fetched stays; clear this task to go on with the rest",
        transient=transient,
    )
