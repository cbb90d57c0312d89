"""What the API needs of a store of runs. Every backend keeps this contract."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass

from services.pipeline_info.models import PipelineInfo, PipelineRun, PipelineSummary, RunFilter


class KeyReusedError(Exception):
    """An idempotency key came again with another body."""


class StoreUnavailableError(Exception):
    """The store cannot be read or written now; the message says what and where."""


@dataclass(frozen=True)
class Inserted:
    """What became of an insert.

    Attributes:
        run: The stored run.
        created: False when the idempotency key was known, so that nothing was written.
    """

    run: PipelineRun
    created: bool


def new_id() -> str:
    """An id for a new run: random, so that no two processes need to agree."""
    return uuid.uuid4().hex


class PipelineInfoRepository(ABC):
    """A store of runs.

    Runs come newest first: by `start_utc`, then by `id`, both descending. An insert that returned is
    durable: it survives a kill of the process and a loss of power.
    """

    name: str

    @abstractmethod
    def get_pipeline_info(
        self, wanted: RunFilter, *, limit: int | None = None, offset: int = 0
    ) -> list[PipelineRun]:
        """The runs that match, newest first; all of them when `limit` is None."""

    @abstractmethod
    def count_pipeline_info(self, wanted: RunFilter) -> int:
        """How many runs match."""

    @abstractmethod
    def get_pipelines_summary(self) -> list[PipelineSummary]:
        """One summary for each pipeline signature, ordered by it."""

    @abstractmethod
    def insert_pipeline_info(self, record: PipelineInfo, *, idempotency_key: str | None = None) -> Inserted:
        """Store a run.

        Raises:
            KeyReusedError: The key is known and belongs to a run with another content.
        """

    def corrupt_records(self) -> int:
        """How many stored records could not be read and were skipped."""
        return 0
