"""One measurement of dlt, in its own environment, which has nothing of this project.

    python dlt_own.py extract <connectorx|pyarrow>   # a table of MySQL -> Parquet in the lake
    python dlt_own.py load pyarrow                   # Parquet of the lake -> a table of PostgreSQL

Where to and from is in BENCH_SOURCE, BENCH_TABLE, BENCH_LAKE (`{"bucket", "endpoint", "key", "secret"}`),
BENCH_PARTS (paths of Parquet objects) and BENCH_WAREHOUSE. Prints `{"rows": …, "seconds": …}`; imports are
not in the seconds.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator

import dlt
import pyarrow as pa
import pyarrow.parquet as pq
from dlt.destinations import filesystem, postgres
from dlt.sources.credentials import AwsCredentials
from dlt.sources.sql_database import sql_table
from pyarrow import fs

what, backend = sys.argv[1:]
lake = json.loads(os.environ["BENCH_LAKE"])
os.environ |= {"DLT_TELEMETRY": "false", "RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}
began = time.perf_counter()
destination = (
    filesystem(
        bucket_url=f"s3://{lake['bucket']}/bench-dlt",
        credentials=AwsCredentials(
            aws_access_key_id=lake["key"],
            aws_secret_access_key=lake["secret"],
            endpoint_url=lake["endpoint"],
            region_name="us-east-1",
        ),
    )
    if what == "extract"
    else postgres(credentials=os.environ["BENCH_WAREHOUSE"])
)


def parquet() -> Iterator[pa.RecordBatch]:
    """The rows of the objects."""
    scheme, _, host = lake["endpoint"].partition("://")
    store = fs.S3FileSystem(
        access_key=lake["key"], secret_key=lake["secret"], endpoint_override=host, scheme=scheme
    )
    for part in json.loads(os.environ["BENCH_PARTS"]):
        with store.open_input_file(part) as file:
            yield from pq.ParquetFile(file).iter_batches(batch_size=50_000)


with tempfile.TemporaryDirectory() as folder:
    pipeline = dlt.pipeline(
        f"bench_{what}_{backend}", destination=destination, dataset_name="bench_dlt", pipelines_dir=folder
    )
    if what == "extract":
        table = sql_table(
            os.environ["BENCH_SOURCE"],
            table=os.environ["BENCH_TABLE"],
            backend=backend,
            chunk_size=50_000,
            reflection_level="full_with_precision",
            backend_kwargs={"return_type": "arrow_stream"} if backend == "connectorx" else {},
        )
    else:
        table = dlt.resource(parquet, name=os.environ["BENCH_TABLE"])
    pipeline.run(
        table,
        write_disposition="replace",
        loader_file_format="parquet" if what == "extract" else "csv",
    )
    seconds = time.perf_counter() - began
    rows = pipeline.last_trace.last_normalize_info.row_counts[os.environ["BENCH_TABLE"]]
print(json.dumps({"rows": rows, "seconds": seconds}))
