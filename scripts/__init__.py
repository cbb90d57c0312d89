"""Commands for people: set-up, the native stack, generators."""
