"""Spark jobs: pure DataFrame functions, and the mains that spark-submit starts.

`check.py` runs the Great Expectations gate over a run's raw batches; `transform.py` turns raw into
accepted and accepted into the increments of the star schema.
"""
