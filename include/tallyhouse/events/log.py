"""The curated table's commit log: numbered JSON objects, each the atomic commit of one run.

    curated/event_type=<type>/day=<day>/part-00000.parquet   what readers read
    curated/_log/00000000000000000001.json                   what makes it so
    curated/_runs/<run>/objects.parquet                      the raw objects that a run took
    curated/_staging/<run>/                                  a run's files until they are in their places
    quarantine/<run>/part-00000.parquet                      lines that are no events, with the reason

A run writes aside, then creates the next number of the log, which the store refuses when it exists: of two
runs that began from the same state only one commits. After that its files are copied to their places, which
may be repeated at will; whoever comes next finishes what a death left. A partition's files are numbered, and
only its last one, while it is small, is ever written again: by one with the same rows and more. So a reader
that lists the folder, without a word of this log, finds every event once, at any moment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import boto3
import pyarrow.parquet as pq
from botocore.config import Config
from botocore.exceptions import ClientError

from tallyhouse.errors import TallyhouseError
from tallyhouse.lake import Lake

CURATED = "curated"
LOG = f"{CURATED}/_log"
QUARANTINE = "quarantine"
SMALL_BYTES = 64 * 1024 * 1024
"""A partition's last file is written again, with more in it, as long as it is smaller than this."""


@dataclass(frozen=True)
class File:
    """One Parquet file in its place.

    Attributes:
        key: Where it is.
        rows: How many rows it holds.
        bytes: Its size.
        staged: Where it was written aside.
    """

    key: str
    rows: int
    bytes: int
    staged: str


@dataclass(frozen=True)
class Commit:
    """One entry of the log.

    Attributes:
        version: Its number; the first is 1.
        run_id: The run.
        files: Files that the run put in place, new or again.
        quarantine: Files of lines that are no events.
        objects: Key of the list of raw objects that the run took.
        ledger: The run's ledger, so that a death before the warehouse has it loses nothing.
    """

    version: int
    run_id: str
    files: tuple[File, ...]
    quarantine: tuple[File, ...]
    objects: str
    ledger: tuple[dict[str, Any], ...]

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Commit:
        """Reads what the log holds."""
        return cls(
            content["version"],
            content["run_id"],
            tuple(File(**file) for file in content["files"]),
            tuple(File(**file) for file in content["quarantine"]),
            content["objects"],
            tuple(content["ledger"]),
        )


@dataclass(frozen=True)
class State:
    """What the log says, all entries together.

    Attributes:
        version: The newest entry's number; 0 before the first.
        commits: Every entry, oldest first.
        partitions: By a partition's folder, such as `event_type=order/day=2026-01-02`, its files in order.
    """

    version: int
    commits: tuple[Commit, ...]
    partitions: dict[str, tuple[File, ...]] = field(repr=False)

    @classmethod
    def of(cls, commits: list[Commit]) -> State:
        """Puts entries together."""
        files = {file.key: file for commit in commits for file in commit.files}
        partitions: dict[str, tuple[File, ...]] = {}
        for key in sorted(files):
            folder = key.removeprefix(f"{CURATED}/").rpartition("/")[0]
            partitions[folder] = (*partitions.get(folder, ()), files[key])
        return cls(commits[-1].version if commits else 0, tuple(commits), partitions)

    def tail(self, folder: str) -> File | None:
        """The file of a partition that is still small, if its last one is."""
        files = self.partitions.get(folder, ())
        return files[-1] if files and files[-1].bytes < SMALL_BYTES else None


@dataclass(frozen=True)
class EventStore:
    """The bucket that holds raw objects, curated files and the log.

    Attributes:
        lake: For reading, listing and copying.
        client: For the one thing that needs a condition: to create what must not exist.
    """

    lake: Lake
    client: Any = field(repr=False)

    @classmethod
    def s3(
        cls, bucket: str, *, endpoint: str, access_key: str, secret_key: str, region: str = "us-east-1"
    ) -> EventStore:
        """A bucket of any S3 server that knows conditional writes. See `Lake.s3`."""
        lake = Lake.s3(bucket, endpoint=endpoint, access_key=access_key, secret_key=secret_key, region=region)
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            region_name=region,
            config=Config(connect_timeout=5, read_timeout=60, retries={"max_attempts": 1}),
        )
        return cls(lake, client)

    def state(self) -> State:
        """What the log says now."""
        keys = [key for key in self.lake.keys(LOG) if key.endswith(".json")]
        return State.of([Commit.from_json(self.lake.read_json(key)) for key in keys])

    def taken(self, state: State) -> Iterator[list[str]]:
        """Keys of the raw objects that runs have taken, run by run."""
        for commit in state.commits:
            with self.lake.filesystem.open_input_file(self.lake.path(commit.objects)) as file:
                yield pq.read_table(file, columns=["key"]).column("key").to_pylist()

    def commit(self, entry: Commit) -> None:
        """Makes a run exist.

        Raises:
            TallyhouseError: Another run has committed since this one began.
        """
        body = json.dumps(asdict(entry), ensure_ascii=False, indent=1).encode()
        try:
            self.client.put_object(
                Bucket=self.lake.root, Key=f"{LOG}/{entry.version:020d}.json", Body=body, IfNoneMatch="*"
            )
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (409, 412):
                raise
            raise TallyhouseError(
                f"another run has committed number {entry.version} of the curated table's log",
                remedy="Nothing of this run is visible; start a new one, which takes the same objects",
            ) from error

    def finish(self, entry: Commit) -> None:
        """Puts a committed run's files in their places; again where a death stopped it, else nothing."""
        staging = staging_of(entry.run_id)
        staged = set(self.lake.keys(staging))
        for file in (*entry.files, *entry.quarantine):
            if file.staged in staged:
                self.lake.filesystem.copy_file(self.lake.path(file.staged), self.lake.path(file.key))
        # Last: while one of them is there, the next run repeats the copies.
        self.drop(staging)

    def drop(self, prefix: str, but: str = "") -> None:
        """Removes what is below a prefix, Spark's folder markers too, but what is below another one."""
        for page in self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.lake.root, Prefix=f"{prefix}/"
        ):
            keys = [{"Key": found["Key"]} for found in page.get("Contents", ())]
            if doomed := [key for key in keys if not but or not key["Key"].startswith(f"{but}/")]:
                self.client.delete_objects(Bucket=self.lake.root, Delete={"Objects": doomed, "Quiet": True})


def staging_of(run_id: str) -> str:
    """Folder of a run's files until they are in their places; readers pass over names with `_`."""
    return f"{CURATED}/_staging/{run_id}"
