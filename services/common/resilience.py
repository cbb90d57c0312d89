"""Trying again, and leaving alone what keeps failing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tenacity import (
    AsyncRetrying,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)


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

    Calls of several threads go on side by side: docs/decisions/0019 says what libraries do there.

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

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Around a call, awaited or not; it is not made while the dependency is left alone.

        Raises:
            UnavailableError: What the call raised, which counts as a failure; any other error does not, for
                the dependency answered, if with an error of the caller's.
            CircuitOpenError: It is left alone.
        """
        self._before()
        try:
            yield
        except UnavailableError:
            self._failure()
            raise
        except BaseException:
            self._success()
            raise
        self._success()

    def _before(self) -> None:
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

    def _success(self) -> None:
        with self._lock:
            self._failed, self._opened_at, self._trying = 0, None, False

    def _failure(self) -> None:
        with self._lock:
            self._failed += 1
            self._trying = False
            if self._failed >= self._most:
                self._opened_at = self._clock()


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, UnavailableError) and error.transient


_WAITS = wait_exponential(multiplier=0.04) + wait_random(0, 0.04)
_RETRY = retry_if_exception(_is_transient)


def again(attempts: int, *, sleep: Callable[[float], None] = time.sleep) -> Retrying:
    """Calls what it is given, again when that is unavailable for a moment; waits double and vary.

    Args:
        attempts: How often it is called at most; the last error is raised.
        sleep: Waits for so many seconds.
    """
    return Retrying(stop=stop_after_attempt(attempts), wait=_WAITS, retry=_RETRY, sleep=sleep, reraise=True)


def again_async(attempts: int) -> AsyncRetrying:
    """As `again`, for work that is awaited."""
    return AsyncRetrying(stop=stop_after_attempt(attempts), wait=_WAITS, retry=_RETRY, reraise=True)
