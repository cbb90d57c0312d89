"""The one error type whose message is meant for a person."""


class TallyhouseError(Exception):
    """Says in one line what went wrong, where (table, run), and how to mend it."""

    def __init__(self, what: str, *, where: str, remedy: str) -> None:
        super().__init__(f"{where}: {what.rstrip('.')}. {remedy}")
        self.what = what
        self.where = where
        self.remedy = remedy
