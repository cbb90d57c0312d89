"""Lake upkeep: lists what nobody needs any more, and removes it when asked to.

    make maintain-lake            # lists what would go, with sizes
    make maintain-lake APPLY=1    # removes it
    python -m tallyhouse.lake.upkeep [--apply]

What goes is decided by the run that an object belongs to, and `etl.run` says what became of it. Everything of
a pipeline's last published run and of all later ones stays, and so does what belongs to runs that the
warehouse does not know, such as those since the backup that it was restored from. Nothing younger than
`LAKE_GRACE_HOURS` goes: a task that was cleared may be writing it.

Raw of published runs goes only where `LAKE_RAW_DAYS` says so, and only below a checkpoint of what the
warehouse made of it (`checkpoint.py`), which is written and verified first.

A death in the middle of it leaves nothing half-removed that a reader would take for whole: of a batch its
manifest goes first, and the rest is then a try that never committed.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from botocore.exceptions import BotoCoreError, ClientError

from tallyhouse.contracts import PipelineContract
from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.lake.bucket import Bucket, Stored, Upload
from tallyhouse.lake.checkpoint import Checkpoint, can_be_written, read, write
from tallyhouse.lake.manifest import MANIFEST
from tallyhouse.lake.store import Lake
from tallyhouse.servers import warehouse
from tallyhouse.settings import LakeUpkeep, SettingsError, load_settings

log = logging.getLogger(__name__)

WARN_AT = 0.8
"""Share of the budget from which on there is a warning."""
GROWTH_DAYS = 7
_UNITS = ("B", "kB", "MB", "GB", "TB")
_FOLDER = re.compile(
    r"(?P<layer>raw|accepted|increment|removed|checkpoint)/(?P<of>[^=]+)/run=(?P<run>[^/]+)/(?:attempt=(?P<attempt>\d+)/)?"
)
_BEFORE = datetime.min.replace(tzinfo=UTC)
_ASIDE = re.compile(r"(repair|verify)/[^/]+/[^/]+/")
"""Models that were copied out of the warehouse for a target, and go when it has them."""


@dataclass(frozen=True, order=True)
class Place:
    """A folder of a run. Of one run's tries the older ones sort first, so the one that counts goes last.

    Attributes:
        layer: Such as `raw`.
        of_what: A table, as `orders/order_items`, a model, or, of a checkpoint, a pipeline.
        run_id: The run.
        attempt: Which try of the extraction; 0 where there are no tries.
    """

    layer: str
    of_what: str
    run_id: str
    attempt: int = 0

    @classmethod
    def of(cls, key: str) -> Place | None:
        """Where an object is; None where it belongs to no run."""
        found = _FOLDER.match(key)
        if found is None:
            return None
        return cls(found["layer"], found["of"], found["run"], int(found["attempt"] or 0))

    def __str__(self) -> str:
        return f"{self.layer}/{self.of_what}/run={self.run_id}" + (
            f"/attempt={self.attempt}" if self.attempt else ""
        )


@dataclass(frozen=True)
class Run:
    """What the warehouse knows of a run.

    Attributes:
        run_id: Its id.
        pipeline: What it carries.
        published: Whether the warehouse shows it.
        ended: When it was published; of one that was not, when it was opened. UTC.
        live: Whether it is open, may be taken up again, or is what the next run starts from.
        owed: Whether a target does not show it yet.
    """

    run_id: str
    pipeline: str
    published: bool
    ended: datetime
    live: bool
    owed: bool


@dataclass(frozen=True)
class Leftover:
    """Something that nobody needs: a folder, or an upload that never ended.

    Attributes:
        layer: Such as `raw`; `upload` for an upload.
        place: The folder, or the key.
        why: Why it may go.
        keys: Its objects.
        bytes: Their size.
        upload: The upload, where it is one.
        without_checkpoint: The pipeline of which a checkpoint has to be written first, if any.
    """

    layer: str
    place: str
    why: str
    keys: tuple[str, ...] = field(default=(), repr=False)
    bytes: int = 0
    upload: Upload | None = None
    without_checkpoint: str | None = None

    def remove(self, bucket: Bucket) -> None:
        """Removes it: the manifests first, so that what is left at a death is not taken for whole."""
        if self.upload is not None:
            bucket.give_up(self.upload)
        manifests = [key for key in self.keys if key.endswith(f"/{MANIFEST}")]
        bucket.remove(manifests)
        bucket.remove([key for key in self.keys if key not in set(manifests)])


@dataclass
class Survey:
    """What is in the lake.

    Attributes:
        layers: Objects and bytes by the first folder of their keys.
        recent: Bytes that were written in the last week.
        unknown: Bytes that belong to runs of which the warehouse knows nothing.
        leftovers: What may go.
    """

    layers: dict[str, tuple[int, int]] = field(default_factory=dict)
    recent: int = 0
    unknown: int = 0
    leftovers: list[Leftover] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Of all objects; uploads that never ended come on top."""
        return sum(size for _, size in self.layers.values())

    @property
    def going(self) -> int:
        """Bytes of what may go."""
        return sum(one.bytes for one in self.leftovers)


@dataclass
class _Folder:
    """The objects of a run in one place, or of one of its tries."""

    sizes: dict[str, int] = field(default_factory=dict)
    newest: datetime = _BEFORE

    def add(self, one: Stored) -> None:
        self.sizes[one.key] = one.bytes
        self.newest = max(self.newest, one.at)

    @property
    def committed(self) -> bool:
        return any(key.endswith(f"/{MANIFEST}") for key in self.sizes)

    def leftover(self, layer: str, place: str, why: str, without_checkpoint: str | None = None) -> Leftover:
        return Leftover(
            layer,
            place,
            why,
            tuple(self.sizes),
            sum(self.sizes.values()),
            without_checkpoint=without_checkpoint,
        )


def upkeep(
    connection: psycopg.Connection[Any],
    lake: Lake,
    bucket: Bucket,
    keep: LakeUpkeep,
    *,
    now: datetime,
    apply: bool = False,
) -> Survey:
    """Finds what nobody needs, and removes it when asked to.

    Args:
        connection: To the warehouse, which says what became of each run.
        lake: The lake, for checkpoints.
        bucket: The same one, for everything else.
        keep: How long each layer stays.
        now: The time, UTC.
        apply: Whether it is removed; else it is listed alone.

    Returns:
        What was there, and of it what may go, or went.

    Raises:
        TallyhouseError: Another upkeep, or a rebuild, is at work; a checkpoint is not what the warehouse
            holds; or the store keeps an object.
    """
    with _locked(connection, "", "another upkeep of the lake, or a rebuild of the warehouse, is at work"):
        runs = _runs(connection)
        pipelines = sorted({run.pipeline for run in runs.values()}) if keep.lake_raw_days else []
        found = ((name, can_be_written(connection, name)) for name in pipelines)
        contracts = {name: contract for name, contract in found if contract}
        survey = _survey(runs, contracts, lake, bucket, keep, now)
        if apply:
            needed = {one.without_checkpoint for one in survey.leftovers}
            for name, contract in contracts.items():
                if name in needed:
                    write(connection, lake, contract)
            for one in survey.leftovers:
                one.remove(bucket)
                log.info("removed %s (%s, %s)", one.place, size(one.bytes), one.why)
    return survey


@contextmanager
def untouched(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Keeps upkeep away from the lake while the block runs, as a rebuild has to.

    Raises:
        TallyhouseError: An upkeep is at work.
    """
    with _locked(connection, "_shared", "an upkeep of the lake is at work"):
        yield


@contextmanager
def _locked(connection: psycopg.Connection[Any], kind: str, otherwise: str) -> Iterator[None]:
    """Holds the upkeep's lock of the warehouse while the block runs."""
    key = "hashtextextended('tallyhouse lake upkeep', 0)"
    with connection.transaction():
        row = connection.execute(f"SELECT pg_try_advisory_lock{kind}({key})").fetchone()
    if not row or not row[0]:
        raise TallyhouseError(otherwise, remedy="Wait until it has ended", transient=True)
    try:
        yield
    finally:
        with connection.transaction():
            connection.execute(f"SELECT pg_advisory_unlock{kind}({key})")


def _runs(connection: psycopg.Connection[Any]) -> dict[str, Run]:
    """What became of each run.

    A run may be taken up again until a later one is opened, and events that were committed by a run that died
    are finished by a later one; so all since the last published run are live. That one is too: the next run
    compares with its batches. Where a table was left out of it, so is the last one that took the table.
    """
    with connection.transaction():
        rows = connection.execute(
            "WITH last AS (SELECT pipeline, max(started_at) AS at FROM etl.run WHERE status = 'published' "
            "GROUP BY pipeline), "
            "latest AS (SELECT DISTINCT ON (r.pipeline, t) r.run_id FROM etl.run AS r, unnest(r.tables) AS t "
            "WHERE r.status = 'published' ORDER BY r.pipeline, t, r.published_at DESC) "
            "SELECT r.run_id, r.pipeline, r.status = 'published', coalesce(r.published_at, r.started_at), "
            "r.status = 'running' OR last.at IS NULL OR r.started_at >= last.at "
            "OR r.run_id IN (SELECT run_id FROM latest) OR r.run_id IN (SELECT run_id FROM etl.watermark), "
            "EXISTS (SELECT 1 FROM etl.run_target AS g WHERE g.run_id = r.run_id AND g.state <> 'shown') "
            "FROM etl.run AS r LEFT JOIN last USING (pipeline)"
        ).fetchall()
    return {row[0]: Run(*row) for row in rows}


def _survey(
    runs: dict[str, Run],
    contracts: dict[str, PipelineContract],
    lake: Lake,
    bucket: Bucket,
    keep: LakeUpkeep,
    now: datetime,
) -> Survey:
    survey = Survey()
    folders: dict[Place, _Folder] = defaultdict(_Folder)
    aside: dict[str, _Folder] = defaultdict(_Folder)
    for one in bucket.objects():
        layer = one.key.partition("/")[0]
        count, taken = survey.layers.get(layer, (0, 0))
        survey.layers[layer] = count + 1, taken + one.bytes
        if one.at > now - timedelta(days=GROWTH_DAYS):
            survey.recent += one.bytes
        if (place := Place.of(one.key)) and place.run_id in runs:
            folders[place].add(one)
        elif place:
            survey.unknown += one.bytes
        elif found := _ASIDE.match(one.key):
            aside[found[0].rstrip("/")].add(one)
    settled = now - timedelta(hours=keep.lake_grace_hours)
    counting = _counting_tries(folders)
    held = _checkpoints(lake, folders)
    for place, folder in sorted(folders.items()):
        run = runs[place.run_id]
        if run.live or folder.newest > settled:
            continue
        needs = None
        why = _why(place.layer, run, keep, now) or _voided(place, folder, counting)
        if place.layer == "checkpoint":
            why = _outdated(run, folder, held.get(run.pipeline))
        elif place.layer == "raw" and why is None and run.pipeline in contracts and _is_past(run, keep, now):
            checkpoint = held.get(run.pipeline)
            needs = None if checkpoint and run.ended <= checkpoint.published_at else run.pipeline
            why = f"published {(now - run.ended).days} days ago, and " + (
                "a checkpoint is written first" if needs or not checkpoint else f"{checkpoint.place} holds it"
            )
        if why is not None:
            survey.leftovers.append(folder.leftover(place.layer, str(place), why, needs))
    for where, folder in sorted(aside.items()):
        if folder.newest <= settled:
            survey.leftovers.append(folder.leftover("aside", where, "a copy for a target that broke off"))
    survey.leftovers += _uploads(runs, bucket.uploads(), settled)
    return survey


def _checkpoints(lake: Lake, folders: dict[Place, _Folder]) -> dict[str, Checkpoint]:
    """By pipeline the newest checkpoint whose objects are all there, as they were written."""
    found: dict[str, Checkpoint] = {}
    for place, folder in folders.items():
        if place.layer != "checkpoint" or not folder.committed:
            continue
        one = read(lake, place.of_what, place.run_id)
        if lacking := [part.key for part in one.parts if folder.sizes.get(part.key) != part.bytes]:
            log.warning("%s is damaged and holds nothing: %s is not as it was written", place, lacking[0])
        elif place.of_what not in found or one.published_at > found[place.of_what].published_at:
            found[place.of_what] = one
    return found


def _is_past(run: Run, keep: LakeUpkeep, now: datetime) -> bool:
    """Whether raw of a published run has stayed as long as it has to."""
    return run.published and bool(keep.lake_raw_days) and (now - run.ended).days >= keep.lake_raw_days


def _outdated(run: Run, folder: _Folder, newest: Checkpoint | None) -> str | None:
    """Why a checkpoint may go; None where it is what stands for raw."""
    if not folder.committed:
        return "a checkpoint that never committed"
    if newest is not None and newest.run_id != run.run_id and run.ended < newest.published_at:
        return f"{newest.place} holds it"
    return None


def _why(layer: str, run: Run, keep: LakeUpkeep, now: datetime) -> str | None:
    """Why what a run has in a layer may go as a whole, whatever else there is; None where it may not."""
    days = (now - run.ended).days
    if not run.published:
        return "its run was superseded" if days >= keep.lake_failed_days else None
    if layer == "accepted" and days >= keep.lake_accepted_days:
        return f"published {days} days ago"
    if layer in ("increment", "removed") and days >= keep.lake_increment_days and not run.owed:
        return f"published {days} days ago, and every target shows it"
    return None


def _voided(place: Place, folder: _Folder, counting: dict[tuple[str, str], int]) -> str | None:
    """Why a try of a published run's extraction counts for nothing; None where it is the one that counts."""
    counts = counting.get((place.of_what, place.run_id))
    if place.layer != "raw" or not place.attempt or counts is None:
        return None
    if not folder.committed:
        return "a try that never committed"
    return "a later try committed" if place.attempt < counts else None


def _counting_tries(folders: dict[Place, _Folder]) -> dict[tuple[str, str], int]:
    """By table and run the try that counts: the newest one that committed."""
    found: dict[tuple[str, str], int] = {}
    for place, folder in folders.items():
        if place.layer == "raw" and folder.committed:
            of = place.of_what, place.run_id
            found[of] = max(found.get(of, 0), place.attempt)
    return found


def _uploads(runs: dict[str, Run], uploads: Iterable[Upload], settled: datetime) -> Iterator[Leftover]:
    for one in uploads:
        place = Place.of(one.key)
        live = place is not None and place.run_id in runs and runs[place.run_id].live
        if one.at <= settled and not live:
            yield Leftover("upload", one.key, "an upload that never ended", (), one.bytes, one)


def report(survey: Survey, *, applied: bool) -> Iterator[str]:
    """What was found, line by line, for people."""
    for one in survey.leftovers:
        objects = len(one.keys) or 1
        yield f"{size(one.bytes):>9}  {objects:>6} objects  {one.place}: {one.why}"
    held = ", ".join(f"{name} {size(taken)} in {count}" for name, (count, taken) in survey.layers.items())
    yield f"the lake {'held' if applied else 'holds'} {size(survey.bytes)}: {held or 'nothing'}"
    if survey.unknown:
        yield f"{size(survey.unknown)} belong to runs that the warehouse does not know, and stay"
    verb = "removed" if applied else "would go"
    yield f"{len(survey.leftovers)} places, {size(survey.going)} {verb}"


def budget(survey: Survey, keep: LakeUpkeep, *, applied: bool) -> str | None:
    """A warning when the lake comes near its budget.

    Args:
        survey: What was found.
        keep: The budget.
        applied: Whether what may go is gone.

    Returns:
        The warning; None while there is room, or where there is no budget.

    Raises:
        TallyhouseError: The lake is larger than its budget.
    """
    most = keep.lake_budget_gb * 10**9
    # An upload that never ended is no object yet.
    gone = sum(one.bytes for one in survey.leftovers if one.upload is None) if applied else 0
    left = survey.bytes - gone
    if not most or left < WARN_AT * most:
        return None
    largest = max(survey.layers, key=lambda name: survey.layers[name][1])
    said = f"the lake has {size(left)} of {size(int(most))} (LAKE_BUDGET_GB), most of it below {largest}/"
    remedy = "Shorten what is kept (docs/guides/lake.md), or give it more room"
    if not applied and survey.going:
        remedy = f"`make maintain-lake APPLY=1` frees {size(survey.going)}. {remedy}"
    if left > most:
        raise TallyhouseError(said, where="lake", remedy=remedy)
    daily = survey.recent / GROWTH_DAYS
    until = f"; at last week's pace it is full in {(most - left) / daily:.0f} days" if daily else ""
    return f"{said}{until}. {remedy}"


def size(number: int) -> str:
    """Bytes for people, such as `1.5 GB`."""
    power = min(max(0, len(str(number)) - 1) // 3, len(_UNITS) - 1)
    return f"{number / 1000**power:.{1 if power else 0}f} {_UNITS[power]}"


def main() -> int:
    """Lists what nobody needs any more in the lake; removes it with `--apply`.

    Returns:
        0, but for an error or a lake beyond its budget.
    """
    parser = argparse.ArgumentParser(prog="python -m tallyhouse.lake.upkeep", description=main.__doc__)
    parser.add_argument("--apply", action="store_true", help="remove it")
    arguments = parser.parse_args()
    try:
        settings = load_settings()
        access = {
            "endpoint": settings.minio_url,
            "access_key": settings.minio_root_user,
            "secret_key": settings.minio_root_password,
            "region": settings.lake_region,
        }
        lake = Lake.s3(settings.lake_bucket, **access)
        lake.check()
        bucket = Bucket.s3(settings.lake_bucket, **access)
        with warehouse(settings).connect() as connection:
            survey = upkeep(connection, lake, bucket, settings, now=datetime.now(UTC), apply=arguments.apply)
        for line in report(survey, applied=arguments.apply):
            sys.stdout.write(f"{line}\n")
        if not arguments.apply and survey.leftovers:
            sys.stdout.write("nothing was removed: `make maintain-lake APPLY=1` does\n")
        if warning := budget(survey, settings, applied=arguments.apply):
            sys.stderr.write(f"warning: {warning}\n")
    except (TallyhouseError, SettingsError) as error:
        sys.stderr.write(f"maintain-lake: {error}\n")
        return 1
    except (psycopg.OperationalError, BotoCoreError, ClientError) as error:
        sys.stderr.write(f"maintain-lake: {first_line(error)}. Is the stack up? `make status`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
