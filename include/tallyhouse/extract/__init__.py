"""Extraction: one consistent snapshot of a table's window, streamed into an immutable raw batch."""
