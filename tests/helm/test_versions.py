"""infrastructure/config/load-versions.sh reads versions.yaml with either yq and without one."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.charts import ROOT
from scripts.tools import versions, yq

SCRIPT = ROOT / "infrastructure/config/load-versions.sh"


def expected() -> dict[str, str]:
    return {
        f"{group}_{name}".upper(): value for group, pins in versions().items() for name, value in pins.items()
    }


def load(path: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", SCRIPT], env={"PATH": path} | more, capture_output=True, text=True, check=False
    )


def without_yq(tmp_path: Path) -> str:
    """A PATH that has what the script needs, and no yq."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "awk", "dirname", "cat"):
        (folder / name).symlink_to(shutil.which(name) or "")
    return str(folder)


def parsed(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_without_yq(tmp_path: Path) -> None:
    assert parsed(load(without_yq(tmp_path)).stdout) == expected()


def test_with_the_yq_of_go(tmp_path: Path) -> None:
    folder = without_yq(tmp_path)
    (Path(folder) / "yq").symlink_to(yq())
    assert parsed(load(folder).stdout) == expected()


def test_with_what_this_machine_has() -> None:
    assert parsed(load(os.environ["PATH"]).stdout) == expected()


def test_a_script_that_sources_it_has_the_variables(tmp_path: Path) -> None:
    said = subprocess.run(
        ["bash", "-c", f'source "{SCRIPT}"; echo "$TOOLS_HELM $CLUSTER_INGRESS_NGINX"'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.split() == [versions()["tools"]["helm"], versions()["cluster"]["ingress_nginx"]]


@pytest.mark.parametrize("text", ["tools:\n  helm v3\n", "tools:\n   helm: v3\n"])
def test_a_file_that_it_cannot_read_is_an_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "versions.yaml"
    file.write_text(text)
    failed = load(without_yq(tmp_path), VERSIONS_FILE=str(file))
    assert failed.returncode != 0
    assert "could not be read" in failed.stderr
