"""The outbox of the version before is taken over with its events, and is not taken away while they wait."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from services.common.migrate import MigrationError
from services.ingest import migrate
from tests.services.pipeline_info.conftest import Postgres

SCHEMA = Path(migrate.__file__).with_name("migrations") / "0001_outbox.sql"
ACCEPT = """
    SELECT * FROM ingest.accept(
        ARRAY[gen_random_uuid()], ARRAY['a'], ARRAY[0], ARRAY[gen_random_uuid()], ARRAY[gen_random_uuid()],
        ARRAY[gen_random_uuid()], ARRAY[now()], ARRAY['{}'::bytea])
"""
COUNTS = "SELECT (SELECT count(*) FROM ingest.event), (SELECT count(*) FROM ingest.outbox)"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with Postgres.running("ingest") as server:
        yield server


def test_taken_over_and_back_and_forth(server: Postgres):
    dsn = server.new_database()
    migrations = migrate.migrations(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        # What the version before did at each start, with an event that waits.
        connection.execute("CREATE SCHEMA ingest")
        connection.execute(SCHEMA.read_bytes())
        connection.execute(ACCEPT)
        assert migrations.upgrade() == ("0001",)
        assert connection.execute(COUNTS).fetchone() == (1, 1)
        connection.execute(ACCEPT)
        assert connection.execute("SELECT seq FROM ingest.progress WHERE name = 'accepted'").fetchone() == (
            2,
        )

        with pytest.raises(MigrationError, match="wait to be carried"):
            migrations.downgrade("base")
        assert connection.execute(COUNTS).fetchone() == (2, 2)

        connection.execute("DELETE FROM ingest.outbox")
        assert migrations.downgrade("base") == ()
        left = "SELECT relname FROM pg_class WHERE relnamespace = 'ingest'::regnamespace AND relkind = 'r'"
        assert connection.execute(left).fetchall() == [("alembic_version",)]
        assert migrations.upgrade() == ("0001",)
        connection.execute(ACCEPT)
        assert connection.execute(COUNTS).fetchone() == (1, 1)
