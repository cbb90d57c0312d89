"""JSON that comes from outside: read the same by everybody, or refused."""

import json
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.jsontext import AmbiguousError, NotJsonError, check, decimals, loads

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_json_can_say_comes_back(value):
    text = orjson.dumps(value)
    assert loads(text) == loads(b"\xef\xbb\xbf" + text) == orjson.loads(text)
    assert decimals(text) == json.loads(text, parse_float=Decimal)
    check(text)


@given(st.binary(max_size=30) | st.text('[]{}:,"\\u0123ed.-+ntrua \n', max_size=30).map(str.encode))
def test_nothing_is_taken_that_another_strict_reader_refuses(text: bytes):
    try:
        orjson.loads(text.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError:
        with pytest.raises(ValueError):
            check(text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"page":{"evil":1},"page":"a"}',
        b'{"a":[{"b":1,"c":2,"b":1}]}',
        rb'{"a":1,"\u0061":2}',
        b"[" * 202 + b"]" * 202,
        b"9" * 5000,
    ],
)
def test_two_meanings_are_refused_by_every_reader(text: bytes):
    for read in (check, loads, decimals):
        with pytest.raises(AmbiguousError):
            read(text)


@pytest.mark.parametrize(
    "number",
    [
        *("18446744073709551616", "-9223372036854775809", "18446744073709551619"),
        *("0.10000000000000001", "0.1000000000000000055511151231257827", "9007199254740993.0"),
        *("1e400", "-1e400", "1e-400", "1e999998", "1e-999999999999999999999999", "1e" + "9" * 9999),
    ],
)
def test_a_number_that_would_change_is_refused_and_named(number: str):
    with pytest.raises(AmbiguousError, match="send it as a text"):
        loads(b'{"n":%s}' % number.encode())
    check(b'{"n":%s}' % number.encode())  # who keeps the text keeps the number


@pytest.mark.parametrize(
    "number", ["18446744073709551615", "0.1", "1.10", "1e22", "1E+300", "0e" + "9" * 9999, "5e-324"]
)
def test_a_number_that_is_kept_is_taken(number: str):
    assert loads(number.encode()) == json.loads(number)


@pytest.mark.parametrize(
    "text", [b"", b"NaN", b"01", b'"\xff"', rb'"\ud800"', b'"\n"', b"{} {}", b"[1,]", b"'a'"]
)
def test_what_is_no_json_is_refused(text: bytes):
    for read in (check, loads, decimals):
        with pytest.raises(NotJsonError):
            read(text)


def test_utf_16_is_named():
    with pytest.raises(NotJsonError, match="UTF-16"):
        loads('{"a": 1}'.encode("utf-16"))
