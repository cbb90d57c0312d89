"""Fixtures that tests of several services share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.event_servers import Servers, Space, servers

__all__ = ["servers", "space"]


@pytest.fixture
def space(servers: Servers, tmp_path: Path) -> Iterator[Space]:
    space = Space(servers, tmp_path)
    yield space
    space.stop()
