"""The configuration that a run was started with, held against what its DAG asks for."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

from tallyhouse.errors import TallyhouseError

if TYPE_CHECKING:
    from airflow.sdk import Context


def check_conf(context: Context) -> None:
    """Refuses a configuration that has keys which the DAG does not know.

    Airflow takes any: a misspelt `full_refresh` would be an ordinary run, without a word.

    Raises:
        TallyhouseError: There is such a key; the message names the nearest one.
    """
    dag_run = context["dag_run"]
    known = list(context["dag"].params)
    unknown = sorted(key for key in dag_run.conf or {} if key not in known)
    if unknown:
        there_are = f"There are: {', '.join(sorted(known))}" if known else "This DAG takes none"
        raise TallyhouseError(
            f"no parameter {named_with_nearest(unknown, known)}",
            where=f"configuration of {dag_run.dag_id} {dag_run.run_id}",
            remedy=f"{there_are}. Correct it and start the run again; nothing was done",
        )


def named_with_nearest(unknown: Iterable[str], known: Iterable[str]) -> str:
    """Unknown names, each with the known one that it is most like: `'tabels' (tables?)`."""
    known = list(known)
    found = []
    for name in unknown:
        nearest = get_close_matches(name, known, n=1)
        found.append(f"{name!r} ({nearest[0]}?)" if nearest else repr(name))
    return ", ".join(found)
