"""Hooks: from an Airflow connection to what the package under `include/` works with."""
