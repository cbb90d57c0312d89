"""The folder of datasets: a version is there whole or not at all, and the folder never outgrows its bound.

    <root>/<owner>/<dataset>/v<version>/<files>, _dataset.json
    <root>/.partial/<owner>/<dataset>/v<version>/...          what is on its way

A version is made aside and renamed into its place; `_dataset.json` says what it holds, with checksums.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from jobs.fetch_kaggle.errors import FetchError
from jobs.fetch_kaggle.remote import RemoteDataset

ABOUT = "_dataset.json"
PARTIAL = ".partial"


@dataclass(frozen=True)
class File:
    """A file that is there."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Held:
    """A version of a dataset that is there, as `_dataset.json` has it.

    Attributes:
        fetched_at: When it came, UTC, ISO 8601.
    """

    ref: str
    version: int
    title: str
    description: str | None
    licence: str | None
    url: str
    fetched_at: str
    files: tuple[File, ...]

    @property
    def total_bytes(self) -> int:
        """Of all its files."""
        return sum(file.bytes for file in self.files)

    @property
    def prefix(self) -> str:
        """Its folder, below the root and in the lake."""
        return f"{self.ref}/v{self.version}"

    def to_json(self) -> str:
        """The content of `_dataset.json`."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=2)

    @classmethod
    def from_json(cls, text: str | bytes) -> Held:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: It is not that.
        """
        try:
            content = json.loads(text)
            files = tuple(File(**file) for file in content.pop("files"))
            return cls(**content, files=files)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not what {ABOUT} has: {error}") from error


class Store:
    """The folder.

    Args:
        root: Where it is; made if it is not there.
        most: The most bytes that it may hold.
        free: So many bytes of its disk are left free.
    """

    def __init__(self, root: Path, *, most: int, free: int) -> None:
        self.root, self._most, self._free = root, most, free

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other fetch out of the folder meanwhile.

        Raises:
            FetchError: There is another one, or the folder cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / ".lock").open("a")
        except OSError as error:
            raise FetchError(
                f"{self.root}: cannot be written ({error.strerror}); correct KAGGLE_DATA_ROOT"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise FetchError(f"{self.root}: another fetch is at work there; wait for its end") from error
            yield

    def held(self, ref: str, version: int, *, thorough: bool = False) -> Held | None:
        """A version that is there whole; None when it is not, or no longer what it was.

        Args:
            ref: The dataset.
            version: Its version.
            thorough: Read every file and compare its checksum, not only its size.
        """
        folder = self.root / ref / f"v{version}"
        try:
            found = Held.from_json((folder / ABOUT).read_bytes())
            if (found.ref, found.version) != (ref, version):
                return None
            for file in found.files:
                path = folder / file.name
                if path.stat().st_size != file.bytes or (thorough and sha256(path) != file.sha256):
                    return None
        except (OSError, ValueError):
            return None
        return found

    def partial(self, dataset: RemoteDataset) -> Path:
        """The folder in which a version is made."""
        folder = self.root / PARTIAL / dataset.ref / f"v{dataset.version}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def check_room(self, dataset: RemoteDataset) -> None:
        """Make sure that a version fits, what is there of it counted.

        Raises:
            FetchError: It does not.
        """
        size = sum(file.bytes for file in dataset.files)
        there = size_of(self.root / PARTIAL / dataset.ref / f"v{dataset.version}")
        needed = max(0, size - there)
        held = size_of(self.root)
        if held + needed > self._most:
            raise FetchError(
                f"{dataset.ref} version {dataset.version} needs {needed} bytes more, {self.root} holds {held}"
                f" of {self._most}: raise FETCH_KAGGLE_MAX_BYTES, or keep fewer datasets or versions"
            )
        place = next(path for path in (self.root, *self.root.parents) if path.exists())
        free = shutil.disk_usage(place).free
        if free - needed < self._free:
            raise FetchError(
                f"{dataset.ref} version {dataset.version} needs {needed} bytes more, the disk of {self.root}"
                f" has {free} free and {self._free} are to stay so: make room"
            )

    def commit(self, dataset: RemoteDataset, partial: Path, files: list[File]) -> Held:
        """Put a version that was made aside into its place, whole."""
        held = Held(
            ref=dataset.ref,
            version=dataset.version,
            title=dataset.title,
            description=dataset.description,
            licence=dataset.licence,
            url=dataset.url,
            fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
            files=tuple(files),
        )
        kept = {partial / file.name for file in files}
        for path in [path for path in partial.rglob("*") if path.is_file() and path not in kept]:
            path.unlink()
        for path in kept:
            _sync(path)
        (partial / ABOUT).write_text(held.to_json(), encoding="utf-8")
        _sync(partial / ABOUT)
        for folder in {partial, *(path.parent for path in kept)}:
            _sync(folder)
        final = self.root / held.prefix
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():  # it lacked something: nobody reads it, or it would not be made again
            shutil.rmtree(final)
        partial.rename(final)
        _sync(final.parent)
        return held

    def prune(self, ref: str, keep: int, current: int) -> list[int]:
        """Remove what is left of other tries, and old versions beyond the newest `keep`.

        Returns:
            The versions that were removed.
        """
        shutil.rmtree(self.root / PARTIAL / ref, ignore_errors=True)
        folder = self.root / ref
        versions = sorted(
            (int(path.name[1:]) for path in folder.glob("v*") if path.name[1:].isdecimal()), reverse=True
        )
        gone = [version for version in versions[keep:] if version != current]
        for version in gone:
            # The file that says what is there goes first: a version without it is none.
            (folder / f"v{version}" / ABOUT).unlink(missing_ok=True)
            shutil.rmtree(folder / f"v{version}", ignore_errors=True)
        return gone


def sha256(path: Path) -> str:
    """The checksum of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder; 0 when there is none."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
