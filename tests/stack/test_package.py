"""The package is installed: its commands need no PYTHONPATH, and elsewhere pip can install it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tallyhouse.settings import ROOT, load_settings

CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.mark.parametrize("module", ["tallyhouse.ledger", "tallyhouse.migrate", "techmarket"])
def test_a_command_of_the_package_needs_no_pythonpath(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=CLEAN, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_pip_installs_the_package(tmp_path: Path) -> None:
    uv = next(load_settings().cache.glob("tools/uv-*/bin/uv"), "uv")
    install = [str(uv), "pip", "install", "--no-deps", "--target", str(tmp_path / "site"), str(ROOT)]
    subprocess.run(install, check=True, capture_output=True)
    where = "import tallyhouse; print(tallyhouse.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", where],
        cwd=tmp_path,
        env=CLEAN | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(tmp_path))
