"""Tallyhouse: nightly ETL that accounts for every row. This package imports no Airflow."""
