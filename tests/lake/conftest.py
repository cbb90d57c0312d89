"""A lake of its own on the stack's MinIO, and a warehouse whose runs say what of it is needed."""

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import psycopg
import pytest

from tallyhouse.lake import Lake
from tallyhouse.lake.bucket import Bucket
from tallyhouse.lake.upkeep import Survey, upkeep
from tallyhouse.migrate import migrate_warehouse
from tallyhouse.servers import PostgresServer
from tallyhouse.settings import LakeUpkeep, Settings

KEEP = LakeUpkeep(
    lake_raw_days=0,
    lake_accepted_days=7,
    lake_increment_days=30,
    lake_failed_days=7,
    lake_grace_hours=24,
    lake_budget_gb=0,
)
LATER = timedelta(days=60)


class House:
    """A bucket and a warehouse's runs. Objects are as old as the test, so the upkeep is told a later time."""

    def __init__(self, client: Any, lake: Lake, connection: psycopg.Connection[Any], address: str) -> None:
        self.client = client
        self.lake = lake
        self.bucket = Bucket(client, lake.root)
        self.connection = connection
        self.address = address

    def run(
        self, run_id: str, status: str, *, days: int = 0, pipeline: str = "shop", shown: bool = True
    ) -> str:
        """A run that was opened that many days ago, as seen from now, and published at once if it was."""
        at = datetime.now(UTC) - timedelta(days=days)
        self.connection.execute(
            "INSERT INTO etl.run (run_id, pipeline, tables, dag_id, dag_run_id, status, started_at, "
            "published_at) VALUES (%s, %s, '{things}', 'd', 'r', %s, %s, %s)",
            (run_id, pipeline, status, at, at if status == "published" else None),
        )
        if status == "published" and not shown:
            self.connection.execute(
                "INSERT INTO etl.run_target (run_id, target, state) VALUES (%s, 'clickhouse', 'pending')",
                (run_id,),
            )
        return run_id

    def put(self, *keys: str) -> None:
        for key in keys:
            self.client.put_object(Bucket=self.bucket.name, Key=key, Body=b"x" * 100)

    def batch(self, run_id: str, attempt: int = 1, *, committed: bool = True) -> str:
        """A raw batch's folder."""
        folder = f"raw/shop/things/run={run_id}/attempt={attempt}"
        self.put(f"{folder}/part-00000.parquet", f"{folder}/part-00001.parquet")
        if committed:
            self.put(f"{folder}/_manifest.json")
        return folder

    def content(self) -> set[str]:
        """By the client alone, not by what is tested."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket.name)
        return {one["Key"] for page in pages for one in page.get("Contents", ())}

    def clear(self) -> None:
        for key in self.content():
            self.client.delete_object(Bucket=self.bucket.name, Key=key)
        self.connection.execute("TRUNCATE etl.run CASCADE")

    def upkeep(self, *, apply: bool = True, after: timedelta = LATER, keep: LakeUpkeep = KEEP) -> Survey:
        return upkeep(
            self.connection, self.lake, self.bucket, keep, now=datetime.now(UTC) + after, apply=apply
        )


@pytest.fixture
def client(settings: Settings) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=settings.minio_url,
        aws_access_key_id=settings.minio_root_user,
        aws_secret_access_key=settings.minio_root_password,
        region_name=settings.lake_region,
    )


@pytest.fixture
def house(client: Any, postgres_scratch: str, settings: Settings) -> Iterator[House]:
    server = PostgresServer.parse(postgres_scratch)
    migrate_warehouse(settings.model_copy(update={"dwh_db": server.options["dbname"]}))
    name = f"scratch-{secrets.token_hex(4)}"
    client.create_bucket(Bucket=name)
    lake = Lake.s3(
        name,
        endpoint=settings.minio_url,
        access_key=settings.minio_root_user,
        secret_key=settings.minio_root_password,
    )
    with psycopg.connect(postgres_scratch, autocommit=True) as connection:
        house = House(client, lake, connection, postgres_scratch)
        yield house
        house.clear()
    for one in client.list_multipart_uploads(Bucket=name).get("Uploads", ()):
        client.abort_multipart_upload(Bucket=name, Key=one["Key"], UploadId=one["UploadId"])
    client.delete_bucket(Bucket=name)
