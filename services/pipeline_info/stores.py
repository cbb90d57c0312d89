"""Opens the store that the settings name; only its own driver is imported."""

from __future__ import annotations

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
    raise ValueError(f"PIPELINE_INFO_BACKEND={settings.backend}: unknown")


def _needed(value: str, name: str, backend: str) -> str:
    if not value:
        raise ValueError(f"{name} is not set: the backend {backend} needs it")
    return value
