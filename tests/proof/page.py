"""The page of the kill proof, from build/proof.json: docs/proof.md."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

from tallyhouse.settings import ROOT

JSON, PAGE = ROOT / "build/proof.json", ROOT / "docs/proof.md"
HEAD = """\
# What was proved by killing it

Written by `make proof`; do not edit. A run of the pancake pipeline is interrupted at a durable write, which
proxies before the stores find by themselves: its processes are killed (SIGKILL), its connection is cut,
both stand still (SIGSTOP) and wake after their successor, or the write is delayed; or a server dies under
it, or has no more room. Then it is tried again, or a new run takes over, and an oracle that imports nothing
of the product compares source, `ods`, star schema, ClickHouse and mart row by row. Meanwhile two readers
poll both stores for a state that is not of a whole run.
[Decision 27](decisions/0027-the-kill-proof.md) says how, and what is not in it. Each line is what was seen
when it was last run; a write that is not here has not been tried yet.

`reached` says that the write came about once more: the order in which Spark's tasks write is not the
same in each run.
"""


def add(said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keeps what was seen, in the place of what was seen earlier of the same.

    Returns:
        All that is kept.
    """
    JSON.parent.mkdir(exist_ok=True)
    before = json.loads(JSON.read_text()) if JSON.exists() else []
    now = {(one["boundary"], one["death"]) for one in said}
    kept = [one for one in before if (one["boundary"], one["death"]) not in now] + said
    JSON.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    return kept


def keep(said: list[dict[str, Any]]) -> None:
    """Keeps what was seen, and writes the page anew."""
    PAGE.write_text(render(add(said)))


def wrong(said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What left a difference, or was seen by a reader."""
    return [one for one in said if one["result"] != "ok" or not one["readers_saw"].startswith("whole")]


def render(said: list[dict[str, Any]]) -> str:
    """The page."""
    seen = f"{len(said)} interruptions, {len(wrong(said))} left a difference or were seen by a reader."
    lines = [HEAD, seen, ""]

    def kind(one: dict[str, Any]) -> str:
        return str(one["death"]).partition(",")[0]

    for death, of_death in groupby(sorted(said, key=lambda one: (kind(one), one["boundary"])), kind):
        lines += [
            f"## {death[0].upper()}{death[1:]}",
            "",
            "| write | then | reached | readers saw | result |",
        ]
        lines.append("| --- | --- | --- | --- | --- |")
        for one in of_death:
            then = one["death"].partition(", then ")[2]
            reached = "yes" if one["reached"] else "no"
            lines.append(
                f"| {one['boundary']} | {then} | {reached} | {one['readers_saw']} | {one['result']} |"
            )
        lines.append("")
    return "\n".join(lines)
