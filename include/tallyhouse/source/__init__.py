"""A database of one's own as a source: its catalogue and its data become contract, suite and DAG."""
