"""Serves Great Expectations' Data Docs out of the lake: a read-through web server, nothing stored.

python -m scripts.data_docs
"""

import mimetypes

import boto3
import uvicorn
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, RedirectResponse, Response

from tallyhouse.settings import Settings, load_settings

PREFIX = "data-docs/"


def application(settings: Settings) -> FastAPI:
    """The web application over the lake's ``data-docs/``."""
    lake = boto3.client(
        "s3",
        endpoint_url=settings.minio_url,
        region_name=settings.lake_region,
        aws_access_key_id=settings.minio_root_user,
        aws_secret_access_key=settings.minio_root_password,
        config=Config(retries={"max_attempts": 2}, connect_timeout=3, read_timeout=10),
    )
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    def health() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @app.api_route("/{path:path}", methods=["GET", "HEAD"])
    def page(path: str) -> Response:
        if path and not path.endswith("/") and "." not in path.rsplit("/", 1)[-1]:
            return RedirectResponse(f"/{path}/")
        key = PREFIX + (path if path and not path.endswith("/") else f"{path}index.html")
        try:
            found = lake.get_object(Bucket=settings.lake_bucket, Key=key)
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
        return Response(found["Body"].read(), media_type=kind, headers={"Cache-Control": "no-cache"})

    return app


if __name__ == "__main__":
    settings = load_settings()
    uvicorn.run(
        application(settings),
        host=settings.data_docs_host,
        port=settings.data_docs_port,
        access_log=False,
        log_level="warning",
    )
