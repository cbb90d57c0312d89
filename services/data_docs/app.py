"""Serves Great Expectations' Data Docs out of the lake: a read-through web server, nothing stored."""

import logging
import mimetypes
import re
from collections.abc import Collection
from datetime import timedelta

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from services.common.front import FrontMiddleware
from tallyhouse.settings import Settings

log = logging.getLogger("data_docs")

PREFIX = "data-docs/"


# What Great Expectations names its files and folders; no empty part, and none that begins with a point.
_PART = r"[\w=@+%:~ ,()-][\w=@+%:~ ,().-]*"
_PATH = re.compile(rf"(?:{_PART}/)*(?:{_PART})?", re.ASCII)


def application(settings: Settings, hosts: Collection[str] = ()) -> ASGIApp:
    """The web application over the lake's ``data-docs/``.

    Args:
        settings: Where the lake is.
        hosts: Names by which it may be called, see `FrontMiddleware`.
    """
    lake = S3Store(
        settings.lake_bucket,
        endpoint=settings.minio_url,
        access_key_id=settings.minio_root_user,
        secret_access_key=settings.minio_root_password,
        region=settings.lake_region,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "connect_timeout": "3s", "timeout": "10s"},
        retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=5)},
    )

    async def health(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def page(request: Request) -> Response:
        path = request.scope["path"][1:]
        if not _PATH.fullmatch(path):
            return PlainTextResponse("not a page of the Data Docs\n", 404)
        if path and not path.endswith("/") and "." not in path.rsplit("/", 1)[-1]:
            return RedirectResponse(f"/{path}/")
        key = PREFIX + (path if path and not path.endswith("/") else f"{path}index.html")
        try:
            found = await obstore.get_async(lake, key)
            content = bytes(await found.bytes_async())
        except (NotFoundError, FileNotFoundError):
            said = f"{settings.lake_bucket}/{key}: not there yet; a run writes the Data Docs\n"
            return PlainTextResponse(said, 404)
        except (BaseError, OSError) as error:
            log.warning("%s/%s: %s", settings.lake_bucket, key, error)
            return PlainTextResponse(
                f"data docs: the lake at {settings.minio_url} does not answer, or refuses: see the log\n", 502
            )
        kind = mimetypes.guess_type(key)[0] or "application/octet-stream"
        headers = {"Cache-Control": "no-cache", "Referrer-Policy": "no-referrer"}
        return Response(content, media_type=kind, headers=headers)

    routes = [Route("/health", health), Route("/{path:path}", page)]
    return FrontMiddleware(Starlette(routes=routes), hosts=hosts)
