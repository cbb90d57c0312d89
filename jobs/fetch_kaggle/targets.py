"""Where a fetched dataset is made known: the lake, and the catalogue."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import httpx
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from jobs.fetch_kaggle.errors import FetchError
from jobs.fetch_kaggle.settings import Settings
from jobs.fetch_kaggle.store import ABOUT, Held

LAKE_PREFIX = "kaggle"


def put_into_lake(settings: Settings, held: Held, root: Path) -> bool:
    """Copy a version to `kaggle/<owner>/<dataset>/v<version>/` of the lake; `_dataset.json` last: its commit.

    Returns:
        Whether anything was copied: not when the lake has this very version already.

    Raises:
        FetchError: The lake does not answer, or refuses.
    """
    store = S3Store(
        settings.lake_bucket,
        endpoint=settings.minio_endpoint,
        region=settings.lake_region,
        access_key_id=settings.minio_access_key.get_secret_value(),
        secret_access_key=settings.minio_secret_key.get_secret_value(),
        client_options={"allow_http": settings.minio_endpoint.startswith("http://"), "timeout": "300s"},
        retry_config={"max_retries": settings.fetch_kaggle_attempts},
        virtual_hosted_style_request=False,
    )
    prefix = f"{LAKE_PREFIX}/{held.prefix}"
    about = f"{prefix}/{ABOUT}"
    try:
        try:
            there = bytes(store.get(about).bytes())
        except (NotFoundError, FileNotFoundError):
            there = b""
        if there and _same_files(there, held):
            return False
        for file in held.files:
            store.put(f"{prefix}/{file.name}", root / held.prefix / file.name)
        store.put(about, held.to_json().encode())
    except (BaseError, OSError) as error:
        said = str(error).splitlines()[0][:200]
        raise FetchError(
            f"{held.prefix}: the lake refused it ({said}); check MINIO_* and LAKE_*", transient=True
        ) from error
    return True


def _same_files(content: bytes, held: Held) -> bool:
    try:
        return Held.from_json(content).files == held.files
    except ValueError:
        return False


def register(settings: Settings, held: Held) -> int:
    """Enter a version in the catalogue, in the place of the one before.

    Returns:
        The dataset's id there.

    Raises:
        FetchError: The catalogue does not answer, or refuses.
    """
    key = settings.kaggle_data_api_key.get_secret_value()
    body = {
        "name": held.title[:255],
        "description": held.description[:10_000] if held.description else None,
        "source_url": held.url,
        "ref": held.ref,
        "version": held.version,
        "licence": held.licence[:200] if held.licence else None,
        "files": [
            {"name": file.name, "bytes": file.bytes, "sha256": file.sha256} for file in held.files[:1000]
        ],
    }
    where = f"{held.prefix}: the catalogue at {settings.kaggle_data_api_url}"
    transport = httpx.HTTPTransport(retries=settings.fetch_kaggle_attempts)
    headers = {"X-API-Key": key} if key else {}
    try:
        with closing(
            httpx.Client(
                base_url=settings.kaggle_data_api_url, headers=headers, timeout=30, transport=transport
            )
        ) as client:
            for _ in range(2):  # somebody else may enter it in between
                found = client.get("/datasets", params={"ref": held.ref})
                found.raise_for_status()
                known = found.json()["datasets"]
                if known and all(known[0][name] == value for name, value in body.items()):
                    return int(known[0]["id"])
                answer = (
                    client.put(f"/datasets/{known[0]['id']}", json=body)
                    if known
                    else client.post("/datasets", json=body)
                )
                if answer.status_code not in (404, 409):
                    break
            answer.raise_for_status()
            return int(answer.json()["id"])
    except httpx.HTTPStatusError as error:
        said = error.response.text[:200].replace("\n", " ")
        raise FetchError(f"{where} answered {error.response.status_code}: {said}", transient=True) from error
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise FetchError(
            f"{where} does not answer ({error}); check KAGGLE_DATA_API_URL", transient=True
        ) from error
