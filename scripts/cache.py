"""The cache: each thing in it is there whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def made_whole(folder: Path) -> Iterator[Path]:
    """Makes a folder beside its place, and moves it there when the block has filled it.

    A kill leaves only a hidden folder that nothing reads. Of two that make the same one, the first stays.

    Args:
        folder: Its place.

    Yields:
        The empty folder to fill.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield making
        try:
            making.rename(folder)
        except OSError:
            if not folder.exists():  # another one was quicker: that is fine
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
