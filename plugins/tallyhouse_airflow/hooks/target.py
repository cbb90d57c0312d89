"""Targets behind Airflow's connections."""

from __future__ import annotations

from tallyhouse.publish.target import LakeAccess, Place, Target, load
from tallyhouse_airflow.hooks.failures import find_connection, refused
from tallyhouse_airflow.hooks.lake import LakeHook


def open_target(name: str, conn_id: str, lake: LakeHook) -> Target:
    """Connects to a target; who calls closes it.

    Args:
        name: Such as `clickhouse`.
        conn_id: Its connection.
        lake: The lake's hook: a target reads the lake by itself.

    Raises:
        AirflowException: It does not answer.
    """
    conn = find_connection(conn_id)
    place = Place(
        conn.host or "",
        conn.port,
        conn.login or "",
        conn.password or "",
        conn.schema or "",
        conn.extra_dejson,
    )
    try:
        return load(name).open(place, lake.get_lake(), LakeAccess(**lake.access()))
    except Exception as error:  # drivers pass on whatever their transport raised
        raise refused(conn_id, error) from error
