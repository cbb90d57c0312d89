"""Brings datasets: from Kaggle to the folder, from there to the lake and the catalogue.

Each step looks first whether it is done, so a run that died anywhere is gone on with by the next one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from jobs.fetch_kaggle.errors import FetchError
from jobs.fetch_kaggle.remote import Remote, RemoteDataset, RemoteFile
from jobs.fetch_kaggle.settings import Settings, Wanted
from jobs.fetch_kaggle.store import File, Held, Store, sha256
from jobs.fetch_kaggle.targets import put_into_lake, register

log = logging.getLogger(__name__)

_LONGEST_WAIT = 120.0


@dataclass(frozen=True)
class Outcome:
    """What became of one dataset.

    Attributes:
        ref: The dataset.
        held: What is there now; None when it failed.
        error: Why it failed.
        fetched: Whether files came now.
    """

    ref: str
    held: Held | None = None
    error: FetchError | None = None
    fetched: bool = False

    def __str__(self) -> str:
        """One line for people."""
        if self.held is None:
            return f"{self.ref}: FAILED: {self.error}"
        what = "fetched" if self.fetched else "unchanged"
        return (
            f"{self.ref}: version {self.held.version} {what}, {len(self.held.files)} files,"
            f" {self.held.total_bytes} bytes"
        )


def fetch_all(settings: Settings, wanted: list[Wanted], *, thorough: bool = False) -> list[Outcome]:
    """Bring every dataset; one that fails holds up no other.

    Args:
        settings: From where, where to.
        wanted: The datasets.
        thorough: Compare the checksums of what is there already, too.

    Raises:
        FetchError: There is no token, or another fetch is at work in the folder.
    """
    remote = Remote(settings)
    store = _store(settings)
    with store.alone():
        return [_outcome(settings, remote, store, one, thorough=thorough) for one in wanted]


def plan(settings: Settings, wanted: list[Wanted]) -> list[str]:
    """What `fetch_all` would do, one line for each dataset; nothing is written.

    Raises:
        FetchError: A dataset cannot be fetched, or would not fit.
    """
    remote, store = Remote(settings), _store(settings)
    lines = []
    for one in wanted:
        dataset = _patiently(settings, partial(remote.describe, one))
        held = store.held(dataset.ref, dataset.version)
        if held is not None and _has(held, dataset):
            lines.append(f"{dataset.ref}: version {dataset.version} is there")
            continue
        store.check_room(dataset)
        size = sum(file.bytes for file in dataset.files)
        lines.append(
            f"{dataset.ref}: version {dataset.version} would be fetched,"
            f" {len(dataset.files)} files, {size} bytes"
        )
    return lines


def _store(settings: Settings) -> Store:
    return Store(
        settings.kaggle_data_root,
        most=settings.fetch_kaggle_max_bytes,
        free=settings.fetch_kaggle_free_bytes,
    )


def _outcome(settings: Settings, remote: Remote, store: Store, wanted: Wanted, *, thorough: bool) -> Outcome:
    try:
        dataset = _patiently(settings, lambda: remote.describe(wanted))
        held = store.held(dataset.ref, dataset.version, thorough=thorough)
        fetched = held is None or not _has(held, dataset)
        if held is None or fetched:
            store.check_room(dataset)
            held = _bring(settings, remote, store, wanted, dataset)
        if gone := store.prune(wanted.ref, settings.fetch_kaggle_keep, held.version):
            log.info("%s: removed version %s", wanted.ref, ", ".join(map(str, gone)))
        there = held
        if settings.minio_endpoint:
            _patiently(settings, lambda: put_into_lake(settings, there, store.root))
        if settings.kaggle_data_api_url:
            _patiently(settings, lambda: register(settings, there))
    except FetchError as error:
        outcome = Outcome(wanted.ref, error=error)
        log.error("%s", outcome)
        return outcome
    outcome = Outcome(wanted.ref, held=held, fetched=fetched)
    log.info("%s", outcome)
    return outcome


def _bring(settings: Settings, remote: Remote, store: Store, wanted: Wanted, dataset: RemoteDataset) -> Held:
    folder = store.partial(dataset)
    files: list[File] = []
    for number, file in enumerate(dataset.files, start=1):
        said = wanted.sha256.get(file.name)
        work = partial(_one_file, remote, dataset, file, folder, said)
        files.append(_patiently(settings, work))
        log.info("%s: %s/%s %s", dataset.ref, number, len(dataset.files), file.name)
    return store.commit(dataset, folder, files)


def _one_file(
    remote: Remote, dataset: RemoteDataset, file: RemoteFile, folder: Path, expected: str | None
) -> File:
    """Bring one file of a version, unless an earlier run did.

    Raises:
        FetchError: It did not come, or its checksum is not the expected one: then nothing of it is left.
    """
    path = folder / file.name
    # Beside it, its checksum says that it came whole: by its size alone it may be half of another one.
    mark = path.with_name(f"_done.{path.name}")
    if not (mark.exists() and path.is_file() and path.stat().st_size == file.bytes):
        mark.unlink(missing_ok=True)
        remote.download(dataset.ref, dataset.version, file, folder)
    found = sha256(path)
    said = expected or (mark.read_text() if mark.exists() else found)
    if found != said:
        path.unlink()
        mark.unlink(missing_ok=True)
        raise FetchError(
            f"{dataset.ref} version {dataset.version}, {file.name}: its SHA-256 is {found}, expected {said};"
            " it is not taken",
            transient=True,
        )
    mark.write_text(found)
    return File(file.name, file.bytes, found)


def _has(held: Held, dataset: RemoteDataset) -> bool:
    """Whether what is there has every wanted file, as the server lists it."""
    there = {file.name: file.bytes for file in held.files}
    return all(there.get(file.name) == file.bytes for file in dataset.files)


def _patiently[T](settings: Settings, work: Callable[[], T]) -> T:
    """Do `work`, again when that may help, after waits that double; what a server asks for counts."""

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait if isinstance(error, FetchError) else None
        seconds = settings.fetch_kaggle_wait * 2 ** (state.attempt_number - 1) if asked is None else asked
        return min(seconds, _LONGEST_WAIT)

    def may_help(error: BaseException) -> bool:
        return isinstance(error, FetchError) and error.transient

    again = Retrying(
        stop=stop_after_attempt(settings.fetch_kaggle_attempts),
        wait=wait,
        retry=retry_if_exception(may_help),
        before_sleep=lambda state: log.warning("%s", state.outcome.exception() if state.outcome else ""),
        reraise=True,
    )
    result: T = again(work)
    return result
