"""Serves Great Expectations' Data Docs out of the lake: a read-through web server, nothing stored.

python -m scripts.data_docs
"""

import mimetypes
import re
from collections.abc import Collection

import boto3
import uvicorn
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from services.common.front import FrontMiddleware
from services.common.serve import configuration
from services.common.settings import ListenerSettings
from tallyhouse.settings import Settings, load_settings

PREFIX = "data-docs/"


# What Great Expectations names its files and folders; no empty part, and none that begins with a point.
_PATH = re.compile(r"(?:[\w=@+%-][\w=@+%.-]*/)*(?:[\w=@+%-][\w=@+%.-]*)?", re.ASCII)


def application(settings: Settings, hosts: Collection[str] = ()) -> ASGIApp:
    """The web application over the lake's ``data-docs/``.

    Args:
        settings: Where the lake is.
        hosts: Names by which it may be called, see `FrontMiddleware`.
    """
    lake = boto3.client(
        "s3",
        endpoint_url=settings.minio_url,
        region_name=settings.lake_region,
        aws_access_key_id=settings.minio_root_user,
        aws_secret_access_key=settings.minio_root_password,
        config=Config(retries={"max_attempts": 2}, connect_timeout=3, read_timeout=10),
    )

    async def health(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    def page(request: Request) -> Response:
        path = request.scope["path"][1:]
        if not _PATH.fullmatch(path):
            return PlainTextResponse("not a page of the Data Docs\n", 404)
        if path and not path.endswith("/") and "." not in path.rsplit("/", 1)[-1]:
            return RedirectResponse(f"/{path}/")
        key = PREFIX + (path if path and not path.endswith("/") else f"{path}index.html")
        try:
            found = lake.get_object(Bucket=settings.lake_bucket, Key=key)
            content = found["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "NoSuchBucket", "404"):
                said = f"{settings.lake_bucket}/{key}: not there yet; a night writes the Data Docs\n"
                return PlainTextResponse(said, 404)
            return PlainTextResponse(f"data docs: the lake refuses: {error}\n", 502)
        except BotoCoreError as error:
            return PlainTextResponse(
                f"data docs: the lake at {settings.minio_url} does not answer: {error}\n", 502
            )
        kind = mimetypes.guess_type(key)[0] or "application/octet-stream"
        headers = {"Cache-Control": "no-cache", "Referrer-Policy": "no-referrer"}
        return Response(content, media_type=kind, headers=headers)

    # In that order: /health never waits for a thread, whatever the lake does.
    routes = [Route("/health", health), Route("/{path:path}", page)]
    return FrontMiddleware(Starlette(routes=routes), hosts=hosts)


if __name__ == "__main__":
    settings = load_settings()
    uvicorn.Server(
        configuration(
            application(settings, ListenerSettings().allowed_hosts),
            settings.data_docs_host,
            settings.data_docs_port,
            log_level="warning",
        )
    ).run()
