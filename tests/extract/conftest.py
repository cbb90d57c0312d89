"""Extraction is tested on MariaDB 11.4 and on MySQL 9.7, whichever of them the stack's stores run on."""

import pytest

from tallyhouse.settings import Settings


@pytest.fixture(params=["mariadb", "mysql"])
def mysql_settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """The stack's orders server, or that of the other engine."""
    if request.param == settings.stores_engine:
        return settings
    other: Settings = request.getfixturevalue("other_engine")
    return other
