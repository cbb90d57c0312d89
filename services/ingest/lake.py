"""Raw events in the lake: an S3 bucket, one object per event or bulk."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from http import HTTPStatus
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import UUID

import obstore
from obstore.exceptions import NotFoundError
from obstore.store import S3Store

from services.ingest.settings import Settings

MEDIA_TYPE = "application/json"


def path_of(name: UUID) -> str:
    """Where an object is in the bucket."""
    return f"raw/{name}.json"


def open_lake(settings: Settings) -> S3Store:
    """The bucket; nothing is asked yet."""
    return S3Store(
        settings.minio_bucket,
        endpoint=settings.minio_url,
        access_key_id=settings.minio_access_key,
        secret_access_key=settings.minio_secret_key.get_secret_value(),
        region=settings.minio_region,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "connect_timeout": "2s", "timeout": "20s"},
        # The relay tries again itself, and says so.
        retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=5)},
    )


async def write(lake: S3Store, name: UUID, body: bytes) -> None:
    """Write an object; a second time it becomes the same again."""
    await obstore.put_async(
        lake, path_of(name), body, attributes={"Content-Type": MEDIA_TYPE}, use_multipart=False
    )


async def probe(lake: S3Store) -> None:
    """Raise unless the bucket answers."""
    try:
        await obstore.head_async(lake, "raw/.probe")
    except (NotFoundError, FileNotFoundError):
        return


async def ensure_bucket(lake: S3Store, settings: Settings) -> None:
    """Make the bucket if it is not there."""
    url = obstore.sign(lake, "PUT", "", timedelta(minutes=1))

    def put() -> None:
        try:
            urlopen(Request(url, method="PUT"), timeout=10).close()  # noqa: S310 - our own endpoint
        except HTTPError as error:
            if error.code != HTTPStatus.CONFLICT:  # it is there
                raise OSError(f"bucket {settings.minio_bucket}: {error}") from error

    await asyncio.to_thread(put)
