"""The native stack: fetches, starts, watches and stops every server of the design, without Docker."""
