"""The one error type whose message is meant for a person."""


class TallyhouseError(Exception):
    """Says in one line what went wrong, where (table, run), and how to mend it.

    Attributes:
        what: What went wrong.
        where: The table or subject, and the run.
        remedy: What to do about it.
        transient: Whether trying again later may help, as with a server that is down.
    """

    def __init__(self, what: str, *, where: str, remedy: str, transient: bool = False) -> None:
        super().__init__(f"{where}: {what.rstrip('.')}. {remedy}")
        self.what = what
        self.where = where
        self.remedy = remedy
        self.transient = transient


def first_line(error: BaseException) -> str:
    """The first line of a foreign error's message, or its type where it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
