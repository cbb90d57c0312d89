"""A translation that has fallen behind its original is named, section by section."""

import subprocess
from pathlib import Path

import pytest

from scripts import translations

ENGLISH = "# Title\n\nText.\n\n## One\n\n```console\n# no heading\n```\n\n## Two\n\nMore.\n"
MARK = "<!-- section -->\n"
UKRAINIAN = f"<!-- of guide.md -->\n{MARK}# Назва\n\n{MARK}## Один\n\n{MARK}## Два\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "guide.md").write_text(ENGLISH)
    (tmp_path / "guide.uk.md").write_text(UKRAINIAN)
    return tmp_path


def said(root: Path) -> list[str]:
    (found,) = translations.translations(root)
    return translations.differing(found, root)


def test_one_that_was_never_compared_is_behind_in_every_section(root: Path) -> None:
    assert [line.split("'")[1] for line in said(root)] == ["Title", "One", "Two"]


def test_one_that_is_in_step_stays_so_until_a_section_changes(root: Path) -> None:
    translations.write(root / "guide.uk.md", root)
    assert said(root) == []
    (root / "guide.md").write_text(ENGLISH.replace("More.", "More, and another."))
    assert said(root) == ["guide.uk.md: 'Two' of guide.md has changed since it was translated"]


def test_a_section_more_or_less_is_named(root: Path) -> None:
    translations.write(root / "guide.uk.md", root)
    (root / "guide.md").write_text(ENGLISH + "\n## Three\n")
    assert said(root)[-1] == "guide.uk.md: lacks the section 'Three' of guide.md"
    (root / "guide.md").write_text(ENGLISH.split("## Two", maxsplit=1)[0])
    assert said(root)[-1] == "guide.uk.md: has a section more than guide.md"


def test_one_that_names_no_original_is_refused(root: Path) -> None:
    (root / "guide.uk.md").write_text("# Назва\n")
    assert "its first line has to be" in said(root)[0]
    (root / "guide.uk.md").write_text("<!-- of other.md -->\n")
    assert "its first line has to be" in said(root)[0]


def test_the_repository_has_three_translations() -> None:
    names = [str(file.relative_to(translations.ROOT)) for file in translations.translations()]
    assert names == ["README.uk.md", "docs/guides/databases.uk.md", "docs/guides/kubernetes.uk.md"]
