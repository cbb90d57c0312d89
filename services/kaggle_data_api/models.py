"""What goes over the wire: a dataset as it is sent, and as it is answered."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

MAX_ID = 2**31 - 1
MAX_FILES = 1000
_MOST_BYTES = 2**53 - 1  # what a number of JSON holds exactly everywhere

# Something to read in it, and no control characters: PostgreSQL's text cannot hold NUL.
_LINE = r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"
REF = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}/[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"

DatasetRef = Annotated[
    str,
    Field(
        max_length=201,
        pattern=REF,
        description="Kaggle's own name of it: owner and dataset.",
        examples=["olistbr/brazilian-ecommerce"],
    ),
]


class DatasetFile(BaseModel):
    """A file of a dataset, as it lies below the data root."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=500, pattern=_LINE, examples=["olist_sellers.csv"])]
    bytes: Annotated[int, Field(ge=0, le=_MOST_BYTES, strict=True)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class DatasetWrite(BaseModel):
    """A dataset to store; what is left out is empty."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: Annotated[
        str, Field(min_length=1, max_length=255, pattern=_LINE, examples=["Brazilian E-Commerce"])
    ]
    description: Annotated[str, Field(max_length=10_000, pattern=r"^[^\x00]*$")] | None = None
    source_url: (
        Annotated[
            str,
            Field(
                max_length=2048,
                pattern=r"^https?://[^\s\x00-\x1f\x7f]+$",
                examples=["https://www.kaggle.com/datasets/olistbr/brazilian-ecommerce"],
            ),
        ]
        | None
    ) = None
    ref: DatasetRef | None = None
    version: Annotated[int, Field(ge=1, le=MAX_ID, strict=True)] | None = None
    licence: Annotated[str, Field(min_length=1, max_length=200, pattern=_LINE)] | None = None
    files: Annotated[list[DatasetFile], Field(max_length=MAX_FILES)] = []


class Dataset(BaseModel):
    """A dataset as it is stored; times are in UTC.

    Attributes:
        total_bytes: Of all its files.
    """

    id: int
    name: str
    description: str | None
    source_url: str | None
    created_at: AwareDatetime
    ref: str | None
    version: int | None
    licence: str | None
    files: list[DatasetFile]
    total_bytes: int
    updated_at: AwareDatetime


class DatasetPage(BaseModel):
    """A page of datasets by name.

    Attributes:
        next_cursor: Where the next page starts; null when this is the last.
    """

    datasets: list[Dataset]
    next_cursor: str | None


class BadCursorError(ValueError):
    """A cursor that this service did not give out."""


@dataclass(frozen=True)
class Cursor:
    """A place in the list: the dataset that the page before ended with."""

    name: str
    id: int

    def encode(self) -> str:
        """The cursor as an opaque word for a URL."""
        return base64.urlsafe_b64encode(orjson.dumps([self.name, self.id])).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """The cursor of `encode`.

        Raises:
            BadCursorError: It is none.
        """
        try:
            name, number = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            if type(name) is not str or type(number) is not int or "\0" in name or not 0 < number <= MAX_ID:
                raise ValueError("its parts are of other types")
        except (ValueError, TypeError, binascii.Error) as error:
            raise BadCursorError("the cursor is none of this service's: start again without it") from error
        return cls(name, number)
