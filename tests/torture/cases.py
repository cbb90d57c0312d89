"""Every type of each source with its nasty values, and what each must be in every store, written by hand."""

import struct
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

POLICY = object()
"""The type that all stores agree on cannot hold it: what happens is the contract's policy."""
Value = Any


class Case(NamedTuple):
    """One value.

    Attributes:
        name: How the page calls it.
        sql: The source's literal.
        expected: What every store must hold: int, Decimal, float, str, bytes, bool, or POLICY. Dates and
            times are text, to the microsecond, in UTC.
    """

    name: str
    sql: str
    expected: Value


@dataclass(frozen=True)
class Type:
    """A type of a source, and its values.

    Attributes:
        ddl: As CREATE TABLE spells it.
        cases: Its values.
        dbml: As the contract spells it, where that is not the same.
        engines: Of the sources that have it.
    """

    ddl: str
    cases: tuple[Case, ...]
    dbml: str = ""
    engines: tuple[str, ...] = ("mariadb", "mysql")

    @property
    def contract(self) -> str:
        """The type in the contract."""
        return self.dbml or self.ddl


def values(*pairs: tuple[str, Value]) -> tuple[Case, ...]:
    """Cases whose names are their literals."""
    return tuple(Case(sql.strip("'"), sql, expected) for sql, expected in pairs)


def integers(*numbers: int) -> tuple[Case, ...]:
    """Cases that are plain numbers."""
    return tuple(Case(str(number), str(number), number) for number in numbers)


FLOATS = values(
    ("1.5", 1.5), ("0", 0.0), ("-0e0", -0.0), ("3.4028234663852886e38", float.fromhex("0x1.fffffep127"))
)
DOUBLES = values(
    ("0.1", 0.1),
    ("-0e0", -0.0),
    ("1.7976931348623157e308", 1.7976931348623157e308),
    ("2.2250738585072014e-308", 2.2250738585072014e-308),
)
DAYS = values(
    *(
        (f"'{day}'", day)
        for day in (
            *("0001-01-01", "1000-01-01", "1582-10-04", "1582-10-10", "1582-10-15", "1899-12-31"),
            *("1900-01-01", "2024-02-29", "2038-01-20", "2299-12-31", "2300-01-01", "9999-12-31"),
        )
    )
)
MOMENTS = tuple(
    Case(name, f"'{moment}'", moment)
    for name, moment in {
        "year 1": "0001-01-01 00:00:00.000000",
        "between Julian and Gregorian": "1582-10-10 12:00:00.000001",
        "before 1900": "1899-12-31 23:59:59.999999",
        "the hour that Kyiv skips": "2026-03-29 03:30:00.000001",
        "the hour that Kyiv has twice": "2026-10-25 03:30:00.123456",
        "after 2038": "2038-01-19 03:14:08.000000",
        "after ClickHouse": "2300-01-01 00:00:00.000000",
        "the last one": "9999-12-31 23:59:59.999999",
    }.items()
)
TEXTS = (
    Case("empty", "''", ""),
    Case("trailing spaces", "'a  '", "a  "),
    Case("4 bytes a character", "'🥞😀'", "🥞😀"),
    Case("the word NULL", "'NULL'", "NULL"),
    Case("combining characters", "'e\u0301'", "e\u0301"),
)

UUID = "123e4567-e89b-12d3-a456-426655440000"
MYSQL = (
    Type("tinyint", integers(-128, 127)),
    Type("tinyint unsigned", integers(0, 255)),
    Type("smallint", integers(-32768, 32767)),
    Type("smallint unsigned", integers(0, 65535)),
    Type("mediumint", integers(-8388608, 8388607)),
    Type("mediumint unsigned", integers(0, 16777215)),
    Type("int", integers(-2147483648, 2147483647)),
    Type("int unsigned", integers(0, 4294967295)),
    Type("int(5) zerofill", integers(7, 4294967295)),
    Type("bigint", integers(-9223372036854775808, 9223372036854775807)),
    Type(
        "bigint unsigned", values(("0", Decimal(0)), ("18446744073709551615", Decimal(18446744073709551615)))
    ),
    Type("boolean", values(("TRUE", True), ("FALSE", False), ("2", POLICY), ("-1", POLICY))),
    Type("bit(1)", values(("b'1'", 1), ("b'0'", 0))),
    Type("bit(8)", values(("b'11111111'", 255))),
    Type("bit(63)", values(("9223372036854775807", 9223372036854775807))),
    Type("bit(64)", values(("18446744073709551615", Decimal(18446744073709551615)))),
    Type("decimal(12,2)", values(("-9999999999.99", Decimal("-9999999999.99")), ("0.10", Decimal("0.10")))),
    Type("decimal(38,10)", values(("9999999999999999999999999999.9999999999",) * 2)),
    Type("decimal(50,10)", values(("-1234567890123456789012345678901234567890.0123456789",) * 2)),
    Type(
        "decimal(65,30)",
        values(
            ("99999999999999999999999999999999999.999999999999999999999999999999",) * 2,
            ("-0.000000000000000000000000000001",) * 2,
            ("0.000000000000000000000000000000",) * 2,
        ),
    ),
    Type("float", FLOATS),
    Type("double", DOUBLES),
    Type("year", values(("1901", 1901), ("2155", 2155), ("0", 0))),
    Type(
        "date",
        (*DAYS, *values(("'0000-00-00'", POLICY), ("'2026-00-15'", POLICY), ("'2026-02-00'", POLICY))),
    ),
    Type(
        "datetime(6)",
        (*MOMENTS, *values(("'0000-00-00 00:00:00'", POLICY), ("'2026-00-00 01:02:03'", POLICY))),
    ),
    Type("datetime(3)", values(("'2026-01-02 03:04:05.678'", "2026-01-02 03:04:05.678000"))),
    Type("datetime", values(("'2026-01-02 03:04:05'", "2026-01-02 03:04:05.000000"))),
    Type(
        "timestamp(6) NULL",
        values(
            ("'1970-01-01 00:00:01'", "1970-01-01 00:00:01.000000"),
            ("'2038-01-19 03:14:07.999999'", "2038-01-19 03:14:07.999999"),
            ("'2026-03-29 03:30:00.000001'", "2026-03-29 03:30:00.000001"),
            ("'0000-00-00 00:00:00'", POLICY),
        ),
        dbml="timestamp(6)",
    ),
    Type(
        "time(6)",
        values(
            ("'-838:59:59'", "-838:59:59.000000"),
            ("'838:59:59'", "838:59:59.000000"),
            ("'00:00:00.000001'", "00:00:00.000001"),
        ),
    ),
    Type("char(10)", values(("'abc'", "abc"), ("'🥞'", "🥞"), ("''", ""))),
    Type(
        "varchar(20)",
        (
            *TEXTS,
            Case("backslash, quotes", r"""'a\\b''c"'""", "a\\b'c\""),
            Case("tab, newline", r"'a\tb\nc\rd'", "a\tb\nc\rd"),
            Case("NUL", r"'a\0b'", POLICY),
        ),
    ),
    Type("varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", TEXTS, dbml="varchar(20)"),
    Type("varchar(20) CHARACTER SET latin1", values(("'naïve café'", "naïve café")), dbml="varchar(20)"),
    Type("varchar(20) CHARACTER SET cp1251", values(("'Їжак і ґанок'", "Їжак і ґанок")), dbml="varchar(20)"),
    Type("tinytext", values(("'x'", "x"))),
    Type("text", TEXTS),
    Type("mediumtext", (Case("1 MB", "REPEAT('є', 524288)", "є" * 524288),)),
    Type("longtext", (Case("1 MB of 4 bytes", "REPEAT('🥞', 262144)", "🥞" * 262144),)),
    Type("binary(4)", values(("x'6162'", b"ab\0\0"))),
    Type("varbinary(20)", values(("x'fffe00c3'", b"\xff\xfe\x00\xc3"), ("''", b""))),
    Type("tinyblob", values(("x'00'", b"\0"))),
    Type("blob", values(("x'c328'", b"\xc3\x28"))),
    Type("mediumblob", (Case("1 MB", "REPEAT(x'ff00', 524288)", b"\xff\x00" * 524288),)),
    Type("longblob", values(("x'0d0a09'", b"\r\n\t"))),
    Type(
        "enum('a','b')",
        (Case("a", "'a'", "a"), Case("the error value", "'no such member'", "")),
    ),
    Type("set('x','y')", values(("'x,y'", "x,y"), ("''", ""))),
    Type(
        "json",
        values(
            ("""'{"n": 9007199254740993}'""", '{"n": 9007199254740993}'),
            ("'18446744073709551615'", "18446744073709551615"),
            ("""'{"є": "🥞"}'""", '{"є": "🥞"}'),
        ),
    ),
    # MariaDB keeps a document's text, MySQL the document.
    Type("json ", values(("""'{"a": 1, "a": 2}'""", '{"a": 1, "a": 2}')), dbml="json", engines=("mariadb",)),
    Type("json ", values(("""'{"a": 1, "a": 2}'""", '{"a": 2}')), dbml="json", engines=("mysql",)),
    Type(
        "geometry",
        (
            Case(
                "POINT(1 2)",
                "ST_GeomFromText('POINT(1 2)')",
                bytes.fromhex("000000000101000000000000000000f03f0000000000000040"),
            ),
        ),
    ),
    Type(
        "vector(2)",
        (Case("[1, -2.5]", "TO_VECTOR('[1, -2.5]')", struct.pack("<2f", 1, -2.5)),),
        dbml="vector",
        engines=("mysql",),
    ),
    Type("uuid", values((f"'{UUID}'", UUID)), engines=("mariadb",)),
    Type("inet6", values(("'2001:db8::ff00:42:8329'", "2001:db8::ff00:42:8329")), engines=("mariadb",)),
)
PG = ("postgres",)
_PG_TEXTS: dict[str, tuple[tuple[str, str], ...]] = {
    "numeric": (
        ("'123456789012345678901234567890.123456789012345678901234567890'",) * 2,
        ("'NaN'", "NaN"),
        ("'-Infinity'", "-Infinity"),
        ("'1.500'", "1.500"),
    ),
    "time(6)": (("'24:00:00'", "24:00:00"), ("'00:00:00.000001'", "00:00:00.000001")),
    "timetz": (("'12:00:00+02'", "12:00:00+02"),),
    "interval": (
        ("'1 mon -2 days 03:00:00.000001'", "1 mon -2 days +03:00:00.000001"),
        ("'-178000000 years'", "-178000000 years"),
    ),
    "uuid": ((f"'{UUID}'", UUID),),
    "inet": (("'192.168.0.1/24'", "192.168.0.1/24"), ("'::1'", "::1/128")),
    "cidr": (("'10.0.0.0/8'", "10.0.0.0/8"),),
    "macaddr": (("'08:00:2b:01:02:03'",) * 2,),
    "money": (("'-1234.5'", "-$1,234.50"),),
    "integer[]": (("'{1,NULL,3}'", "{1,NULL,3}"), ("'{{1,2},{3,4}}'", "{{1,2},{3,4}}"), ("'{}'", "{}")),
    "text[]": (("""'{"a,b","NULL",NULL,"q\\"q"}'""", '{"a,b","NULL",NULL,"q\\"q"}'),),
    "date[]": (("'{2026-07-01,infinity}'", "{2026-07-01,infinity}"),),
    "timestamptz[]": (("""'{"2026-07-01 12:00+03"}'""", '{"2026-07-01 09:00:00+00"}'),),
    "float8[]": (("'{0.1,NaN,-0}'", "{0.1,NaN,-0}"),),
    "int4range": (("'[1,5)'", "[1,5)"), ("'empty'", "empty")),
    "tstzrange": (("'[2026-01-01 00:00+02,infinity)'", '["2025-12-31 22:00:00+00",infinity)'),),
    "json": (("""'{"a": 1, "a": 12345678901234567890123}'""", '{"a": 1, "a": 12345678901234567890123}'),),
    "jsonb": (("""'{"a": 1, "a": 12345678901234567890.10}'""", '{"a": 12345678901234567890.10}'),),
    "bit(3)": (("B'101'", "101"),),
    "bit varying(8)": (("B'0'", "0"),),
    "point": (("'(1.5,-0)'", "(1.5,-0)"),),
    "tsvector": (("'a:1 b:2'", "'a':1 'b':2"),),
    "xml": (("'<a>є</a>'", "<a>є</a>"),),
}


def quoted(pairs: tuple[tuple[str, str], ...]) -> tuple[Case, ...]:
    """Cases of text types: their literals come with quotes, and so does what is written twice."""
    return tuple(
        Case(sql.strip("'"), sql, expected.strip("'") if expected == sql else expected)
        for sql, expected in pairs
    )


POSTGRES = (
    Type("smallint", integers(-32768, 32767), engines=PG),
    Type("integer", integers(-2147483648, 2147483647), engines=PG),
    Type("bigint", integers(-9223372036854775808, 9223372036854775807), engines=PG),
    Type("boolean", values(("true", True), ("false", False)), engines=PG),
    Type(
        "numeric(12,2)",
        values(("-9999999999.99", Decimal("-9999999999.99")), ("'NaN'", POLICY)),
        engines=PG,
    ),
    Type(
        "numeric(65,30)",
        values(
            ("99999999999999999999999999999999999.999999999999999999999999999999",) * 2, ("'NaN'", POLICY)
        ),
        engines=PG,
    ),
    Type(
        "real",
        values(
            ("0.1", float.fromhex("0x1.99999ap-4")),
            ("'NaN'", float("nan")),
            ("'-Infinity'", float("-inf")),
            ("'-0'", -0.0),
        ),
        engines=PG,
    ),
    Type(
        "double precision",
        (*values(("0.1", 0.1), ("'NaN'", float("nan")), ("'Infinity'", float("inf")), ("'-0'", -0.0)),),
        engines=PG,
    ),
    Type("char(5)", values(("'ab'", "ab"), ("''", "")), engines=PG),
    Type(
        "varchar(20)",
        (*TEXTS, Case("backslash, tab, newline", r"E'a\\b\tc\nd'", "a\\b\tc\nd")),
        engines=PG,
    ),
    Type("text", (*TEXTS, Case("1 MB", "repeat('є', 524288)", "є" * 524288)), engines=PG),
    Type("bytea", values((r"'\x00ff5c'", b"\x00\xff\x5c"), ("''", b"")), engines=PG),
    Type(
        "date",
        (
            *DAYS,
            *values(
                *((f"'{day}'", POLICY) for day in ("infinity", "-infinity", "0044-03-15 BC", "10000-01-01"))
            ),
        ),
        engines=PG,
    ),
    *(
        Type(
            ddl,
            (
                *(Case(case.name, f"{case.sql[:-1]}{zone}'", case.expected) for case in MOMENTS),
                *values(
                    *(
                        (f"'{day}'", POLICY)
                        for day in ("infinity", "-infinity", "0044-03-15 BC", "10000-01-01")
                    )
                ),
            ),
            engines=PG,
        )
        for ddl, zone in (("timestamp", ""), ("timestamptz", "+00"), ("timestamp(6) with time zone", "+00"))
    ),
    *(Type(ddl, quoted(pairs), engines=PG) for ddl, pairs in _PG_TEXTS.items()),
    Type("mood", values(("'sad'", "sad")), dbml="text", engines=PG),
    Type("positive", integers(7), dbml="integer", engines=PG),
)
PREPARATION = (
    "CREATE TYPE mood AS ENUM ('sad', 'ok')",
    "CREATE DOMAIN positive AS integer CHECK (VALUE > 0)",
)
"""What the PostgreSQL source has of its own."""


def of(engine: str) -> tuple[Type, ...]:
    """The types of a source."""
    return tuple(type_ for type_ in (*MYSQL, *POSTGRES) if engine in type_.engines)
