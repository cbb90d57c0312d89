"""What the Oracle backend sends. The contract tests run on it too, on the same stand-in."""

from datetime import UTC, datetime

import pytest

from services.pipeline_info.backends.oracle import OraclePipelineRepository, identifier
from services.pipeline_info.models import PipelineInfo, RunFilter
from services.pipeline_info.repository import Cursor, StoreUnavailableError
from tests.services.pipeline_info.oracle_stand_in import DatabaseError, StandIn

pytestmark = pytest.mark.oracle
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def driver(tmp_path) -> StandIn:
    return StandIn(tmp_path / "oracle.db")


def store(driver: StandIn, **options) -> OraclePipelineRepository:
    return OraclePipelineRepository(dsn="h:1521/s", user="u", password="p", driver=driver, **options)


def test_a_page_by_key_in_oracles_words(driver: StandIn):
    wanted = RunFilter(pipeline_name="x' OR '1'='1", start_from=START, only_environments=("dev",))
    store(driver).get_pipeline_info(wanted, limit=10, offset=2, after=Cursor(START, "i"))
    (call,) = driver.calls
    assert call.statement == (
        "SELECT ID, START_UTC, DOC FROM PIPELINE_RUN WHERE PIPELINE_NAME = :b1 AND ENVIRONMENT IN (:b2)"
        " AND START_UTC >= :b3 AND START_UTC <= :b4 AND (START_UTC < :b5 OR ID < :b6)"
        " ORDER BY START_UTC DESC, ID DESC OFFSET :b7 ROWS FETCH NEXT :b8 ROWS ONLY"
    )
    assert call.binds["b1"] == "x' OR '1'='1"
    assert call.types == dict.fromkeys(("b3", "b4", "b5"), "timestamp")


def test_columns_of_a_table_that_was_there_before(driver: StandIn):
    names = {"id": "RUN_KEY", "start_utc": "BEGAN_AT", "doc": "BODY"}
    mapped = store(driver, table="OPS.RUNS", column_map=names)
    with pytest.raises(Exception, match="no such table"):
        mapped.get_pipeline_info(RunFilter(date_code="1"), limit=1)
    assert driver.calls[0].statement == (
        "SELECT RUN_KEY, BEGAN_AT, BODY FROM OPS.RUNS WHERE DATE_CODE = :b1"
        " ORDER BY BEGAN_AT DESC, RUN_KEY DESC OFFSET :b2 ROWS FETCH NEXT :b3 ROWS ONLY"
    )


@pytest.mark.parametrize("name", ["", "a b", "a;DROP TABLE b", 'a"b', "a.b.c", "1a", "a-b", "ä", "a" * 129])
def test_a_name_that_could_be_more_than_a_name_is_refused(driver: StandIn, name: str):
    with pytest.raises(ValueError, match="no identifier"):
        identifier(name)
    for options in ({"table": name}, {"key_table": name}, {"column_map": {"id": name}}):
        with pytest.raises(ValueError, match="no identifier"):
            store(driver, **options)


def test_a_map_of_unknown_columns_is_refused(driver: StandIn):
    with pytest.raises(ValueError, match="no column nothing"):
        store(driver, column_map={"nothing": "X"})


def test_one_pool_is_made_at_the_first_use_and_closed(driver: StandIn):
    repository = store(driver, pool_size=3, timeout=2)
    assert driver.pools == []
    repository.ping()
    repository.ping()
    (options,) = driver.pools
    assert (options["min"], options["max"], options["wait_timeout"]) == (0, 3, 2000)
    assert repository.pool() == {"in_use": 0, "idle": 1}
    repository.close()
    assert repository.pool() == {}


def test_an_insert_claims_its_key_first_and_binds_long_texts_as_clob(driver: StandIn):
    run = PipelineInfo(start_utc=START, log_file="x" * 2000, output_file="y" * 2040)
    store(driver).insert_pipeline_info(run, idempotency_key="k")
    of_old, claim, look, insert = driver.calls
    assert of_old.binds == {"b1": "k"}
    assert claim.statement.startswith("INSERT INTO PIPELINE_RUN_KEY")
    assert look.statement.endswith("WHERE k.IDEMPOTENCY_KEY IN (:b1)")
    assert insert.types["b13"] == "clob"


def test_an_error_of_the_database_is_an_unavailable_store(driver: StandIn, monkeypatch):
    def refuse(**_: object) -> None:
        raise DatabaseError("ORA-12541: no listener\nmore")

    monkeypatch.setattr(driver, "create_pool", refuse)
    with pytest.raises(StoreUnavailableError, match=r"ORA-12541: no listener$"):
        store(driver).ping()
