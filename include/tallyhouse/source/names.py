"""Names for the lake and the warehouse, made of whatever a source calls its tables and columns."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping

from tallyhouse.contracts.model import IDENTIFIER

LONGEST = 39
_DIGEST = 8
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_OTHER = re.compile(r"[^a-z0-9]+")


def plain_name(name: str) -> str:
    """A plain lower-case identifier: `orderNumber` and `order-number` both become `order_number`.

    What no letter is left of, or is too long, carries a digest of the name.
    """
    if IDENTIFIER.fullmatch(name):
        return name
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    found = _OTHER.sub("_", _HUMP.sub("_", ascii_only).lower()).strip("_")
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    if not any(letter.isalpha() for letter in found):
        found = f"{found}_{digest}".strip("_")
    if not found[0].isalpha():
        found = f"c_{found}"
    if len(found) > LONGEST:
        found = f"{found[: LONGEST - _DIGEST - 1].rstrip('_')}_{digest}"
    return found


def plain_names(
    names: Iterable[str], *, kept: Mapping[str, str] | None = None, taken: Iterable[str] = ()
) -> dict[str, str]:
    """A plain name for each of some names, no two alike.

    A name that is plain already stays what it is, before others get theirs.

    Args:
        names: What the source calls them.
        kept: Names that were given before, by the source's; they stay.
        taken: Names that belong to others.

    Returns:
        By the source's name, in the order given.
    """
    names = list(names)
    found = {name: plain for name, plain in (kept or {}).items() if name in names}
    used = {*found.values(), *taken}
    for name in sorted(names, key=lambda one: IDENTIFIER.fullmatch(one) is None):
        if name in found:
            continue
        first = plain_name(name)
        plain, number = first, 2
        while plain in used:
            end = f"_{number}"
            plain, number = first[: LONGEST - len(end)] + end, number + 1
        found[name] = plain
        used.add(plain)
    return {name: found[name] for name in names}
