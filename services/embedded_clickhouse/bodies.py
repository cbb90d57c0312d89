"""Request bodies: decompressed in bounded pieces, up to a limit, and not waited for without end."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import lz4.frame  # type: ignore[import-untyped]
from backports.zstd import ZstdDecompressor, ZstdError
from fastapi import Request

from services.embedded_clickhouse.errors import ClickHouseError

PIECE = 1 << 20
"""Bytes that are decompressed at once, whatever they were packed into."""


class _Zlib:
    """zlib's decompressor with the interface of the other two."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=47)  # gzip or zlib, as the header says

    def decompress(self, data: bytes, limit: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, limit)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data


_DECOMPRESSORS: dict[str, Any] = {
    "gzip": _Zlib,
    "deflate": _Zlib,
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "zstd": ZstdDecompressor,
}


class Decoder:
    """A streaming decompressor for a Content-Encoding; a body may be several frames in a row.

    Args:
        encoding: The header's value.

    Raises:
        ClickHouseError: The encoding is not known.
    """

    def __init__(self, encoding: str) -> None:
        if encoding not in _DECOMPRESSORS:
            raise ClickHouseError(
                f"Code: 89. DB::Exception: Unknown compression {encoding[:40]}. (UNKNOWN_COMPRESSION_METHOD)"
            )
        self._make = _DECOMPRESSORS[encoding]
        self._frame = self._make()

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What some bytes hold, in pieces of at most `PIECE` bytes.

        Raises:
            ClickHouseError: The bytes are damaged.
        """
        try:
            while True:
                if self._frame.eof:
                    data = (self._frame.unused_data or b"") + data
                    if not data:
                        return
                    self._frame = self._make()
                yield self._frame.decompress(data, PIECE)
                data = b""
                if not self._frame.eof and self._frame.needs_input:
                    return
        except (zlib.error, ZstdError, RuntimeError, EOFError) as error:
            raise ClickHouseError(
                f"Code: 354. DB::Exception: The body cannot be decompressed: {error}. (ZLIB_INFLATE_FAILED)"
            ) from error

    def finish(self) -> None:
        """See that the bytes were whole.

        Raises:
            ClickHouseError: The end is missing: what was unpacked may be half a statement.
        """
        if not self._frame.eof:
            raise ClickHouseError(
                "Code: 354. DB::Exception: The compressed body ends too early. (ZLIB_INFLATE_FAILED)"
            )


async def received(request: Request, seconds: float) -> AsyncIterator[bytes]:
    """A request's body, decompressed, as it arrives.

    Args:
        request: The request.
        seconds: How long to wait for the next bytes.

    Raises:
        ClickHouseError: No bytes came in time, or they cannot be decompressed.
    """
    encoding = request.headers.get("content-encoding", "").strip().lower()
    decoder = None if encoding in ("", "identity") else Decoder(encoding)
    chunks = request.stream()
    while True:
        try:
            async with asyncio.timeout(seconds):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            if decoder is not None:
                decoder.finish()
            return
        except TimeoutError as error:
            raise ClickHouseError(
                f"Code: 209. DB::Exception: No byte of the body for {seconds:g} seconds. (SOCKET_TIMEOUT)"
            ) from error
        if decoder is None:
            if chunk:
                yield chunk
            continue
        pieces = decoder.pieces(chunk)
        # Beside the event loop: a small chunk may hold a thousand times its size.
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            if piece:
                yield piece


async def limited(body: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """A body that ends with an error after a number of bytes.

    Raises:
        ClickHouseError: It is longer.
    """
    taken = 0
    async for piece in body:
        taken += len(piece)
        if taken > most:
            raise ClickHouseError(
                f"Code: 307. DB::Exception: The body has more than {most} bytes, unpacked. (TOO_MANY_BYTES)"
            )
        yield piece
