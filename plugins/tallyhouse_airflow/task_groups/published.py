"""What a pipeline publishes, as Airflow's Assets: other DAGs can be scheduled on them."""

from __future__ import annotations

from airflow.sdk import Asset


def published(pipeline: str, *places: str) -> list[Asset]:
    """The assets of a pipeline.

    Their addresses name the place and the pipeline, not a server: they stay the same on every stack.

    Args:
        pipeline: Name of the pipeline's contract.
        places: What is published, such as `warehouse/ods`.
    """
    return [
        Asset(name=f"{pipeline} {place}", uri=f"tallyhouse://{place}/{pipeline}", group="tallyhouse")
        for place in places
    ]
