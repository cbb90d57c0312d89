"""The lake behind an `aws` connection."""

from __future__ import annotations

from urllib.parse import quote

from airflow.providers.amazon.aws.hooks.s3 import S3Hook

from tallyhouse.errors import TallyhouseError
from tallyhouse.events.table import EventStore
from tallyhouse.lake import Lake
from tallyhouse_airflow.hooks.failures import find_connection


class LakeHook(S3Hook):
    """Opens the bucket that a connection names.

    The connection is the Amazon provider's, with `endpoint_url`, `region_name` and `bucket` in its
    extra; `console_url` beside them where there is a page for people.

    :param aws_conn_id: The connection's id.
    """

    conn_name_attr = "aws_conn_id"

    def get_lake(self) -> Lake:
        """The lake, after making sure that it answers.

        Raises:
            TallyhouseError: It does not answer, or there is no such bucket or connection.
        """
        lake = Lake.s3(self.bucket(), **self.access(), region=self.conn_config.region_name or "us-east-1")
        lake.check()
        return lake

    def get_events(self) -> EventStore:
        """The events' bucket, after making sure that it answers.

        Raises:
            TallyhouseError: It does not answer, or there is no such bucket or connection.
        """
        store = EventStore.s3(
            self.bucket(), **self.access(), region=self.conn_config.region_name or "us-east-1"
        )
        store.lake.check()
        return store

    def bucket(self) -> str:
        """The bucket's name.

        Raises:
            TallyhouseError: The connection names none.
        """
        bucket = find_connection(str(self.aws_conn_id)).extra_dejson.get("bucket")
        if not bucket:
            raise TallyhouseError(
                f"the connection {self.aws_conn_id} names no bucket",
                remedy='Put {"bucket": "…"} into its extra',
            )
        return str(bucket)

    def console(self, prefix: str) -> str | None:
        """Where people see the objects below a prefix; None when the connection names no console."""
        console = find_connection(str(self.aws_conn_id)).extra_dejson.get("console_url")
        if not console:
            return None
        return f"{console.rstrip('/')}/browser/{self.bucket()}/{quote(prefix, safe='')}"

    def access(self) -> dict[str, str]:
        """Endpoint and keys, for programs that go to the lake by themselves.

        Returns:
            `endpoint`, `access_key` and `secret_key`.
        """
        find_connection(str(self.aws_conn_id))
        config = self.conn_config
        return {
            "endpoint": config.get_service_endpoint_url("s3") or "https://s3.amazonaws.com",
            "access_key": config.aws_access_key_id or "",
            "secret_key": config.aws_secret_access_key or "",
        }
