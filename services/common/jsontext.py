"""The one way in which JSON is read that comes from outside.

What two readers could take for different things is refused: a name that stands twice in an object (some take
the first, some the last), a number that a double would change, text that is not UTF-8. A byte order mark is
passed over, as RFC 8259 allows.
"""

from __future__ import annotations

from typing import Any, Literal

import jiter

MOST_DEPTH = 201
"""How deep arrays and objects may stand in one another."""

_MARK = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_LEAST, _MOST = -(2**63), 2**64 - 1
_LONGEST_EXPONENT = 20
# Digits and points become 0, so that a run of them is found without looking at each; e stays.
_SHAPE = bytes(
    0x30 if chr(byte) in "0123456789.+-" else 0x65 if chr(byte) in "eE" else 0x20 for byte in range(256)
)


class NotJsonError(ValueError):
    """The text is not JSON."""


class AmbiguousError(ValueError):
    """The text is JSON that two readers may take for different things."""


def without_mark(text: bytes) -> bytes:
    """The text without its byte order mark."""
    return text.removeprefix(_MARK)


def check(text: bytes) -> None:
    """See that a text is JSON and has no name twice; its numbers may have any number of digits.

    Raises:
        NotJsonError: It is not JSON.
        AmbiguousError: A name stands twice in one object, or it is nested too deep.
    """
    _parse(text, "lossless-float")


def decimals(text: bytes) -> Any:
    """What a text says, each number exactly: as an int or a Decimal.

    Raises:
        NotJsonError: It is not JSON.
        AmbiguousError: As in `check`.
    """
    return _parse(text, "decimal")


def loads(text: bytes) -> Any:
    """What a text says, its numbers as ints of 64 bits and doubles.

    Raises:
        NotJsonError: It is not JSON.
        AmbiguousError: As in `check`, or a number would not be kept exactly.
    """
    shape = text.translate(_SHAPE)
    # Up to 15 digits and with a small exponent every number is kept, so only others are looked at.
    if b"0" * 16 in shape or b"0e000" in shape:
        return _doubles(_parse(text, "lossless-float"))
    return _parse(text, "float")


def _parse(text: bytes, floats: Literal["float", "decimal", "lossless-float"]) -> Any:
    try:
        return jiter.from_json(
            without_mark(text),
            allow_inf_nan=False,
            catch_duplicate_keys=True,
            float_mode=floats,
            cache_mode="keys",
        )
    except ValueError as error:
        said = str(error)
        if said.startswith("Detected duplicate key"):
            name, _, place = said.removeprefix("Detected duplicate key ").rpartition(" at ")
            raise AmbiguousError(f"the name {_short(name)} stands twice in one object, at {place}") from error
        if said.startswith("recursion limit"):
            raise AmbiguousError(f"it is nested more than {MOST_DEPTH} deep") from error
        if said.startswith(("number out of range", "Internal error")):
            raise AmbiguousError(f"a number is too long to be kept exactly: {_short(said)}") from error
        if text.startswith(_UTF_16):
            raise NotJsonError("it is UTF-16: send UTF-8") from error
        raise NotJsonError(_short(said)) from error


def _doubles(value: Any) -> Any:
    """The value with its numbers as doubles, each of which says what was written."""
    if isinstance(value, dict):
        return {name: _doubles(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_doubles(part) for part in value]
    if isinstance(value, jiter.LosslessFloat):
        number = float(value)
        written = str(value)
        if not _kept(written, number):
            raise AmbiguousError(f"the number {_short(written)} would become {number!r}: send it as a text")
        return number
    if isinstance(value, int) and not _LEAST <= value <= _MOST:
        raise AmbiguousError(f"the number {_short(str(value))} has more than 64 bits: send it as a text")
    return value


def _kept(written: str, number: float) -> bool:
    if number in (float("inf"), float("-inf")):
        return False
    # Compared as digits and a power of ten: an exponent of millions must cost no more than its text.
    return _digits(written) == _digits(repr(number))


def _digits(written: str) -> tuple[str, int | None]:
    mantissa, _, exponent = written.lower().partition("e")
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    shorter = digits.rstrip("0")
    if not shorter:
        return "", 0
    if len(exponent) > _LONGEST_EXPONENT:
        return shorter, None
    return shorter, int(exponent or "0") - len(fraction) + len(digits) - len(shorter)


def _short(text: str, most: int = 100) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
