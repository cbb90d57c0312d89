"""schemathesis on the whole OpenAPI document, every check on: no 5xx, no undocumented answer."""

from datetime import UTC, datetime, timedelta

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from services.common.security import new_key
from services.pipeline_info.app import create_app
from services.pipeline_info.settings import Settings

# What a schema cannot say (an end after its start, one instant on two clocks, a name that a cursor carries)
# may be refused; a key that was used is a conflict; what is not there is not found.
CHECKS = {
    "positive_data_acceptance": {"expected-statuses": [200, 201, 207, 304, 400, 401, 403, 404, 409, 422]},
    # A bad run of a bulk insert is refused by itself, by a 422 in its own result.
    "negative_data_rejection": {"expected-statuses": [207, 400, 401, 403, 404, 405, 406, 409, 415, 422]},
}
MODEST = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.explicit, Phase.generate),
}
OPERATIONS = [
    *("GET /health", "GET /ready", "GET /pipelines", "GET /get_pipeline_info", "GET /metrics"),
    *("GET /get_pipeline_info/{run_id}", "POST /pipelines", "POST /pipelines/bulk"),
    *("GET /download/pipeline_info", "POST /api/v1/lineage", "GET /api/v1/lineage"),
    *("GET /api/v1/column-lineage", "GET /api/v1/search"),
]


@pytest.fixture(scope="module")
def open_document(tmp_path_factory):
    """Reads the document of an application with an empty store; inputs are of the modes that are named."""

    def opened(*modes: GenerationMode):
        folder = tmp_path_factory.mktemp("schema")
        key, entry = new_key("schemathesis", "admin")
        (folder / "keys.json").write_text(f"[{entry.model_dump_json()}]")
        settings = Settings(
            auth="on",
            api_keys_file=folder / "keys.json",
            backend="jsonl",
            file=folder / "runs.jsonl",
            rate_per_second=0,
            summary_seconds=0,
        )
        config = SchemathesisConfig.from_dict(
            {
                "checks": CHECKS,
                "auth": {"openapi": {"APIKeyHeader": {"api_key": key}}},
                "generation": {"mode": modes[0].value if len(modes) == 1 else "all"},
            }
        )
        return schemathesis.openapi.from_asgi("/openapi.json", create_app(settings), config=config)

    return opened


@pytest.fixture(scope="module")
def document(open_document):
    return open_document(*GenerationMode)


def test_every_operation_is_tried(document):
    assert sorted(found.ok().label for found in document.get_all_operations()) == sorted(OPERATIONS)


# Its pytest plugin does not know pytest 9 yet, so its strategies are drawn from directly.
@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("label", OPERATIONS)
def test_every_operation_answers_as_its_document_says(document, label: str, mode: GenerationMode):
    method, path = label.split(" ", 1)
    operation = document[path][method]

    @settings(max_examples=30, **MODEST)
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        case.call_and_validate()

    try:
        check()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE
        takes_nothing = {"GET /health", "GET /ready", "GET /pipelines", "GET /metrics"}
        assert label in takes_nothing, "only what takes no input has no bad input"


def test_a_walk_through_the_links(open_document):
    """Calls that follow one another, each given what the one before it answered."""
    answered: set[tuple[str, int]] = set()

    def walk(document, walks: int) -> None:
        class Walk(document.as_state_machine()):
            def setup(self):
                # Each walk starts from nothing: what the ones before stored would change where this can go.
                lineage = document.app.state.lineage
                lineage.retire(datetime.now(UTC) + timedelta(days=1))
                for segment in lineage.file.parent.glob("runs*.jsonl"):
                    segment.unlink()

            def after_call(self, response, case):
                answered.add((case.operation.label, response.status_code))

        Walk.run(settings=settings(max_examples=walks, stateful_step_count=8, **MODEST))

    # Bad input leads nowhere, so few of the first walks get to a run; the second ones do.
    walk(open_document(*GenerationMode), 30)
    walk(open_document(GenerationMode.POSITIVE), 100)
    assert ("POST /pipelines", 201) in answered
    assert ("GET /get_pipeline_info/{run_id}", 200) in answered
    assert ("GET /api/v1/lineage", 200) in answered
