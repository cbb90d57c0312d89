"""The gate: Great Expectations suites over raw batches, and the Data Docs of each run.

`suites` is light; `gate` and `data_docs` import Great Expectations, which takes seconds, so only the
job that runs the gate imports them.
"""
