"""schemathesis on the whole OpenAPI document of the running service, every check on."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from services.common.security import new_key
from tests.services.event_servers import Space, eventually

# A key that was used is a conflict; lines that are no JSON, and what a schema of a type forbids, are refused.
CHECKS = {
    "positive_data_acceptance": {"expected-statuses": [200, 400, 401, 403, 409, 422]},
    "negative_data_rejection": {"expected-statuses": [400, 401, 403, 404, 405, 406, 409, 413, 415, 422]},
}
OPERATIONS = [
    *("POST /ingest", "POST /ingest/bulk", "GET /schemas", "GET /health", "GET /ready", "GET /metrics"),
]


@pytest.fixture(scope="module")
def document(servers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("contract")
    key, entry = new_key("schemathesis", "admin")
    (folder / "keys.json").write_text(f"[{entry.model_dump_json()}]")
    space = Space(servers, folder)
    _, client = space.ingest(INGEST_AUTH="on", INGEST_API_KEYS_FILE=str(folder / "keys.json"))
    eventually(lambda: client.get("/ready").status_code == 200)
    config = SchemathesisConfig.from_dict(
        {"checks": CHECKS, "auth": {"openapi": {"APIKeyHeader": {"api_key": key}}}}
    )
    yield schemathesis.openapi.from_url(f"{client.base_url}/openapi.json", config=config)
    space.stop()


def test_every_operation_is_tried(document):
    assert sorted(found.ok().label for found in document.get_all_operations()) == sorted(OPERATIONS)


# Its pytest plugin does not know pytest 9 yet, so its strategies are drawn from directly.
@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("label", OPERATIONS)
def test_every_operation_answers_as_its_document_says(document, label: str, mode: GenerationMode):
    method, path = label.split(" ", 1)
    operation = document[path][method]

    @settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        case.call_and_validate()

    try:
        check()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE
        assert not label.startswith("POST"), "only what takes no input has no bad input"
