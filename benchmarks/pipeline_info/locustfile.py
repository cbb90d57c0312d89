"""The load on pipeline-info: filtered pages at a steady rate, and bulk inserts as fast as they go.

    locust -f benchmarks/pipeline_info/locustfile.py --headless --users 20 --run-time 60s \
        --host http://127.0.0.1:8002 Reader

`python -m benchmarks.pipeline_info.run` does the whole measurement.
"""

import os
import random
import uuid
from datetime import UTC, datetime, timedelta

import orjson
from locust import FastHttpUser, constant, constant_throughput, task

from benchmarks.pipeline_info.seed import PIPELINES, runs

# Each of the readers begins so many times a second with a filter, and one time in three goes on to the next
# page: 20 of them make 200 requests a second.
RATE = float(os.environ.get("READER_RATE", "7.5"))
BULK = int(os.environ.get("BULK", "1000"))
MARK = "a-mark-for-every-request"
NOW = datetime.now(UTC).replace(microsecond=0)


class Reader(FastHttpUser):
    """Somebody who looks for runs: a page of 100 by one or two filters, now and then the next one."""

    wait_time = constant_throughput(RATE)

    @task
    def page(self) -> None:
        """A filtered page, and one time in three the page after it."""
        day = NOW - timedelta(days=random.randrange(0, 364))  # noqa: S311
        query = random.choice(  # noqa: S311
            (
                {"pipeline_name": random.choice(PIPELINES)[0]},  # noqa: S311
                {"pipeline_name": random.choice(PIPELINES)[0], "environment": "prod"},  # noqa: S311
                {"environment": "dev", "start_before": f"{day:%Y-%m-%d}T00:00:00Z"},
                {"state": "failed", "start_from": f"{day:%Y-%m-%d}T00:00:00Z"},
                {"date_code": f"{day:%Y%m%d}"},
            )
        )
        address = "&".join(f"{name}={value}" for name, value in (query | {"limit": 100}).items())
        with self.rest("GET", f"/get_pipeline_info?{address}", name="a filtered page") as answer:
            cursor = (answer.js or {}).get("next_cursor")
        if cursor and random.random() < 0.33:  # noqa: S311
            self.client.get(f"/get_pipeline_info?{address}&cursor={cursor}", name="the page after it")


class Writer(FastHttpUser):
    """Somebody who posts many runs at once."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Make the runs beforehand, so that making them is not measured."""
        made = runs(BULK, until=NOW, days=1, seed=random.randrange(10**9))  # noqa: S311
        items = [
            {"run": run.model_dump(mode="json", exclude_none=True), "idempotency_key": f"{MARK}-{number}"}
            for number, run in enumerate(made)
        ]
        self.body = orjson.dumps({"items": items})

    @task
    def bulk(self) -> None:
        """A bulk insert; a result that is not `created` is a failure."""
        body = self.body.replace(MARK.encode(), uuid.uuid4().hex.encode())
        with self.rest(
            "POST",
            "/pipelines/bulk",
            data=body,
            headers={"Content-Type": "application/json"},
            name=f"bulk of {BULK}",
        ) as answer:
            if answer.js is None or answer.js.get("created") != BULK:
                answer.failure("not all were created")
