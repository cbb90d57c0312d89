"""The curated table: Delta Lake over partitioned Parquet, one commit a run.

    curated/_delta_log/                                       which files are the table's, version by version
    curated/event_type=<type>/day=<day>/<run>-00000.parquet   its files
    curated/_runs/<run>/objects.parquet                       the raw objects that a run took
    curated/_runs/<run>/ledger.json                           its ledger
    curated/_staging/<run>/                                   where Spark writes a run's files
    quarantine/<run>/part-00000.parquet                       lines that are no events, with the reason

A run's files are copied to their places first, where no reader of the table sees them. Then one commit of
Delta's log names them: the store refuses a version that exists, so of two runs that began from the same one
only one commits. The commit names the run too (Delta's application transactions), and what `_runs` holds of a
run counts if the table knows it. What died before its commit left files that are nobody's; they are swept
away when they are a week old.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from botocore.config import Config
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, create_table_with_add_actions

from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.lake import Lake

log = logging.getLogger(__name__)

CURATED = "curated"
RUNS = f"{CURATED}/_runs"
STAGING = f"{CURATED}/_staging"
QUARANTINE = "quarantine"
OBJECTS = "objects.parquet"
PARTITION = ["event_type", "day"]
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("received_at", pa.timestamp("us", "UTC")),
        pa.field("payload", pa.string()),
        pa.field("fields", pa.map_(pa.string(), pa.string())),
        pa.field("_object", pa.string()),
        pa.field("_line", pa.int32()),
        pa.field("_run", pa.string()),
        pa.field("event_type", pa.string()),
        pa.field("day", pa.date32()),
    ]
)
"""The table's columns, as `spark_jobs.events.CURATED` has them."""
SMALL_BYTES = 64 * 1024 * 1024
MOST_SMALL = 8
"""A partition with more files than this below `SMALL_BYTES` is put together into fewer."""
_WEEK = 7 * 24
_BEFORE = f"{CURATED}/_log"
"""Where the log was before the table was Delta Lake's."""


@dataclass(frozen=True)
class File:
    """One Parquet file of the table.

    Attributes:
        key: Where it is.
        rows: How many rows it holds.
        bytes: Its size.
        event_type: Its partition's type.
        day: Its partition's day, as `YYYY-MM-DD`.
    """

    key: str
    rows: int
    bytes: int
    event_type: str
    day: str

    @property
    def partition(self) -> tuple[str, str]:
        """Type and day."""
        return self.event_type, self.day

    def added(self) -> AddAction:
        """As a commit names it."""
        return AddAction(
            path=self.key.removeprefix(f"{CURATED}/"),
            size=self.bytes,
            partition_values={"event_type": self.event_type, "day": self.day},
            modification_time=0,
            data_change=True,
            stats=json.dumps({"numRecords": self.rows}),
        )


@dataclass(frozen=True)
class State:
    """The table at one version.

    Attributes:
        version: Its number; -1 before the first commit.
        files: What it is made of.
    """

    version: int
    files: tuple[File, ...]
    table: DeltaTable | None = field(repr=False, compare=False, default=None)

    @classmethod
    def of(cls, table: DeltaTable) -> State:
        """Reads a version."""
        actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
        files = [
            File(
                f"{CURATED}/{unquote(action['path'])}",
                action["num_records"],
                action["size_bytes"],
                action["partition.event_type"],
                str(action["partition.day"]),
            )
            for action in actions
        ]
        return cls(table.version(), tuple(sorted(files, key=lambda file: file.key)), table)

    def knows(self, run_id: str) -> bool:
        """Whether the run has committed."""
        return self.table is not None and self.table.transaction_version(run_id) is not None


@dataclass(frozen=True)
class EventStore:
    """The bucket that holds raw objects and the curated table.

    Attributes:
        lake: For reading, listing and copying.
        client: For removing what is below a prefix.
        options: For the table, see delta-rs.
    """

    lake: Lake
    client: Any = field(repr=False)
    options: dict[str, str] = field(repr=False)

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
        options = {
            "aws_endpoint_url": endpoint,
            "aws_access_key_id": access_key,
            "aws_secret_access_key": secret_key,
            "aws_region": region,
            "aws_allow_http": "true",
            "aws_conditional_put": "etag",  # a version that exists is refused by the store itself
        }
        return cls(lake, client, options)

    @property
    def uri(self) -> str:
        """The table, for delta-rs."""
        return f"s3://{self.lake.root}/{CURATED}"

    def state(self) -> State:
        """The newest version of the table."""
        if DeltaTable.is_deltatable(self.uri, self.options):
            return State.of(DeltaTable(self.uri, storage_options=self.options))
        return State(-1, ())

    def runs(self, state: State) -> list[str]:
        """The runs that have committed, oldest first."""
        keys = self.lake.keys(RUNS)
        named = sorted({key.removeprefix(f"{RUNS}/").partition("/")[0] for key in keys})
        return [run_id for run_id in named if state.knows(run_id)]

    def taken(self, state: State) -> Iterator[list[str]]:
        """Keys of the raw objects that runs have taken, run by run."""
        for run_id in self.runs(state):
            with self.lake.filesystem.open_input_file(self.lake.path(objects_of(run_id))) as file:
                yield pq.read_table(file, columns=["key"]).column("key").to_pylist()

    def commit(self, state: State, run_id: str, files: Sequence[File]) -> None:
        """Makes a run exist: its files are in their places, and what `_runs` has to hold of it is there.

        Raises:
            TallyhouseError: Another run has committed since this one began.
        """
        added = [file.added() for file in files]
        properties = CommitProperties(app_transactions=[Transaction(run_id, 1)], max_commit_retries=0)
        try:
            if state.table is None:
                self._create(added, properties)
            else:
                schema = Schema.from_arrow(SCHEMA)
                state.table.create_write_transaction(
                    [*added], "append", schema, PARTITION, commit_properties=properties
                )
        except (CommitFailedError, DeltaError) as error:
            now = self.state()
            if now.knows(run_id):  # only the answer was lost
                return
            if now.version == state.version:
                raise
            raise TallyhouseError(
                f"another run has committed version {state.version + 1} of the curated table",
                remedy="Nothing of this run is visible; start a new one, which takes the same objects",
            ) from error

    def _create(self, actions: list[AddAction], properties: CommitProperties) -> None:
        create_table_with_add_actions(
            self.uri,
            Schema.from_arrow(SCHEMA),
            actions,
            mode="error",
            partition_by=PARTITION,
            storage_options=self.options,
            commit_properties=properties,
        )

    def settle(self, run_id: str) -> None:
        """After a run's commit, or its death after it: its quarantined lines are put in their place."""
        staging = staging_of(run_id)
        for number, key in enumerate(self.lake.keys(f"{staging}/quarantine")):
            self.copy(key, f"{QUARANTINE}/{run_id}/part-{number:05d}.parquet")
        self.drop(staging)  # last: while it is there, the next run does this again

    def staged(self) -> list[str]:
        """The runs that have something written aside."""
        keys = self.lake.keys(STAGING)
        return sorted({key.removeprefix(f"{STAGING}/").partition("/")[0] for key in keys})

    def copy(self, key: str, to: str) -> None:
        """Copies an object; the server does it."""
        self.lake.filesystem.copy_file(self.lake.path(key), self.lake.path(to))

    def tidy(self, state: State) -> State:
        """Puts small files together, and removes what belongs to nobody; it changes no row.

        Returns:
            The table after it.
        """
        if state.table is None:
            return state
        try:
            small = Counter(file.partition for file in state.files if file.bytes < SMALL_BYTES)
            for partition, count in small.items():
                if count > MOST_SMALL:
                    filters = [(name, "=", value) for name, value in zip(PARTITION, partition, strict=True)]
                    state.table.optimize.compact(partition_filters=filters, target_size=SMALL_BYTES)
            # Only where there is something: it would write to the log in any case.
            if state.table.vacuum(retention_hours=_WEEK, dry_run=True, full=True):
                state.table.vacuum(retention_hours=_WEEK, dry_run=False, full=True)
        except DeltaError as error:  # the next run tries again
            log.warning("curated files could not be tidied: %s", first_line(error))
        return self.state()

    def adopt(self) -> None:
        """Takes over a table of the version before, whose log was its own: its files, in one commit."""
        keys = [key for key in self.lake.keys(_BEFORE) if key.endswith(".json")]
        if not keys or DeltaTable.is_deltatable(self.uri, self.options):
            return
        files: dict[str, File] = {}
        entries = [self.lake.read_json(key) for key in keys]
        for entry in entries:
            staged = set(self.lake.keys(staging_of(entry["run_id"])))
            for file in (*entry["files"], *entry["quarantine"]):
                if file["staged"] in staged:  # a death left it aside
                    self.copy(file["staged"], file["key"])
            for file in entry["files"]:
                event_type, day = partition_of(file["key"])
                files[file["key"]] = File(file["key"], file["rows"], file["bytes"], event_type, day)
            self.lake.write_json(ledger_of(entry["run_id"]), entry["ledger"])
        runs = [Transaction(entry["run_id"], 1) for entry in entries]
        self._create(
            [file.added() for file in files.values()],
            CommitProperties(app_transactions=runs, max_commit_retries=0),
        )
        log.info("the curated table is Delta Lake's: %d files of %d runs", len(files), len(runs))

    def drop(self, prefix: str) -> None:
        """Removes what is below a prefix, Spark's folder markers too."""
        for page in self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.lake.root, Prefix=f"{prefix}/"
        ):
            if keys := [{"Key": found["Key"]} for found in page.get("Contents", ())]:
                self.client.delete_objects(Bucket=self.lake.root, Delete={"Objects": keys, "Quiet": True})


def staging_of(run_id: str) -> str:
    """Folder where Spark writes a run's files."""
    return f"{STAGING}/{run_id}"


def partition_of(key: str) -> tuple[str, str]:
    """Type and day of a file that Spark wrote; it writes what a path cannot hold as %XX."""
    event_type, day = (part.partition("=")[2] for part in key.split("/")[-3:-1])
    return unquote(event_type), day


def objects_of(run_id: str) -> str:
    """The list of the raw objects that a run took."""
    return f"{RUNS}/{run_id}/{OBJECTS}"


def ledger_of(run_id: str) -> str:
    """A run's ledger, so that a death before the warehouse has it loses nothing."""
    return f"{RUNS}/{run_id}/ledger.json"
