"""The table, and what of it goes over the wire.

`docs/db/pancake_postgres.dbml` is where the table is designed: the native stack, the pipeline's contract and
the migrations here follow it, and a test compares them.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)
from sqlalchemy import Identity, Numeric, String, Text, func, text
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

MAX_ID = 2**31 - 1
MAX_FACTOR = Decimal("9999.99")

# Something to read in it, and no control characters: PostgreSQL's text cannot hold NUL.
_LINE = r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"


class Base(DeclarativeBase):
    """The tables of the application."""


class Pancake(Base):
    """One row per pancake."""

    __tablename__ = "pancakes"
    __table_args__ = {"comment": "One pancake a row, as its document has it"}  # noqa: RUF012 - SQLAlchemy's

    id: Mapped[int] = mapped_column(Identity(always=False), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    fluffiness_level: Mapped[int] = mapped_column(comment="1 to 10")
    syrup_type: Mapped[str] = mapped_column(String(50))
    is_buttery: Mapped[bool] = mapped_column(server_default=text("false"))
    magical_factor: Mapped[Decimal] = mapped_column(Numeric(6, 2), server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True), server_default=func.now())
    taste_notes: Mapped[str | None] = mapped_column(Text)


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("Input should be a number")
    return value


class PancakeCreate(BaseModel):
    """A pancake to store."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=_LINE, examples=["Fluffy buttermilk"])]
    fluffiness_level: Annotated[int, Field(ge=1, le=10, strict=True)]
    syrup_type: Annotated[str, Field(min_length=1, max_length=50, pattern=_LINE, examples=["maple"])]
    is_buttery: Annotated[bool, Field(strict=True)] = False
    magical_factor: Annotated[
        Decimal,
        Field(ge=-MAX_FACTOR, le=MAX_FACTOR, decimal_places=2, json_schema_extra={"default": 0}),
        BeforeValidator(_number),
        WithJsonSchema(
            {
                "type": "number",
                "minimum": -float(MAX_FACTOR),
                "maximum": float(MAX_FACTOR),
                "description": "At most two decimals: more are refused, not rounded.",
            }
        ),
    ] = Decimal(0)
    taste_notes: Annotated[str, Field(max_length=10_000, pattern=r"^[^\x00]*$")] | None = None


class PancakeResponse(BaseModel):
    """A pancake as it is stored; `created_at` is in UTC."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    fluffiness_level: int
    syrup_type: str
    is_buttery: bool
    # Six digits: the number that a double prints is the number that is stored.
    magical_factor: Annotated[Decimal, PlainSerializer(float, return_type=float)]
    created_at: AwareDatetime
    taste_notes: str | None
