"""Opens the store that the settings name; only its own driver is imported."""

from __future__ import annotations

from services.pipeline_info.lineage import LineageStore
from services.pipeline_info.migrate import lineage_file
from services.pipeline_info.repository import PipelineInfoRepository
from services.pipeline_info.settings import Settings


def open_store(settings: Settings) -> PipelineInfoRepository:
    """The store of the settings; nothing is connected or made yet.

    Raises:
        ValueError: A setting that the backend needs is missing.
    """
    if settings.backend == "jsonl":
        from services.pipeline_info.backends.jsonl import JsonlPipelineRepository  # noqa: PLC0415

        return JsonlPipelineRepository(settings.file, rotate_bytes=settings.rotate_bytes)
    if settings.backend == "postgres":
        from services.pipeline_info.backends.postgres import PostgresPipelineRepository  # noqa: PLC0415

        return PostgresPipelineRepository(
            _needed(settings.dsn.get_secret_value(), "PIPELINE_INFO_DSN", "postgres"),
            pool_size=settings.pool_size,
            timeout=settings.store_timeout,
        )
    if settings.backend == "duckdb":
        from services.pipeline_info.backends.duckdb import DuckdbPipelineRepository  # noqa: PLC0415

        return DuckdbPipelineRepository(settings.file)
    from services.pipeline_info.backends.oracle import OraclePipelineRepository  # noqa: PLC0415

    return OraclePipelineRepository(
        dsn=_needed(settings.dsn.get_secret_value(), "PIPELINE_INFO_DSN", "oracle"),
        user=_needed(settings.user, "PIPELINE_INFO_USER", "oracle"),
        password=_needed(settings.password.get_secret_value(), "PIPELINE_INFO_PASSWORD", "oracle"),
        table=settings.table,
        key_table=settings.key_table,
        column_map=settings.column_map,
        pool_size=settings.pool_size,
        timeout=settings.store_timeout,
    )


def open_lineage(settings: Settings, store: PipelineInfoRepository) -> LineageStore:
    """Where lineage is kept: beside the runs in PostgreSQL, else in a file beside theirs."""
    from services.pipeline_info.backends.lineage_store import PostgresLineage, SqliteLineage  # noqa: PLC0415
    from services.pipeline_info.backends.postgres import PostgresPipelineRepository  # noqa: PLC0415

    if isinstance(store, PostgresPipelineRepository):
        return PostgresLineage(store)
    return SqliteLineage(lineage_file(settings))


def _needed(value: str, name: str, backend: str) -> str:
    if not value:
        raise ValueError(f"{name} is not set: the backend {backend} needs it")
    return value
