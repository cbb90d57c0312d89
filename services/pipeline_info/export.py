"""All runs that match, as CSV or JSON Lines, in constant memory."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from enum import StrEnum
from itertools import chain

import orjson

from services.pipeline_info.models import PipelineRun
from services.pipeline_info.repository import StoredRun

Batches = Iterator[list[StoredRun]]


class Format(StrEnum):
    """The forms of an export."""

    CSV = "csv"
    JSONL = "jsonl"


MEDIA_TYPES = {Format.CSV: "text/csv; charset=utf-8; header=present", Format.JSONL: "application/jsonl"}
FIELDS = ("id", *(name for name in PipelineRun.model_fields if name != "id"))


# What a spreadsheet takes for the beginning of a formula, also in its wide form, and what it passes over.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_BLANK = " \t\r\n\v\f\u00a0\ufeff"


def started(batches: Batches) -> Batches:
    """The same batches, the first one fetched now.

    So a store that does not answer is an error, not an export that breaks off.
    """
    first = next(batches, [])
    return chain([first], batches)


def lines(batches: Batches) -> Iterator[bytes]:
    """One JSON document a line."""
    for batch in batches:
        yield b"".join(run.doc + b"\n" for run in batch)


def cell(value: object) -> object:
    """A value for a cell that no spreadsheet takes for a formula: a text that begins like one is quoted."""
    if isinstance(value, str) and value.lstrip(_BLANK).startswith(_FORMULA):
        return f"'{value}"
    return value


def rows(batches: Batches, *, raw: bool = False) -> Iterator[bytes]:
    """CSV as RFC 4180 has it, with a header; null is empty, `extra` is JSON text.

    Args:
        batches: The runs.
        raw: Whether texts stay as they are, also those that a spreadsheet would take for a formula.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(FIELDS)
    for batch in batches:
        for run in batch:
            fields = orjson.loads(run.doc)
            fields["extra"] = orjson.dumps(fields["extra"]).decode()
            writer.writerow([fields[name] if raw else cell(fields[name]) for name in FIELDS])
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()


def page(batches: Batches) -> Iterator[bytes]:
    """The answer of `all_data`: a page that is as long as it has to be."""
    total = 0
    yield b'{"items":['
    for batch in batches:
        if batch:
            yield (b"," if total else b"") + b",".join(run.doc for run in batch)
            total += len(batch)
    yield b'],"total":%d,"total_is_exact":true,"limit":null,"offset":0,"next_cursor":null}' % total
