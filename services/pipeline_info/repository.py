"""What the API needs of a store of runs. Every backend keeps this contract."""

from __future__ import annotations

import base64
import binascii
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

import orjson

from services.common.resilience import UnavailableError
from services.common.security import ANYBODY, Principal
from services.pipeline_info.models import PipelineInfo, PipelineRun, PipelineSummary, RunFilter

FEW = 100
"""How many documents are fetched at once when nothing is known of their size."""


class StoreUnavailableError(UnavailableError):
    """The store cannot be read or written now; the message says what and where.

    What was being written may be stored or not: repeating the same insert settles it.
    """


class StoreRefusedError(Exception):
    """The store is there and cannot hold what it was given: trying again does not help."""


class BadCursorError(ValueError):
    """A cursor that this service did not give out."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the order of runs: just after the run with this start and id."""

    start_utc: datetime
    id: str

    def encode(self) -> str:
        """The cursor as an opaque word for a URL."""
        return base64.urlsafe_b64encode(orjson.dumps([self.start_utc, self.id])).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """The cursor of `encode`.

        Raises:
            BadCursorError: `text` is none.
        """
        try:
            start, run_id = orjson.loads(
                base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
            )
            if not isinstance(run_id, str) or "\x00" in run_id:
                raise TypeError
            return cls(datetime.fromisoformat(start).astimezone(UTC), run_id)
        except (binascii.Error, ValueError, TypeError, OverflowError) as error:
            raise BadCursorError("the cursor is none of this service's: start again without it") from error


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as the store gives it: its place in the order, and its document, not taken apart."""

    id: str
    start_utc: datetime
    doc: bytes

    def run(self) -> PipelineRun:
        """The document, taken apart."""
        return PipelineRun.model_validate_json(self.doc)

    def cursor(self) -> Cursor:
        """The place just after this run."""
        return Cursor(self.start_utc, self.id)


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as lists show it: what stands in columns, without its document."""

    id: str
    start_utc: datetime
    end_utc: datetime | None
    pipeline_name: str | None
    script_name: str | None
    pipeline_type: str | None
    environment: str | None
    date_code: str | None
    state: str | None
    elapsed_seconds: float | None
    rowcount: int | None
    failure: str | None

    def cursor(self) -> Cursor:
        """The place just after this run."""
        return Cursor(self.start_utc, self.id)


def new_id(start_utc: datetime) -> str:
    """An id for a new run: its start, so that a store finds its partition, and a random part.

    Lexical order of ids is the order of starts.
    """
    return f"{start_utc:%Y%m%dT%H%M%S%f}-{secrets.token_hex(6)}"


def start_of_id(run_id: str) -> datetime | None:
    """The start that an id of `new_id` carries; None for any other text."""
    stamp, dash, tail = run_id.partition("-")
    if len(stamp) != 21 or len(tail) != 12 or not dash or not run_id.isascii():
        return None
    try:
        return datetime.strptime(stamp, "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to insert. It has its id from the start, so that repeating the insert stores it once.

    Attributes:
        record: The run.
        key: The idempotency key that it was sent with.
        principal: Whose key it is.
        id: The run's id; made when it is left out.
    """

    record: PipelineInfo
    key: str | None = None
    principal: Principal = ANYBODY
    id: str = field(default="")

    def __post_init__(self) -> None:
        if not self.id:
            assert self.record.start_utc is not None  # noqa: S101 - the validator saw to it
            object.__setattr__(self, "id", new_id(self.record.start_utc))

    @property
    def stored_key(self) -> str | None:
        """The key as it is stored: the principal's own.

        The blank tells it from a key as clients send it. Those were stored as they came before keys
        belonged to a principal.
        """
        return None if self.key is None else f"of {self.principal.owned(self.key)}"


@dataclass(frozen=True, slots=True)
class Pending:
    """A run ready to be written: at most one of a batch has a given key.

    Attributes:
        run: The run.
        doc: The run as it is stored.
        key: Its idempotency key as it is stored.
        fingerprint: The digest of its content.
        sent_key: The key as the client sent it, under which an older version may have stored the run.
    """

    run: PipelineRun
    doc: bytes
    key: str | None
    fingerprint: str
    sent_key: str | None = None

    def stored(self) -> StoredRun:
        """What the store gives back when it has written it."""
        return StoredRun(self.run.id, self.run.started, self.doc)


@dataclass(frozen=True, slots=True)
class Landed:
    """What a store has in the place of a pending run: itself, or what its key already belonged to."""

    stored: StoredRun
    fingerprint: str


class Result(StrEnum):
    """What became of an insert."""

    CREATED = "created"
    REPLAYED = "replayed"  # the key and the content are known: nothing was written
    CONFLICT = "conflict"  # the key is known, with another content: nothing was written


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an insert; in a conflict `stored` is the run that the key belongs to."""

    result: Result
    stored: StoredRun


class PipelineInfoRepository(ABC):
    """A store of runs.

    Runs come newest first: by `start_utc`, then by `id`, both descending. An insert that returned is
    durable: it survives a kill of the process and a loss of power. Every method may raise
    `StoreUnavailableError`.
    """

    name: str

    @abstractmethod
    def get_pipeline_info(
        self, wanted: RunFilter, *, limit: int, offset: int = 0, after: Cursor | None = None
    ) -> list[StoredRun]:
        """At most `limit` runs that match, newest first, leaving out `offset` of them, from a cursor on."""

    @abstractmethod
    def list_runs(self, wanted: RunFilter, *, limit: int, after: Cursor | None = None) -> list[RunRow]:
        """As `get_pipeline_info`, without the documents: what a list costs does not depend on them."""

    @abstractmethod
    def count_pipeline_info(self, wanted: RunFilter, *, bound: int | None = None) -> int:
        """How many runs match; with `bound`, the counting stops there."""

    @abstractmethod
    def get_pipelines_summary(self) -> list[PipelineSummary]:
        """One summary for each pipeline signature, ordered by it, absent parts first."""

    @abstractmethod
    def get_run(self, run_id: str) -> StoredRun | None:
        """One run by its id."""

    @abstractmethod
    def _owners_of(self, keys: Sequence[str]) -> dict[str, Landed]:
        """The runs that stored keys belong to, by key."""

    @abstractmethod
    def _insert(self, pending: Sequence[Pending]) -> list[Landed]:
        """Write what is not there yet, by key or by id; say for each what is there now."""

    @abstractmethod
    def ping(self) -> None:
        """Raise `StoreUnavailableError` unless the store answers."""

    def insert_pipeline_info(
        self, record: PipelineInfo, *, idempotency_key: str | None = None, principal: Principal = ANYBODY
    ) -> Outcome:
        """Store a run; the key is one of the principal's own."""
        return self.insert_many([NewRun(record, idempotency_key, principal)])[0]

    def insert_many(self, new: Sequence[NewRun]) -> list[Outcome]:
        """Store runs, by one transaction; an outcome for each, in order."""
        candidates = [_pending(item) for item in new]
        unique: dict[str, Pending] = {}
        for candidate in candidates:
            unique.setdefault(_identity(candidate), candidate)
        landed = self._known_of_old(unique)
        rest = {name: item for name, item in unique.items() if name not in landed}
        landed |= zip(rest, self._insert(list(rest.values())), strict=True)
        return [_outcome(item, unique[_identity(item)], landed[_identity(item)]) for item in candidates]

    def _known_of_old(self, unique: Mapping[str, Pending]) -> dict[str, Landed]:
        """What was stored under a key before keys belonged to a principal, where it is the same run.

        So a client that repeats its insert across the upgrade stores it once. Nobody knows whose such a key
        was, so with another run it blocks nobody.
        """
        keys = {item.sent_key: name for name, item in unique.items() if item.sent_key is not None}
        found = self._owners_of(list(keys)) if keys else {}
        return {
            keys[key]: owner
            for key, owner in found.items()
            if owner.fingerprint == unique[keys[key]].fingerprint
        }

    def iter_pipeline_info(self, wanted: RunFilter, *, batch: int = 1000) -> Iterator[list[StoredRun]]:
        """Every run that matches, in batches, newest first, in constant memory.

        Runs are never changed, so each that was stored before the start comes exactly once, whatever is
        inserted meanwhile; between two batches nothing is held in the store.
        """
        after: Cursor | None = None
        size = min(batch, FEW)
        while found := self.get_pipeline_info(wanted, limit=size, after=after):
            yield found
            if len(found) < size:
                return
            after = found[-1].cursor()
            # Runs with much in `extra` come few at once.
            size = batch if sum(len(run.doc) for run in found) < FEW * 16 * 1024 else min(batch, FEW)

    def corrupt_records(self) -> int:
        """How many stored records could not be read and were skipped."""
        return 0

    def pool(self) -> dict[str, int]:
        """Connections by state (`in_use`, `idle`, `waiting`), where there is a pool."""
        return {}

    def close(self) -> None:
        """Let go of files and connections."""
        return


def _pending(item: NewRun) -> Pending:
    run = PipelineRun.model_construct(id=item.id, **dict(item.record))
    return Pending(run, run.document(), item.stored_key, item.record.fingerprint(), item.key)


def _identity(item: Pending) -> str:
    return f"id {item.run.id}" if item.key is None else f"key {item.key}"


def _outcome(item: Pending, tried: Pending, landed: Landed) -> Outcome:
    if item is tried and landed.stored.id == item.run.id:
        return Outcome(Result.CREATED, landed.stored)
    same = landed.fingerprint == item.fingerprint
    return Outcome(Result.REPLAYED if same else Result.CONFLICT, landed.stored)
