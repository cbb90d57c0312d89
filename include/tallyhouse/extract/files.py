"""Streams a CSV file of a dataset out of the lake, where fetch-kaggle put it with its checksum.

A file cannot count itself, so it is read twice: once by Python's own CSV reader, which looks at every row,
counts and digests, sums the control totals and makes sure that these are the very bytes that were fetched;
then by Arrow, which streams the rows. Every value crosses as its text in the file; an empty one is NULL.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa
from pyarrow import csv as arrow_csv

from tallyhouse.contracts import ColumnType, TableContract
from tallyhouse.errors import TallyhouseError, first_line
from tallyhouse.extract.digest import LONG, is_digested, is_fixed
from tallyhouse.extract.stream import SnapshotStatement, SourceStream
from tallyhouse.lake import Lake

PREFIX = "kaggle"
ABOUT = "_dataset.json"
_ABOUT_KEY = re.compile(r"/v(\d+)/" + re.escape(ABOUT) + r"\Z")
_BLOCK = 1 << 20
_LONGEST_FIELD = 1 << 20


@dataclass(frozen=True)
class DatasetFile:
    """A file of the newest version of a dataset that the lake has.

    Attributes:
        key: Where it is.
        version: Of which version.
        sha256: Its checksum, hexadecimal.
        bytes: Its size.
    """

    key: str
    version: int
    sha256: str
    bytes: int


def find_file(lake: Lake, file: str, contract: TableContract) -> DatasetFile:
    """The newest version of a dataset's file.

    Args:
        lake: Where fetch-kaggle puts it.
        file: Owner, dataset and the file's name.
        contract: The table, for the message.

    Raises:
        TallyhouseError: The lake has no version of the dataset, or the newest one lacks the file.
    """
    owner, dataset, name = file.split("/", 2)
    keys = lake.keys(f"{PREFIX}/{owner}/{dataset}")
    versions = {int(match[1]): key for key in keys if (match := _ABOUT_KEY.search(key))}
    if not versions:
        raise TallyhouseError(
            f"the lake has no version of {owner}/{dataset}",
            remedy="Run the task fetch, or `python -m jobs.fetch_kaggle`; see that datasets.yaml names it",
            table=contract.qualified_name,
        )
    version = max(versions)
    about: dict[str, Any] = lake.read_json(versions[version])
    for one in about["files"]:
        if one["name"] == name:
            key = f"{versions[version].removesuffix(ABOUT)}{name}"
            return DatasetFile(key, version, one["sha256"], one["bytes"])
    raise TallyhouseError(
        f"version {version} of {owner}/{dataset} has no file {name}",
        remedy="Name it in datasets.yaml and fetch again, or correct `file` in the contract",
        table=contract.qualified_name,
    )


def open_stream(lake: Lake, file: DatasetFile, contract: TableContract) -> SourceStream:
    """Looks at every row of a file, and starts to stream them.

    Args:
        lake: Where it is.
        file: Which one.
        contract: The table.

    Raises:
        TallyhouseError: It is not what was fetched, or not a CSV of the contract's columns; the message names
            the line.
    """
    at = datetime.now(UTC)
    rows, digest, totals = _count(lake, file, contract)
    schema = pa.schema([pa.field(name, pa.string()) for name in contract.column_names])
    return SourceStream(
        statement=SnapshotStatement(
            snapshot_at=at,
            rows=rows,
            digest=str(digest) if contract.proof == "digest" else None,
            control_totals={name: f"{total:f}" for name, total in totals.items()},
        ),
        batches=_read(lake, file, contract),
        schema=schema,
    )


def _read(lake: Lake, file: DatasetFile, contract: TableContract) -> Iterator[pa.RecordBatch]:
    with lake.filesystem.open_input_stream(lake.path(file.key)) as stream:
        reader = arrow_csv.open_csv(
            stream,
            read_options=arrow_csv.ReadOptions(block_size=_BLOCK, use_threads=False),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(contract.column_names, pa.string()),
                include_columns=list(contract.column_names),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
        yield from reader


class _Hashing(io.RawIOBase):
    """Hands bytes on and keeps their checksum."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream
        self.hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._stream.read(len(buffer))
        self.hash.update(found)
        buffer[: len(found)] = found
        return len(found)


def _count(lake: Lake, file: DatasetFile, contract: TableContract) -> tuple[int, int, dict[str, Decimal]]:
    """Rows, digest and control totals of a file, by another reader than the one that streams it."""

    def refuse(what: str, line: int | None, rule: str) -> TallyhouseError:
        place = f"line {line} of {file.key}" if line else file.key
        return TallyhouseError(
            f"{place}: {what}",
            remedy="Nothing was taken; have the file corrected at its source, or the contract, and run again",
            table=contract.qualified_name,
            rule=rule,
            count=1,
        )

    csv.field_size_limit(_LONGEST_FIELD)
    totals = dict.fromkeys(contract.control_totals, Decimal(0))
    rows = digest = 0
    with lake.filesystem.open_input_stream(lake.path(file.key)) as source:
        hashing = _Hashing(source)
        reader = csv.reader(
            io.TextIOWrapper(io.BufferedReader(hashing, _BLOCK), encoding="utf-8-sig", newline=""),
            strict=True,
        )
        try:
            heading = next(reader, [])
            if missing := [name for name in contract.column_names if name not in heading]:
                raise refuse(f"its heading lacks {', '.join(missing)}", 1, "columns")
            if len(set(heading)) != len(heading):
                raise refuse("its heading names a column twice", 1, "columns")
            places = {name: heading.index(name) for name in totals}
            columns = [(heading.index(column.name), column.type) for column in contract.columns]
            for row in reader:
                if not row:
                    continue  # Arrow passes over an empty line, too
                if len(row) != len(heading):
                    raise refuse(
                        f"has {len(row)} values, its heading {len(heading)}", reader.line_num, "columns"
                    )
                rows += 1
                digest += _digest([(type_, row[place]) for place, type_ in columns])
                for name, place in places.items():
                    text = row[place]
                    if text:
                        totals[name] += _exact(text)
        except UnicodeDecodeError as error:
            raise refuse(f"is not UTF-8 ({first_line(error)})", reader.line_num + 1, "encoding") from error
        except (csv.Error, InvalidOperation) as error:
            raise refuse(f"cannot be read ({first_line(error)})", reader.line_num, "form") from error
    if hashing.hash.hexdigest() != file.sha256:
        raise refuse(
            f"its SHA-256 is {hashing.hash.hexdigest()}, fetched was {file.sha256}", None, "checksum"
        )
    return rows, digest, totals


def _digest(values: list[tuple[ColumnType, str]]) -> int:
    """The digest of one row, as `tallyhouse.extract.digest` has it in SQL; an empty value is NULL."""
    texts = []
    for type_, value in values:
        if is_fixed(type_.kind):
            texts.append(f"{value or 'N'}|")
        elif is_digested(type_.kind):
            size = len(value.encode())
            shown = hashlib.sha256(value.encode()).hexdigest() if size > LONG else value
            texts.append(f"{size}:{shown}" if value else "N")
    return int(hashlib.sha256("".join(texts).encode()).hexdigest()[:15], 16)


def _exact(text: str) -> Decimal:
    found = Decimal(text)
    if not found.is_finite():
        raise InvalidOperation(f"{text[:40]!r} is no number")
    return found
