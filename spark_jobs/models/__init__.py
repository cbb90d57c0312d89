"""The star schema's models, one module each: pure functions of typed rows.

Each module has `build`, which makes the rows to upsert by primary key out of the current rows of the inputs
that the model's definition names (`include/pipelines/<pipeline>/<model>.yaml`); so do its arguments. What
it returns is brought to the definition's columns, order and types by the caller.
"""
