"""Trying again, and leaving alone what keeps failing."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator


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
    tries = _Tries(breaker, attempts, first_wait)
    for _ in tries:
        with tries:
            return work()
        sleep(tries.wait)
    raise AssertionError("attempts is at least 1")


async def attempt_async[T](
    work: Callable[[], Awaitable[T]], *, breaker: Breaker, attempts: int, first_wait: float = 0.05
) -> T:
    """As `attempt`, for work that is awaited.

    Raises:
        UnavailableError: The last one, or the breaker's.
    """
    tries = _Tries(breaker, attempts, first_wait)
    for _ in tries:
        with tries:
            return await work()
        await asyncio.sleep(tries.wait)
    raise AssertionError("attempts is at least 1")


class _Tries:
    """The tries of one call; `with` around each tells the breaker, and stops an error that is tried again."""

    def __init__(self, breaker: Breaker, attempts: int, first_wait: float) -> None:
        self._breaker, self._attempts, self._first_wait = breaker, attempts, first_wait
        self._number = 0

    def __iter__(self) -> Iterator[int]:
        for number in range(self._attempts):
            self._breaker.before()
            self._number = number
            yield number

    @property
    def wait(self) -> float:
        """Seconds to wait after the try that failed."""
        spread = random.uniform(0.5, 1.5)  # noqa: S311 - only to spread the tries
        return float(self._first_wait * 2**self._number * spread)

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if not isinstance(error, UnavailableError):
            # It worked, or the dependency answered, if with an error of the caller's.
            self._breaker.succeeded()
            return False
        self._breaker.failed()
        return error.transient and self._number < self._attempts - 1
