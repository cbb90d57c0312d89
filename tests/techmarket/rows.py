"""Reads the generator's SQL literals back; shares no code with what wrote them."""

import re

_LITERAL = re.compile(r"'((?:[^'\\]|\\.)*)'|([^,()']+)", re.DOTALL)
_BACK = {"\\\\": "\\", "\\'": "'", "\\0": "\0"}


def values(row: str) -> tuple[str | None, ...]:
    """Values of ``(literal,literal,...)`` as text, NULL as None."""
    assert row[0] == "("
    assert row[-1] == ")"
    found = []
    for match in _LITERAL.finditer(row[1:-1]):
        quoted, bare = match.groups()
        if bare is not None:
            found.append(None if bare == "NULL" else bare)
        else:
            found.append(re.sub(r"\\.", lambda m: _BACK[m.group()], quoted, flags=re.DOTALL))
    return tuple(found)
