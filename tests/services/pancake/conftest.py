"""A PostgreSQL of the tests' own, a migrated database in it, the service over that."""

from collections.abc import Callable, Iterator

import psycopg
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from services.pancake.app import create_app
from services.pancake.migrate import migrations
from services.pancake.settings import Settings
from tests.services.pipeline_info.conftest import Postgres

type Make = Callable[..., TestClient]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres.running("pancake") as server:
        yield server


@pytest.fixture(scope="module")
def empty(postgres: Postgres) -> Callable[[], Settings]:
    """Makes the settings of an empty database."""
    return lambda: settings_of(postgres, postgres.new_database())


def settings_of(server: Postgres, dsn: str, **more: object) -> Settings:
    fields = psycopg.conninfo.conninfo_to_dict(dsn)
    return Settings.model_validate(
        {
            "db_host": "127.0.0.1",
            "db_port": server.port,
            "db_user": "postgres",
            "db_password": SecretStr("x"),
            "db_name": fields["dbname"],
            "rate_per_second": 0,
            "store_timeout": 5,
            **more,
        }
    )


def dsn_of(settings: Settings) -> str:
    return f"host=127.0.0.1 port={settings.db_port} user=postgres dbname={settings.db_name}"


@pytest.fixture(scope="module")
def database(empty: Callable[[], Settings]) -> Settings:
    settings = empty()
    migrations(settings).upgrade()
    return settings


@pytest.fixture
def table(database: Settings) -> Iterator[psycopg.Connection]:
    """Plain SQL on the database, whose table is empty."""
    with psycopg.connect(dsn_of(database), autocommit=True) as connection:
        connection.execute("TRUNCATE pancakes RESTART IDENTITY")
        yield connection


@pytest.fixture
def make(database: Settings, table: psycopg.Connection) -> Iterator[Make]:
    """Makes a client of the service over the empty table, with some settings changed."""
    clients: list[TestClient] = []

    def made(**changes: object) -> TestClient:
        app = create_app(database.model_copy(update=changes))
        client = TestClient(app, base_url="http://127.0.0.1:8001", raise_server_exceptions=False)
        clients.append(client.__enter__())
        return client

    yield made
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make: Make) -> TestClient:
    return make()


PANCAKE = {"name": "Fluffy buttermilk", "fluffiness_level": 8, "syrup_type": "maple"}
