"""Metrics of the pipelines' runs for Prometheus, read from the warehouse."""
