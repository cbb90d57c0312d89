"""Trying again, and leaving alone what keeps failing."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable


class UnavailableError(Exception):
    """Something that a service depends on does not answer.

    Args:
        message: One line: what, where.
        transient: Whether trying again at once may help.
        retry_after: Seconds after which a client should try again.
    """

    def __init__(self, message: str, *, transient: bool = True, retry_after: float = 1) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after = retry_after


class CircuitOpenError(UnavailableError):
    """The dependency failed so often that it is left alone for a while."""


class Breaker:
    """A circuit breaker: after `failures` in a row it refuses for `seconds`, then lets one call try.

    Args:
        what: The dependency's name, for the message.
        failures: Failures in a row that open it.
        seconds: How long it stays open.
        clock: A monotonic clock in seconds.
    """

    def __init__(
        self, what: str, *, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what, self._most, self._seconds, self._clock = what, failures, seconds, clock
        self._lock = threading.Lock()
        self._failed = 0
        self._opened_at: float | None = None
        self._trying = False

    @property
    def open(self) -> bool:
        """Whether calls are refused."""
        return self._opened_at is not None

    def before(self) -> None:
        """Raise `CircuitOpenError` unless a call may be made."""
        with self._lock:
            if self._opened_at is None:
                return
            left = self._opened_at + self._seconds - self._clock()
            if left > 0 or self._trying:
                raise CircuitOpenError(
                    f"{self._what} failed {self._failed} times in a row and is left alone for a while",
                    transient=False,
                    retry_after=max(left, 1),
                )
            self._trying = True

    def succeeded(self) -> None:
        """Note that a call worked."""
        with self._lock:
            self._failed, self._opened_at, self._trying = 0, None, False

    def failed(self) -> None:
        """Note that a call did not."""
        with self._lock:
            self._failed += 1
            self._trying = False
            if self._failed >= self._most:
                self._opened_at = self._clock()


def attempt[T](
    work: Callable[[], T],
    *,
    breaker: Breaker,
    attempts: int,
    first_wait: float = 0.05,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Do `work`, again when it is unavailable for a moment, with waits that double and vary.

    Raises:
        UnavailableError: The last one, or the breaker's.
    """
    for number in range(attempts):
        breaker.before()
        try:
            result = work()
        except UnavailableError as error:
            breaker.failed()
            if not error.transient or number == attempts - 1:
                raise
        except BaseException:
            # The dependency answered, if with an error of the caller's.
            breaker.succeeded()
            raise
        else:
            breaker.succeeded()
            return result
        sleep(first_wait * 2**number * random.uniform(0.5, 1.5))  # noqa: S311 - only to spread the tries
    raise AssertionError("attempts is at least 1")
