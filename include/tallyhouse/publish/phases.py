"""Where the time of a publish goes, for its log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic


class Phases:
    """Adds up what each phase took; as text, `stage 1.2 s, ods 0.8 s, rest 0.1 s`.

    Attributes:
        seconds: By phase, in the order in which they began first.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = monotonic()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Counts the block as the phase's."""
        began = monotonic()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + monotonic() - began

    def __str__(self) -> str:
        """What each took, and what was between them."""
        rest = monotonic() - self._began - sum(self.seconds.values())
        return ", ".join(
            f"{phase} {seconds:.2f} s" for phase, seconds in [*self.seconds.items(), ("rest", rest)]
        )
