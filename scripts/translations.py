"""Keeps translations in step with what they are of.

    python -m scripts.translations            fails where a section has changed since it was translated
    python -m scripts.translations --write    writes down that they are of the sections as they are now

A translation names its original in its first line, `<!-- of README.md -->`, and has before each of its
sections `<!-- section <digest> -->`: of that section of the original, in the same order. A section begins
with a heading of the first or second level. Whoever changes the English changes the translation, then writes.
"""

import hashlib
import re
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path

from tallyhouse.settings import ROOT

ORIGINAL = re.compile(r"\A<!-- of (\S+) -->\n")
SECTION = re.compile(r"^<!-- section ?([0-9a-f]*) -->\n", re.MULTILINE)


def sections(text: str) -> list[tuple[str, str]]:
    """Heading and digest of each section of an original; lines of code are no headings."""
    found: list[list[str]] = []
    fenced = False
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith("```")
        if not found or (not fenced and re.match(r"##? ", line)):
            found.append([])
        found[-1].append(line.rstrip())
    return [
        (part[0].lstrip("# "), hashlib.sha256("\n".join(part).strip().encode()).hexdigest()[:12])
        for part in found
    ]


def translations(root: Path = ROOT) -> list[Path]:
    """The translations that git tracks, or would."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.uk.md"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [root / name for name in listed.splitlines()]


def differing(translation: Path, root: Path = ROOT) -> list[str]:
    """What of a translation is not in step, a line each."""
    text = translation.read_text()
    where = translation.relative_to(root)
    named = ORIGINAL.match(text)
    if not named or not (root / named[1]).is_file():
        return [f"{where}: its first line has to be <!-- of PATH --> with the path of the original"]
    said = []
    for here, there in zip_longest(SECTION.findall(text), sections((root / named[1]).read_text())):
        if there is None:
            said.append(f"{where}: has a section more than {named[1]}")
        elif here is None:
            said.append(f"{where}: lacks the section '{there[0]}' of {named[1]}")
        elif here != there[1]:
            said.append(f"{where}: '{there[0]}' of {named[1]} has changed since it was translated")
    return said


def write(translation: Path, root: Path = ROOT) -> None:
    """Put the digests of the sections as they are now into a translation."""
    text = translation.read_text()
    named = ORIGINAL.match(text)
    if named:
        digests = iter(digest for _, digest in sections((root / named[1]).read_text()))
        translation.write_text(
            SECTION.sub(lambda found: f"<!-- section {next(digests, found[1])} -->\n", text)
        )


def main() -> int:
    """Check, or write.

    Returns:
        1 if a translation is not in step.
    """
    found = translations()
    if "--write" in sys.argv[1:]:
        for translation in found:
            write(translation)
    said = [line for translation in found for line in differing(translation)]
    if said:
        print("\n".join([*said, "translate them, then: python -m scripts.translations --write"]))
    return int(bool(said))


if __name__ == "__main__":
    sys.exit(main())
