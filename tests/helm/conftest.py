"""The charts with their libraries in place, once for all tests."""

import shutil
from pathlib import Path

import pytest

from scripts import charts

HERE = Path(__file__).parent


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    charts.build()


@pytest.fixture(scope="session")
def sample(built: None) -> Path:
    """The chart that uses every template of the libraries."""
    charts.put_in_place(HERE / "sample")
    return HERE / "sample"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A copy of infrastructure/helm and its generators, to be changed, in a folder of its own."""
    root = tmp_path / "repository"
    shutil.copytree(charts.HELM, root / "infrastructure/helm", symlinks=False)
    shutil.copytree(HERE / "sample", root / "tests/helm/sample")
    (root / "scripts").mkdir()
    for name in ("new_chart.sh", "new-service-chart.sh", "new-job-chart.sh"):
        shutil.copy(charts.ROOT / "scripts" / name, root / "scripts" / name)
    return root
