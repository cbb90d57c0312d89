"""Parts of the stack bring with them what they need, and no more."""

import pytest

from scripts.stack.context import MYSQL_STORES, Stack, StackError
from scripts.stack.lifecycle import chosen
from scripts.stack.provision import steps
from scripts.stack.service import GROUPS
from scripts.stack.services import services


def names(*groups: str) -> tuple[set[str], set[str]]:
    stack = Stack()
    kept, to_do = chosen(services(stack), steps(stack), groups)
    return {service.name for service in kept}, {step.name for step in to_do}


def test_events_bring_their_stores_and_nothing_of_the_nightly_runs() -> None:
    kept, to_do = names("events")
    assert kept == {"kafka", "ingest", "ingest-relay", "consumer", "postgres", "minio", "clickhouse"}
    assert to_do == {"databases", "bucket"}


def test_the_stores_come_with_their_schemas_and_without_who_uses_them() -> None:
    kept, to_do = names("stores")
    assert kept == {*(f"mysql-{store}" for store in MYSQL_STORES), "postgres", "minio", "clickhouse"}
    assert to_do == {step.name for step in steps(Stack())}


def test_the_nightly_runs_need_no_events() -> None:
    kept, to_do = names("nightly")
    assert not kept & {"kafka", "ingest", "ingest-relay", "consumer"}
    assert to_do == {step.name for step in steps(Stack())}


def test_all_groups_are_all_services() -> None:
    assert names(*GROUPS)[0] == {service.name for service in services(Stack())}


def test_a_group_that_is_none_is_named() -> None:
    with pytest.raises(StackError, match=r"none is called nigtly; there are nightly"):
        names("nigtly")
