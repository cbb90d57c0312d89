"""What OpenLineage is told of our operators: the data sets that a task reads and writes, down to columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from tallyhouse.declared_lineage import Dataset, Stores, TaskLineage

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage


class LineageMixin:
    """For operators that move data: the OpenLineage provider asks these methods.

    A task that failed has read, and has written nothing that counts.
    """

    lake_conn_id: str
    dwh_conn_id: str

    def reads_and_writes(self, stores: Stores) -> TaskLineage:
        """What the task reads and writes."""
        raise NotImplementedError

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Called when the task succeeded."""
        return as_openlineage(self.reads_and_writes(self._stores()))

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Called when the task failed."""
        return as_openlineage(TaskLineage(inputs=self.reads_and_writes(self._stores()).inputs))

    def _stores(self) -> Stores:
        lake, warehouse = (BaseHook.get_connection(name) for name in (self.lake_conn_id, self.dwh_conn_id))
        return Stores(
            lake=f"s3://{lake.extra_dejson.get('bucket', '')}",
            warehouse=f"postgres://{warehouse.host}:{warehouse.port or 5432}",
            warehouse_db=warehouse.schema or "",
        )


def as_openlineage(task: TaskLineage) -> OperatorLineage[Any, Any]:
    """What a task reads and writes, in the classes of the OpenLineage provider."""
    # They take a while to import, and are needed only when a task has ended.
    from airflow.providers.openlineage.extractors import OperatorLineage  # noqa: PLC0415

    return OperatorLineage(
        inputs=[_dataset(found, "input") for found in task.inputs],
        outputs=[_dataset(found, "output") for found in task.outputs],
    )


def _dataset(found: Dataset, side: str) -> Any:
    from openlineage.client import event_v2 as event  # noqa: PLC0415
    from openlineage.client.generated import column_lineage_dataset as lineage  # noqa: PLC0415
    from openlineage.client.generated import schema_dataset as schema  # noqa: PLC0415

    facets: dict[str, Any] = {
        "schema": schema.SchemaDatasetFacet(
            fields=[schema.SchemaDatasetFacetFields(name=column) for column in found.columns]
        )
    }
    if found.origins:
        how = lineage.Transformation(type="DIRECT", subtype=found.how)
        facets["columnLineage"] = lineage.ColumnLineageDatasetFacet(
            fields={
                column: lineage.Fields(
                    inputFields=[
                        lineage.InputField(
                            namespace=origin.place.namespace,
                            name=origin.place.name,
                            field=origin.column,
                            transformations=[how],
                        )
                        for origin in origins
                    ]
                )
                for column, origins in found.origins.items()
                if origins
            }
        )
    kind = event.InputDataset if side == "input" else event.OutputDataset
    return kind(namespace=found.place.namespace, name=found.place.name, facets=facets)
