"""Reads a statement's tokens once, from left to right, and refuses what the engine would do without asking.

The engine's access rights hold whatever is written (`users.xml`). This is for the rest: results written to
files and rows read from files, which chDB does before any right is asked for; functions that need no right;
several statements in one. Where ClickHouse's own reading of a character is intricate (heredocs, typographic
quotes), the character is refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from services.embedded_clickhouse.errors import refused, syntax_error

READS = frozenset({"SELECT", "WITH", "FROM", "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN", "CHECK"})
WRITES = frozenset(
    {
        *("INSERT", "CREATE", "REPLACE", "ALTER", "DROP", "DETACH", "UNDROP", "RENAME", "EXCHANGE"),
        *("TRUNCATE", "OPTIMIZE", "DELETE", "UPDATE", "KILL", "SET", "USE"),
    }
)
REFUSED = frozenset(
    {
        *("ATTACH", "BACKUP", "RESTORE", "COPY", "EXECUTE", "GRANT", "REVOKE", "IMPORT", "MOVE", "SYSTEM"),
        *("BEGIN", "COMMIT", "ROLLBACK", "PARALLEL", "WATCH"),
    }
)

LAKE_FUNCTIONS = frozenset({"s3", "deltalake"})
"""Table functions that read the lake."""
TABLE_FUNCTIONS = frozenset(
    {
        *("numbers", "numbers_mt", "zeros", "zeros_mt", "generateseries", "generate_series", "primes"),
        *("values", "sqlstandardvalues", "null", "view", "viewexplain", "merge", "mergetreeindex"),
        *("mergetreeprojection", *LAKE_FUNCTIONS),
    }
)
"""Table functions that reach nothing but this server's data and, checked by the engine, the lake."""
ENGINES = frozenset(
    {
        *("mergetree", "replacingmergetree", "summingmergetree", "aggregatingmergetree"),
        *("collapsingmergetree", "versionedcollapsingmergetree", "coalescingmergetree", "graphitemergetree"),
        *(
            "memory",
            "log",
            "tinylog",
            "stripelog",
            "null",
            "set",
            "join",
            "buffer",
            "merge",
            "generaterandom",
        ),
        *("view", "materializedview", "atomic"),
    }
)
"""Engines of tables and databases that keep their data here."""
NOT_CALLED = frozenset({"disk", "extra_credentials", "headers"})
"""Called in settings and arguments: a disk anywhere, credentials from elsewhere, headers for the lake."""

_TOKEN = re.compile(
    r"""(?P<space>\s++|--[^\n]*+)
    | (?P<comment>/\*)
    | (?P<word>[A-Za-z0-9_]++)
    | (?P<string>'(?:[^'\\]++|\\.|'')*+')
    | (?P<name>"(?:[^"\\]++|\\.|"")*+"|`(?:[^`\\]++|\\.|``)*+`)
    | (?P<sign>[!%&()*+,\-./:;<=>?@\[\\\]^{|}~])
    | (?P<open>['"`])""",
    re.DOTALL | re.VERBOSE,
)
_DATA = re.compile(r"[ \t;]*+(?:\r?\n)?")
_DEFAULTS = re.compile(r"\b(?:DEFAULT|MATERIALIZED|ALIAS|EPHEMERAL)\b|\\[^\\']", re.IGNORECASE)


class Incomplete(Exception):
    """The text ends inside a token."""


class Token(NamedTuple):
    """A piece of a statement.

    Attributes:
        kind: `word`, `name` (a quoted identifier), `string` or `sign`.
        text: As it is written; of a quoted identifier, what is between the quotes.
        end: Where the next one may begin.
        depth: How many brackets are open around it.
    """

    kind: str
    text: str
    end: int
    depth: int

    def is_word(self, *words: str) -> bool:
        """Whether it is one of some key words, given in upper case."""
        return self.kind == "word" and self.text.upper() in words


_NONE = Token("", "", 0, 0)


def tokens(text: str) -> Iterator[Token]:
    """The tokens of a statement, without spaces and comments.

    Args:
        text: The statement, one character a byte or decoded.

    Raises:
        Incomplete: The text ends inside a comment or between quotes.
        ClickHouseError: A character is none that a statement may have there.
    """
    at = depth = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        kind = found.lastgroup if found else None
        if found is None or kind is None:
            raise syntax_error(f"the character {text[at]!r} outside of quotes")
        at, piece = found.end(), found.group()
        if kind == "comment":
            end = text.find("*/", at)
            if end < 0:
                raise Incomplete
            if text.find("/*", at, end) >= 0:
                raise syntax_error("a comment inside a comment")
            at = end + 2
        elif kind == "open":
            raise Incomplete
        elif kind == "name":
            if "\\" in piece:
                raise syntax_error("a backslash in a quoted name")
            yield Token(kind, piece[1:-1], at, depth)
        elif kind == "sign":
            depth -= piece in ")]}"
            yield Token(kind, piece, at, depth)
            depth += piece in "([{"
        elif kind != "space":
            yield Token(kind, piece, at, depth)


@dataclass(frozen=True)
class Statement:
    """A checked statement.

    Attributes:
        first: Its first word, in upper case.
        format: The format of its result, where it names one.
        is_query: It is a SELECT, whose result may be streamed.
    """

    first: str
    format: str | None
    is_query: bool


@dataclass(frozen=True)
class Insert:
    """The head of an INSERT whose rows follow.

    Attributes:
        format: What the rows are written in.
        head_end: Where the words before FORMAT end.
        data_start: Where the rows begin.
    """

    format: str
    head_end: int
    data_start: int


def insert_head(text: str, *, whole: bool) -> Insert | None:
    """The head of an `INSERT ... FORMAT x`, when that is what a text begins with.

    Args:
        text: The beginning of a request's text, one character a byte.
        whole: Nothing follows it.

    Returns:
        None for other statements; those with a SELECT or with VALUES, which may hold expressions, as well.

    Raises:
        Incomplete: More is needed to tell.
        ClickHouseError: As `tokens` does.
    """
    before = last = _NONE
    try:
        for number, token in enumerate(tokens(text)):
            if number == 0 and not token.is_word("INSERT"):
                return None
            if last.is_word("FORMAT") and last.depth == 0 and token.kind == "word":
                if token.is_word("VALUES"):
                    return None
                if (token.end == len(text) or not text[token.end :].lstrip(" \t;\r")) and not whole:
                    raise Incomplete
                found = _DATA.match(text, token.end)
                return Insert(token.text, before.end, found.end() if found else token.end)
            if token.depth == 0 and token.is_word("SELECT", "WITH", "VALUES") and last.text != ".":
                return None
            before, last = last, token
    except Incomplete:
        if not whole:
            raise
        return None
    if not whole:
        raise Incomplete
    return None


class Checker:
    """What may be said to one engine.

    Args:
        table_functions: Names of all of the engine's table functions.
        engines: Names of all its engines, of tables and of databases.
        functions: Names of its functions.
    """

    def __init__(self, table_functions: set[str], engines: set[str], functions: set[str]) -> None:
        reaching = {name.lower() for name in functions if re.match(r"(?i:file$)|ai[A-Z]|AI[A-Z]", name)}
        self._reaching = reaching
        # Those that are plain functions as well are table functions only where a table is expected.
        plain = {name.lower() for name in functions} - reaching
        denied = {name.lower() for name in table_functions} - TABLE_FUNCTIONS
        self._denied = (denied - plain) | NOT_CALLED
        self._denied_tables = denied & plain
        self._denied_engines = {name.lower() for name in engines} - ENGINES

    def check(self, text: str) -> Statement:
        """Read one statement.

        Raises:
            ClickHouseError: It is none, is several, or does what this server does not do.
        """
        try:
            found = list(tokens(text))
        except Incomplete as error:
            raise syntax_error("a comment or quotes without an end") from error
        while found and found[-1].text == ";" and found[-1].kind == "sign":
            found.pop()
        first = next((token for token in found if token.text != "("), _NONE)
        word = first.text.upper() if first.kind == "word" else ""
        if word in REFUSED:
            raise refused(f"{word} is not done by the embedded server")
        if word not in READS | WRITES:
            raise syntax_error(
                f"a statement begins with {first.text[:40]!r}" if first.text else "empty query"
            )
        self._check_tokens(found)
        return Statement(word, _format(found), word in ("SELECT", "WITH") and not _writes(found))

    def _check_tokens(self, found: list[Token]) -> None:
        before = last = _NONE
        inside = 0  # the depth of the arguments of s3(...), deltaLake(...)
        for token, after in zip(found, [*found[1:], _NONE], strict=True):
            if token.kind == "sign" and token.text == ";":
                raise syntax_error("Multi-statements are not allowed")
            if token.is_word("OUTFILE", "INFILE") and last.is_word("INTO", "FROM"):
                raise refused(f"{last.text} {token.text}: no file is read or written")
            if inside and token.depth < inside:
                inside = 0
            if inside and _is_made(token):
                raise refused("The arguments of s3() and deltaLake() must be plain literals without DEFAULT")
            if token.kind == "sign" and token.text == "(" and last.text.lower() in LAKE_FUNCTIONS:
                inside = token.depth + 1
            if token.kind in ("word", "name"):
                self._check_name(token, before, last, after)
            before, last = last, token

    def _check_name(self, token: Token, before: Token, last: Token, after: Token) -> None:
        name = token.text.lower()
        called = after.kind == "sign" and after.text == "("
        if called and name in self._denied:
            raise refused(f"{token.text}() reaches outside of this server's data")
        if called and name in self._denied_tables and last.is_word("FROM", "JOIN", "TABLE", "FUNCTION", "AS"):
            raise refused(f"The table function {token.text}() is not offered here")
        if name in self._reaching and (
            called
            or last.is_word("APPLY")
            or (before.is_word("APPLY") and last.text == "(")
            or (last.kind == "sign" and last.text in "(," and after.kind == "sign" and after.text in ",)")
        ):
            raise refused(f"The function {token.text} reaches outside of this server's data")
        if name in self._denied_engines and (
            last.is_word("ENGINE") or (last.text == "=" and before.is_word("ENGINE"))
        ):
            raise refused(f"The engine {token.text} reaches outside of this server's data")


def _is_made(token: Token) -> bool:
    """Whether an argument is made by an expression, or holds one."""
    if token.kind == "string":
        return bool(_DEFAULTS.search(token.text))
    return token.kind == "sign" and token.text not in ",="


def _format(found: list[Token]) -> str | None:
    """What the statement's last FORMAT names."""
    pairs = pairwise(found)
    named = [b.text for a, b in pairs if a.depth == 0 and a.is_word("FORMAT") and b.kind == "word"]
    return named[-1] if named else None


def _writes(found: list[Token]) -> bool:
    return any(token.depth == 0 and token.is_word("INSERT") for token in found)
