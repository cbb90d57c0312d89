"""A plain comparison of what a source has with what was taken of it, with nothing of the project."""

from __future__ import annotations

from typing import Any


def differences(cursor: Any, table: str, taken: dict[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """Keys whose values differ: what the source has, and what was taken; either may be missing.

    Args:
        cursor: Of the source, in no transaction.
        table: With columns `id` and `v`.
        taken: Values by key.
    """
    cursor.execute(f"SELECT id, v FROM {table}")
    there = {str(key): str(value) for key, value in cursor.fetchall()}
    return {
        key: (there.get(key), taken.get(key))
        for key in there.keys() | taken.keys()
        if there.get(key) != taken.get(key)
    }
