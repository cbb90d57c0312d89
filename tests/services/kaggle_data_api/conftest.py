"""A PostgreSQL of the tests' own, a migrated database in it, the service over that."""

from collections.abc import Callable, Iterator

import psycopg
import pytest
from fastapi.testclient import TestClient

from services.kaggle_data_api.app import create_app
from services.kaggle_data_api.migrate import migrations
from services.kaggle_data_api.settings import Settings
from tests.services.pipeline_info.conftest import Postgres

type Make = Callable[..., TestClient]
DATASET = {"name": "Brazilian E-Commerce"}


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres.running("kaggle-data") as server:
        yield server


@pytest.fixture(scope="module")
def empty(postgres: Postgres) -> Callable[[], Settings]:
    """Makes the settings of an empty database."""
    return lambda: settings_of(postgres, postgres.new_database())


def settings_of(server: Postgres, dsn: str, **more: object) -> Settings:
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    url = f"postgresql://postgres:x@127.0.0.1:{server.port}/{name}"
    return Settings.model_validate({"database_url": url, "rate_per_second": 0, "store_timeout": 5, **more})


def url_of(settings: Settings) -> str:
    return settings.database_url.get_secret_value()


@pytest.fixture(scope="module")
def database(empty: Callable[[], Settings]) -> Settings:
    settings = empty()
    assert migrations(settings).upgrade() == ("0003",)
    return settings


@pytest.fixture
def table(database: Settings) -> Iterator[psycopg.Connection]:
    """Plain SQL on the database, whose table is empty."""
    with psycopg.connect(url_of(database), autocommit=True) as connection:
        connection.execute("TRUNCATE datasets RESTART IDENTITY")
        yield connection


@pytest.fixture
def make(database: Settings, table: psycopg.Connection) -> Iterator[Make]:
    """Makes a client of the service over the empty table, with some settings changed."""
    clients: list[TestClient] = []

    def made(**changes: object) -> TestClient:
        app = create_app(database.model_copy(update=changes))
        client = TestClient(app, base_url="http://127.0.0.1:3000", raise_server_exceptions=False)
        clients.append(client.__enter__())
        return client

    yield made
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make: Make) -> TestClient:
    return make()
