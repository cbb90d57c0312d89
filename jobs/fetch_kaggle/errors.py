"""What can go wrong, each in one line: what happened, where, what to do."""


class FetchError(Exception):
    """A dataset could not be fetched.

    Args:
        message: What, where, remedy.
        transient: Whether trying again may help.
        wait: Seconds that the server asked to wait.
    """

    def __init__(self, message: str, *, transient: bool = False, wait: float | None = None) -> None:
        super().__init__(message)
        self.transient = transient
        self.wait = wait
