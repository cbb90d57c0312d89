"""What the person in front of the terminal sees of a load."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Progress:
    """A line per table with its rows so far; nothing in a file or a pipe.

    Args:
        console: where it is shown.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.rows: dict[tuple[str, str], int] = {}
        self._bars = Bars(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            TextColumn("{task.completed:>12,.0f} rows"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        self._bars.stop()

    @property
    def total(self) -> int:
        """Rows written so far."""
        return sum(self.rows.values())

    def say(self, text: str) -> None:
        """One line for the reader."""
        self.console.print(text)

    def advance(self, store: str, table: str, rows: int) -> None:
        """Some more rows of a table are in its store."""
        key = (store, table)
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(f"{store:<9}{table:<16}", total=None)
        self.rows[key] = self.rows.get(key, 0) + rows
        self._bars.advance(self._tasks[key], rows)

    def _finish(self) -> None:
        for key, task in self._tasks.items():
            self._bars.update(task, total=self.rows[key])
