"""Kaggle, by its official client: what a dataset is now, and its files."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import logging
import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from jobs.fetch_kaggle.errors import FetchError
from jobs.fetch_kaggle.settings import Settings, Wanted, check_name

log = logging.getLogger(__name__)

_MOST_FILES = 10_000
_PAGE = 200
_SLACK = 1024 * 1024
"""Bytes by which what is sent may be longer than the file: an archive around it."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as the server lists it."""

    name: str
    bytes: int


@dataclass(frozen=True)
class RemoteDataset:
    """A dataset as the server has it now.

    Attributes:
        ref: Owner and dataset.
        version: The current one; a version never changes.
        title: For people.
        description: The same, longer.
        licence: Its name.
        url: Its page.
        files: Those that are wanted.
    """

    ref: str
    version: int
    title: str
    description: str | None
    licence: str | None
    url: str
    files: tuple[RemoteFile, ...]


class Remote:
    """Kaggle, or what speaks its API.

    Args:
        settings: Where it is, and whose token.

    Raises:
        FetchError: There is no token.
    """

    def __init__(self, settings: Settings) -> None:
        login = {
            "api_token": settings.kaggle_api_token.get_secret_value() or None,
            "username": settings.kaggle_username or None,
            "password": settings.kaggle_key.get_secret_value() or None,
        }
        if not login["api_token"] and not (login["username"] and login["password"]):
            raise FetchError(
                "no token for Kaggle: set KAGGLE_API_TOKEN to one of https://www.kaggle.com/settings/api"
            )
        self._headers: dict[str, str] = {}
        self._api = _client(settings.kaggle_endpoint, login, self._saw)

    def describe(self, wanted: Wanted) -> RemoteDataset:
        """What a dataset is now.

        Raises:
            FetchError: The server does not answer or has no such dataset, or it lacks a wanted file.
        """
        from kagglesdk.datasets.types import dataset_api_service as types  # noqa: PLC0415 - slow to load

        owner, name = wanted.ref.split("/")
        request = types.ApiGetDatasetRequest()
        request.owner_slug, request.dataset_slug = owner, name
        with _refusals(wanted.ref), self._api.build_kaggle_client() as kaggle:
            found = kaggle.datasets.dataset_api_client.get_dataset(request)
        version = found.current_version_number
        if not isinstance(version, int) or version < 1:
            raise FetchError(f"{wanted.ref}: Kaggle names no version of it; look at its page")
        listed = dict(self._files(f"{wanted.ref}/{version}"))
        if missing := sorted(set(wanted.files) - listed.keys()):
            raise FetchError(
                f"{wanted.ref} version {version} lacks {', '.join(missing)}; correct datasets.yaml"
            )
        return RemoteDataset(
            ref=wanted.ref,
            version=version,
            title=found.title or wanted.ref,
            description=found.description or found.subtitle or None,
            licence=found.license_name or None,
            url=f"https://www.kaggle.com/datasets/{wanted.ref}",
            files=tuple(RemoteFile(name, listed[name]) for name in wanted.files or sorted(listed)),
        )

    def _files(self, ref: str) -> Iterator[tuple[str, int]]:
        token, number = None, 0
        while number < _MOST_FILES:
            with _refusals(ref):
                page = self._api.dataset_list_files(ref, page_token=token, page_size=_PAGE)
            if page.error_message:
                raise FetchError(f"{ref}: Kaggle refused to list its files: {page.error_message[:200]}")
            for file in page.files:
                try:
                    yield check_name(file.name), int(file.total_bytes)
                except ValueError as error:
                    raise FetchError(f"{ref}: {error}; it is not fetched") from error
            number += len(page.files)
            token = page.next_page_token
            if not token or not page.files:
                return

    def download(self, ref: str, version: int, file: RemoteFile, into: Path) -> None:
        """Bring one file; what an earlier try left of it is gone on with when the server still has the same.

        Args:
            ref: The dataset.
            version: Of which version.
            file: The file.
            into: The folder; the file is there afterwards, of the size that the server listed.

        Raises:
            FetchError: It did not come, or is not what the server said: then nothing of it is left.
        """
        where = f"{ref} version {version}, {file.name}"
        target = into / file.name
        self._headers = {}
        with _refusals(where), _at_most(file.bytes + _SLACK, where):
            self._api.dataset_download_file(
                f"{ref}/{version}", file.name, path=str(into), quiet=True, unzip=True
            )
        try:
            self._check(where, target, file)
        except FetchError:
            target.unlink(missing_ok=True)
            raise

    def _check(self, where: str, target: Path, file: RemoteFile) -> None:
        if not target.is_file() or target.is_symlink():
            raise FetchError(f"{where}: the server sent no such file", transient=True)
        size = target.stat().st_size
        if size != file.bytes:
            raise FetchError(
                f"{where}: has {size} bytes, listed with {file.bytes}: truncated or changed", transient=True
            )
        sent_as_it_is = self._headers.get("name") == target.name
        said = self._headers.get("md5")
        if said and sent_as_it_is and said != _digest(target, "md5"):
            raise FetchError(f"{where}: its MD5 is not the one that the server names", transient=True)

    def _saw(self, response: requests.Response) -> None:
        """Keep what storage says of the file that it sends."""
        self._headers = {"name": response.url.split("?")[0].rsplit("/", 1)[-1]}
        for part in response.headers.get("x-goog-hash", "").replace(" ", "").split(","):
            if part.startswith("md5="):
                with contextlib.suppress(ValueError):
                    self._headers["md5"] = base64.b64decode(part[4:], validate=True).hex()


def _client(endpoint: str, login: dict[str, str | None], saw: Callable[[requests.Response], None]) -> Any:
    """The official client, told of a login and, for a server in Kaggle's place, of its address."""
    # When it is loaded it greets, and asks Kaggle about a token of the environment, whatever the endpoint is.
    kept = os.environ.pop("KAGGLE_API_TOKEN", None)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            from kaggle.api.kaggle_api_extended import KaggleApi  # noqa: PLC0415
    finally:
        if kept is not None:
            os.environ["KAGGLE_API_TOKEN"] = kept

    class Client(KaggleApi):  # type: ignore[misc]  # it has no types
        def build_kaggle_client(self) -> Any:
            made = self.build_kaggle_client_with_params(args=[], response_processor=saw, **login)
            if endpoint:
                made.http_client()._endpoint = endpoint.rstrip("/")  # no setting of its own names an address
            return made

    return Client()


@contextlib.contextmanager
def _refusals(where: str) -> Iterator[None]:
    """Says in one line what the client could not do, and whether to try again."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints addresses
            yield
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        again = status in (408, 429) or status >= 500
        remedy = {401: "check KAGGLE_API_TOKEN", 403: "check the token's rights and the dataset's terms"}
        raise FetchError(
            f"{where}: Kaggle answered {status}; {remedy.get(status, 'look at its page')}",
            transient=again,
            wait=_asked(error.response) if again else None,
        ) from error
    except (requests.RequestException, ConnectionError) as error:
        said = str(error).splitlines()[0][:200]
        raise FetchError(f"{where}: Kaggle does not answer ({said}); try again", transient=True) from error
    except ValueError as error:  # what it says of a truncated file, and of a broken archive or answer
        raise FetchError(f"{where}: {str(error).splitlines()[0][:200]}", transient=True) from error


def _asked(response: requests.Response | None) -> float | None:
    text = response.headers.get("Retry-After", "") if response is not None else ""
    return float(text) if text.isdecimal() else None


@contextlib.contextmanager
def _at_most(size: int, where: str) -> Iterator[None]:
    """Lets no file of this process grow beyond a size, whatever a server sends: the kernel sees to it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size if hard < 0 else min(size, hard), hard))
    try:
        yield
    except OSError as error:
        if error.errno == 27:  # EFBIG
            raise FetchError(
                f"{where}: the server sends more than the {size} bytes that it may have"
            ) from error
        raise
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, kind).hexdigest()
