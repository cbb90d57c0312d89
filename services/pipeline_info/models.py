"""The service's words: a run as it is posted and as it is stored, a summary, a filter.

Times: `*_utc` are instants in UTC, `*_local` the same instants on the clock of the machine that ran the
pipeline, with that clock's offset. Resolution is a microsecond.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any, Self

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    WithJsonSchema,
    model_validator,
)

_TIME = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}:\d{2})?$"
_TIME_RE = re.compile(_TIME, re.ASCII)
# Wide enough for any run there is, narrow enough that no backend's calendar or partition ends.
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)
_MAX_OFFSET = timedelta(hours=14)
# Exact in every language that reads JSON, and a sum of thousands of them is still a BIGINT.
_MAX_COUNT = 10**15
_MAX_DEPTH = 32
# What JSON readers keep exactly: an integer outside is a rounded one to the next program that reads it.
_LEAST_INTEGER, _GREATEST_INTEGER = -(2**63), 2**64 - 1
_FAILURE_SHORT = 200


def _is_time(value: object) -> object:
    """Refuse what pydantic would take as a timestamp in seconds, or as a bare date."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _TIME_RE.fullmatch(value):
        raise ValueError("give a time as YYYY-MM-DDTHH:MM:SS[.ffffff][Z or +HH:MM]")
    return value


def _of_our_age(value: datetime) -> datetime:
    """Keep away from the ends of the calendar, where arithmetic overflows."""
    if not 1900 <= value.year <= 2200:
        raise ValueError(f"year {value.year}: give a time from 1900 to 2200")
    return value


def _no_nul(value: str) -> str:
    if "\x00" in value:
        raise ValueError("a NUL character cannot be stored")
    return value


def storable[T](value: T, most: int = _MAX_DEPTH, depth: int = 0) -> T:
    """Refuse in an open value what not every backend could give back unchanged.

    Args:
        value: Any JSON value.
        most: How deep it may be nested.
        depth: How deep it stands.

    Raises:
        ValueError: It is nested too deep, has a NUL character, or an integer of more than 64 bits.
    """
    if depth > most:
        raise ValueError(f"nested deeper than {most} levels")
    if isinstance(value, str):
        _no_nul(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            _no_nul(key)
            storable(inner, most, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            storable(inner, most, depth + 1)
    elif isinstance(value, int) and not _LEAST_INTEGER <= value <= _GREATEST_INTEGER:
        raise ValueError("an integer of more than 64 bits is not kept exactly: send it as text")
    return value


def _open(value: dict[str, Any]) -> dict[str, Any]:
    return storable(value)


Time = Annotated[
    datetime,
    BeforeValidator(_is_time),
    AfterValidator(_of_our_age),
    WithJsonSchema({"type": "string", "pattern": _TIME, "examples": ["2026-01-02T02:00:00Z"]}),
]
_TEXT_PATTERN = r"^[^\x00]*$"
Name = Annotated[str, Field(min_length=1, max_length=255, pattern=_TEXT_PATTERN)]
Word = Annotated[str, Field(min_length=1, max_length=64, pattern=_TEXT_PATTERN)]
FilePath = Annotated[str, Field(min_length=1, max_length=2048, pattern=_TEXT_PATTERN)]
Count = Annotated[StrictInt, Field(ge=0, le=_MAX_COUNT)]
Seconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False, strict=True)]
Open = Annotated[dict[str, Any], AfterValidator(_open)]


def state_of(extra: dict[str, Any]) -> str | None:
    """The state that a run says of itself in its `extra`."""
    state = extra.get("state")
    return state if isinstance(state, str) and 0 < len(state) <= 64 else None


def human(seconds: float) -> str:
    """A duration for people: `1h 02m 03s`, `2m 05s`, `4.20s`."""
    if seconds < 60:
        return f"{seconds:.2f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m {rest:02d}s" if hours else f"{minutes}m {rest:02d}s"


def _agree(
    which: str, local: datetime | None, utc: datetime | None
) -> tuple[datetime | None, datetime | None]:
    """Bring a local and a UTC time to one instant: derive the absent one, refuse two that differ."""
    if utc is not None:
        utc = utc.replace(tzinfo=UTC) if utc.tzinfo is None else utc.astimezone(UTC)
    if local is not None and local.tzinfo is None:
        if utc is None:
            raise ValueError(f"{which}_local has no offset: add one, or give {which}_utc beside it")
        offset = local - utc.replace(tzinfo=None)
        if abs(offset) > _MAX_OFFSET or offset % timedelta(minutes=1):
            raise ValueError(f"{which}_local and {which}_utc do not agree: no time zone is {offset} from UTC")
        local = local.replace(tzinfo=timezone(offset))
    if local is not None:
        if utc is None:
            utc = local.astimezone(UTC)
        if local != utc:
            raise ValueError(f"{which}_local and {which}_utc do not agree: {local} is not {utc}")
        # A plain offset, so that every backend gives back the same text.
        local = local.replace(tzinfo=timezone(local.utcoffset() or timedelta()))
    if utc is not None and not EARLIEST <= utc < LATEST:
        raise ValueError(f"{which}_utc is {utc}: give a time from {EARLIEST.year} to {LATEST.year - 1}")
    return local, utc


class PipelineInfo(BaseModel):
    """One run of a pipeline, as it is posted.

    A run needs its start: `start_utc`, or `start_local` with an offset. What can be derived (the other
    clock's time, `elapsed_*`, `date_code`) is derived when it is absent. A run without an end is one whose
    end is not known. Well-known keys of `extra` are described in the README; any other is kept as it is.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "pipeline_name": "techmarket_nightly",
                    "script_name": "techmarket_nightly.py",
                    "pipeline_type": "etl",
                    "environment": "dev",
                    "start_local": "2026-01-02T02:00:00+02:00",
                    "end_local": "2026-01-02T02:07:31+02:00",
                    "rowcount": 104_211,
                    "extra": {
                        "state": "success",
                        "ledger": {
                            "closed": True,
                            "tables": [
                                {"table": "orders.orders", "source": 910, "raw": 910, "accepted": 910}
                            ],
                        },
                    },
                }
            ]
        },
    )

    start_local: Time | None = None
    end_local: Time | None = None
    start_utc: Time | None = None
    end_utc: Time | None = None
    elapsed_seconds: Seconds | None = None
    elapsed_human: Word | None = None
    rowcount: Count | None = None
    pid: Annotated[StrictInt, Field(ge=0, le=2**31 - 1)] | None = None
    date_code: Word | None = None
    pipeline_name: Name | None = None
    script_name: Name | None = None
    pipeline_type: Word | None = None
    environment: Word | None = None
    output_file: FilePath | None = None
    log_file: FilePath | None = None
    extra: Open = Field(default_factory=dict)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Derive what is absent and refuse what contradicts itself."""
        self.start_local, self.start_utc = _agree("start", self.start_local, self.start_utc)
        self.end_local, self.end_utc = _agree("end", self.end_local, self.end_utc)
        if self.start_utc is None:
            raise ValueError("a run needs its start: give start_utc, or start_local with an offset")
        if self.end_utc is not None:
            if self.end_utc < self.start_utc:
                raise ValueError(f"the run ends ({self.end_utc}) before it starts ({self.start_utc})")
            if self.elapsed_seconds is None:
                self.elapsed_seconds = (self.end_utc - self.start_utc).total_seconds()
        if self.elapsed_human is None and self.elapsed_seconds is not None:
            self.elapsed_human = human(self.elapsed_seconds)
        if self.date_code is None:
            self.date_code = (self.start_local or self.start_utc).strftime("%Y%m%d")
        return self

    def fingerprint(self) -> str:
        """A digest of what the run says, whatever the order of its keys: tells two bodies apart."""
        body = self.model_dump(mode="json", include=set(PipelineInfo.model_fields))
        return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


class PipelineRun(PipelineInfo):
    """One run as it is stored: what was posted, completed, with the service's own id."""

    id: str

    @property
    def started(self) -> datetime:
        """The start in UTC, which every stored run has."""
        assert self.start_utc is not None  # noqa: S101 - the validator saw to it
        return self.start_utc

    @property
    def state(self) -> str | None:
        """The run's state, when who posted it said one."""
        return state_of(self.extra)

    @property
    def failure(self) -> str | None:
        """Why the run failed, in a short text for lists, when who posted it said so."""
        failure = self.extra.get("failure")
        message = failure.get("message") if isinstance(failure, dict) else None
        if not isinstance(message, str) or not (text := " ".join(message.split())):
            return None
        return text if len(text) <= _FAILURE_SHORT else f"{text[: _FAILURE_SHORT - 1]}…"

    def document(self) -> bytes:
        """The run as JSON: what is stored, and what is answered."""
        return self.__pydantic_serializer__.to_json(self)


class PipelineSummary(BaseModel):
    """All runs of one pipeline signature, in numbers.

    The averages are over the runs with a positive value, and null where there is none.
    """

    pipeline_name: str | None
    script_name: str | None
    pipeline_type: str | None
    environment: str | None
    total_runs: int
    total_rowcount: int
    average_elapsed_seconds: float | None
    average_rowcount: float | None
    first_start_utc: datetime
    last_start_utc: datetime
    last_end_utc: datetime | None
    last_elapsed_seconds: float | None
    last_rowcount: int | None
    last_run_id: str
    last_state: str | None


class RunConditions(BaseModel):
    """Which runs are wanted; every condition that is given must hold.

    Attributes:
        start_from: Runs that started at this instant or later.
        start_before: Runs that started before this instant.
        min_rowcount: Runs with at least so many rows; a run with no count does not match.
    """

    model_config = ConfigDict(extra="forbid")

    pipeline_name: Name | None = None
    script_name: Name | None = None
    pipeline_type: Word | None = None
    environment: Word | None = None
    date_code: Word | None = None
    state: Word | None = None
    start_from: Time | None = None
    start_before: Time | None = None
    min_rowcount: Annotated[int, Field(ge=0, le=_MAX_COUNT)] | None = None

    @model_validator(mode="after")
    def _in_utc(self) -> Self:
        for name in ("start_from", "start_before"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, value.replace(tzinfo=UTC) if value.tzinfo is None else value)
        return self


class RunFilter(RunConditions):
    """Which runs are wanted, within what the asker may see.

    Attributes:
        only_environments: The environments that the asker may see; None for all.
        only_pipelines: The pipelines that a search found; None for all.
    """

    only_environments: tuple[str, ...] | None = None
    only_pipelines: tuple[str, ...] | None = None

    def matches(self, run: PipelineRun) -> bool:
        """Whether `run` is wanted: the meaning that every backend's query has to have."""
        for name in ("pipeline_name", "script_name", "pipeline_type", "environment", "date_code", "state"):
            wanted = getattr(self, name)
            if wanted is not None and getattr(run, name) != wanted:
                return False
        if self.only_environments is not None and run.environment not in self.only_environments:
            return False
        if self.only_pipelines is not None and run.pipeline_name not in self.only_pipelines:
            return False
        if self.start_from is not None and run.started < self.start_from:
            return False
        if self.start_before is not None and run.started >= self.start_before:
            return False
        return self.min_rowcount is None or (run.rowcount is not None and run.rowcount >= self.min_rowcount)
