"""JSON Schemas of event types, each in numbered versions: `<folder>/<event type>/<version>.json`."""

from __future__ import annotations

from pathlib import Path

import jsonschema_rs
import orjson

from services.ingest.events import Sent, invalid, payload_of


class Schemas:
    """The schemas of a folder, read once.

    A version is never changed once events were taken by it; a new form of a type is a new file.

    Args:
        folder: Where they are; it may be missing.
        required: Whether a type without a schema is refused.

    Raises:
        ValueError: A file is no JSON Schema, or its name is no version.
    """

    def __init__(self, folder: Path, *, required: bool = False) -> None:
        self._required = required
        self._types: dict[str, dict[int, jsonschema_rs.Validator]] = {}
        for file in sorted(folder.glob("*/*.json")):
            if not file.stem.isdecimal() or int(file.stem) < 1:
                raise ValueError(f"{file}: a schema's file is called by its version, 1.json and so on")
            try:
                validator = jsonschema_rs.validator_for(orjson.loads(file.read_bytes()))
            except (ValueError, jsonschema_rs.ValidationError) as error:
                raise ValueError(f"{file}: is no JSON Schema: {error}") from error
            self._types.setdefault(file.parent.name, {})[int(file.stem)] = validator

    def listing(self) -> dict[str, list[int]]:
        """Versions by type."""
        return {name: sorted(versions) for name, versions in self._types.items()}

    def check(self, sent: Sent, where: str = "body") -> int:
        """See that an event keeps the schema that it names, or else the newest of its type.

        Returns:
            The version that it keeps; 0 when its type has none.

        Raises:
            Problem: 422.
        """
        versions = self._types.get(sent.event_type)
        if versions is None:
            if self._required or sent.schema_version is not None:
                raise invalid(f"{where}.event_type", f"the type {sent.event_type} has no schema here")
            return 0
        version = sent.schema_version or max(versions)
        if version not in versions:
            raise invalid(
                f"{where}.schema_version", f"{sent.event_type} has the versions {sorted(versions)} only"
            )
        wrong = next(iter(versions[version].iter_errors(payload_of(sent))), None)
        if wrong is not None:
            path = ".".join(map(str, [where, "payload", *wrong.instance_path]))
            raise invalid(path, f"{wrong.message} (schema {sent.event_type}/{version})")
        return version
