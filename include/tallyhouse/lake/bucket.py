"""A bucket as its upkeep sees it: every object with size and time, uploads that never ended, and removal.

By boto3: Arrow lists no uploads, removes objects one by one, and leaves an empty one in the folder's place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import batched
from typing import Any

import boto3
from botocore.config import Config

from tallyhouse.errors import TallyhouseError

_AT_ONCE = 1000
"""The most keys that S3 takes in one request."""


@dataclass(frozen=True)
class Stored:
    """An object.

    Attributes:
        key: Where it is.
        bytes: Its size.
        at: When it was written, by the store's clock; UTC.
    """

    key: str
    bytes: int
    at: datetime


@dataclass(frozen=True)
class Upload:
    """A multipart upload that was neither completed nor given up; its parts take room, no reader sees them.

    Attributes:
        key: The object that it would have become.
        id: Its own name in the store.
        bytes: Size of the parts that arrived.
        at: When it began, by the store's clock; UTC.
    """

    key: str
    id: str
    bytes: int
    at: datetime


@dataclass(frozen=True)
class Bucket:
    """A bucket of any S3 server.

    Attributes:
        client: boto3's.
        name: The bucket's.
    """

    client: Any = field(repr=False)
    name: str

    @classmethod
    def s3(
        cls, name: str, *, endpoint: str, access_key: str, secret_key: str, region: str = "us-east-1"
    ) -> Bucket:
        """A bucket by its address; see `Lake.s3`."""
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            region_name=region,
            config=Config(connect_timeout=5, read_timeout=60),
        )
        return cls(client, name)

    def objects(self, prefix: str = "") -> Iterator[Stored]:
        """Every object below a prefix, the empty ones that stand for folders too; a thousand a request."""
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
            for one in page.get("Contents", ()):
                yield Stored(one["Key"], one["Size"], one["LastModified"])

    def uploads(self) -> Iterator[Upload]:
        """Uploads that are under way, or were left by a death.

        MinIO tells those that began since it was started; older ones it drops by itself after a day.
        """
        pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.name)
        for page in pages:
            for one in page.get("Uploads", ()):
                found = {"Bucket": self.name, "Key": one["Key"], "UploadId": one["UploadId"]}
                try:
                    parts = [
                        part["Size"]
                        for listed in self.client.get_paginator("list_parts").paginate(**found)
                        for part in listed.get("Parts", ())
                    ]
                except self.client.exceptions.NoSuchUpload:  # it ended meanwhile
                    continue
                yield Upload(one["Key"], one["UploadId"], sum(parts), one["Initiated"])

    def remove(self, keys: Sequence[str]) -> None:
        """Removes objects; one that is gone already is none to remove.

        Raises:
            TallyhouseError: The store keeps one of them.
        """
        for some in batched(keys, _AT_ONCE):
            answer = self.client.delete_objects(
                Bucket=self.name, Delete={"Objects": [{"Key": key} for key in some], "Quiet": True}
            )
            for error in answer.get("Errors", ()):
                raise TallyhouseError(
                    f"{error['Key']} could not be removed ({error.get('Message') or error.get('Code')})",
                    where=f"bucket {self.name}",
                    remedy="Let the account delete objects, and see whether the bucket holds them locked; "
                    "then start it again",
                )

    def give_up(self, upload: Upload) -> None:
        """Gives an upload up, which frees what its parts took."""
        try:
            self.client.abort_multipart_upload(Bucket=self.name, Key=upload.key, UploadId=upload.id)
        except self.client.exceptions.NoSuchUpload:  # it ended meanwhile
            return
