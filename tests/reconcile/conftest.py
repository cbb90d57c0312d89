"""A source, a warehouse and runs between them, as extraction's tests have."""

from tests.extract.conftest import nights

__all__ = ["nights"]
