"""The object store that raw, accepted and increments live in."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from tallyhouse.errors import TallyhouseError, first_line

CONNECT_SECONDS = 5.0
REQUEST_SECONDS = 60.0
_BATCH_BYTES = 4 << 20


@dataclass(frozen=True)
class Lake:
    """A bucket, or a folder that stands in for one.

    Attributes:
        filesystem: Where it is.
        root: The bucket's name, or the folder's path.
    """

    filesystem: fs.FileSystem = field(repr=False)
    root: str

    @classmethod
    def s3(
        cls, bucket: str, *, endpoint: str, access_key: str, secret_key: str, region: str = "us-east-1"
    ) -> Lake:
        """A bucket of any S3 server.

        Args:
            bucket: Its name.
            endpoint: With its scheme, such as `http://127.0.0.1:9000`.
            access_key: The account.
            secret_key: Its secret.
            region: What the server calls itself.
        """
        scheme, _, host = endpoint.rpartition("://")
        filesystem = fs.S3FileSystem(
            access_key=access_key,
            secret_key=secret_key,
            region=region,
            scheme=scheme or "https",
            endpoint_override=host,
            connect_timeout=CONNECT_SECONDS,
            request_timeout=REQUEST_SECONDS,
        )
        return cls(filesystem, bucket)

    @classmethod
    def local(cls, folder: str) -> Lake:
        """A folder of this machine, for tests."""
        return cls(fs.LocalFileSystem(), folder)

    def path(self, key: str) -> str:
        """The path of a key as the file system wants it."""
        return f"{self.root}/{key}"

    def check(self) -> None:
        """Makes sure that the bucket can be reached.

        Raises:
            TallyhouseError: The server does not answer, refuses the account, or has no such bucket.
        """
        try:
            info = self.filesystem.get_file_info(self.root)
        except OSError as error:
            raise TallyhouseError(
                f"the lake does not answer or refuses the account ({first_line(error)})",
                remedy="Check that it is up (`make status`) and what the connection s3_lake says",
                transient=True,
            ) from error
        if info.type == fs.FileType.NotFound:
            raise TallyhouseError(
                f"bucket {self.root!r} is not there",
                remedy="Create it (`make start` does) or correct the bucket of the connection s3_lake",
            )

    @contextmanager
    def answering(self, table: str) -> Iterator[None]:
        """Says of errors of the lake in the block that they are its, and of which table.

        Raises:
            TallyhouseError: The server went away, refused, has no room, or gave back something else.
        """
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise TallyhouseError(
                f"the lake failed ({first_line(error)})",
                remedy="Nothing was committed; check that it is up (`make status`) and has room, then clear "
                "the task to take the table again",
                transient=True,
                table=table,
            ) from error

    def keys(self, prefix: str) -> list[str]:
        """Keys of the objects below a prefix, sorted; empty when there are none."""
        selector = fs.FileSelector(self.path(prefix), recursive=True, allow_not_found=True)
        files = [info.path for info in self.filesystem.get_file_info(selector) if info.is_file]
        return sorted(path[len(self.root) + 1 :] for path in files)

    def read_json(self, key: str) -> Any:
        """The content of a JSON object."""
        with self.filesystem.open_input_stream(self.path(key)) as stream:
            return json.loads(stream.read())

    def write_json(self, key: str, content: Any) -> None:
        """Writes a JSON object; on an object store it appears whole or not at all."""
        self._make_folder(key)
        with self.filesystem.open_output_stream(self.path(key)) as stream:
            stream.write(json.dumps(content, ensure_ascii=False, indent=2).encode())

    def size(self, key: str) -> int | None:
        """Bytes of an object; None where there is none."""
        info = self.filesystem.get_file_info(self.path(key))
        return int(info.size) if info.is_file else None

    def sha256(self, key: str) -> str:
        """The checksum of an object as it is in the store, hexadecimal."""
        found = hashlib.sha256()
        with self.filesystem.open_input_stream(self.path(key)) as stream:
            while data := stream.read(1 << 20):
                found.update(data)
        return found.hexdigest()

    def row_count(self, key: str) -> int:
        """Rows of a Parquet object, read back from its footer in the store."""
        with self.filesystem.open_input_file(self.path(key)) as file:
            return int(pq.ParquetFile(file).metadata.num_rows)

    def read_batches(
        self, keys: list[str], *, batch_rows: int = 50_000, columns: list[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Rows of Parquet objects, in bounded batches, one object after the other; all columns or those.

        Args:
            keys: The objects.
            batch_rows: Rows of a batch at most; fewer where rows are long, so that it has about 4 MB.
            columns: Those that are wanted; None for all.
        """
        for key in keys:
            with self.filesystem.open_input_file(self.path(key)) as file:
                parquet = pq.ParquetFile(file)
                for number in range(parquet.num_row_groups):
                    group = parquet.metadata.row_group(number)
                    fit = max(1, _BATCH_BYTES * group.num_rows // max(1, group.total_byte_size))
                    yield from parquet.iter_batches(
                        min(batch_rows, fit), row_groups=[number], columns=columns
                    )

    @contextmanager
    def create(self, key: str) -> Iterator[HashingSink]:
        """Opens a new object for writing; it reports its size and SHA-256 when it is closed.

        Where the block fails, there is no object afterwards.
        """
        self._make_folder(key)
        sink = HashingSink(self.filesystem.open_output_stream(self.path(key)))
        try:
            yield sink
            sink.close()
        except BaseException:
            # Arrow knows no way to give an upload up, so it is completed and removed. The first error counts.
            with suppress(OSError):
                sink.close()
            with suppress(OSError):
                self.filesystem.delete_file(self.path(key))
            raise

    def _make_folder(self, key: str) -> None:
        # An object store needs no folders, and asking for one would leave an empty object behind.
        if isinstance(self.filesystem, fs.LocalFileSystem):
            self.filesystem.create_dir(self.path(key).rpartition("/")[0])


class HashingSink(io.RawIOBase):
    """Hands bytes on to a stream and keeps their count and SHA-256."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        """Always: it is a sink."""
        return True

    def write(self, data: Any) -> int:
        """Passes the bytes on."""
        self._stream.write(data)
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of all that was written so far."""
        return self._hash.hexdigest()

    def close(self) -> None:
        """Closes the stream below; only then does the object exist."""
        if not self.closed:
            self._stream.close()
        super().close()
