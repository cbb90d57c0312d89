"""The star schema's models, one module each: pure functions of typed rows.

Each module has `SCHEMA`, the columns of `dwh.<model>` in order, and `build`, which makes the rows to
upsert by primary key out of the current rows of the tables that it names.
"""
