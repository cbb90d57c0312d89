"""schemathesis on the whole OpenAPI document, every check on: no 5xx, no undocumented answer."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from services.common.security import new_key
from services.pancake.app import create_app
from services.pancake.settings import Settings

# A schema cannot say "two decimals" of a JSON number: a third one is refused.
CHECKS = {"positive_data_acceptance": {"expected-statuses": [200, 201, 422]}}
OPERATIONS = ["GET /health", "GET /ready", "GET /metrics", "GET /api/pancakes", "POST /api/pancakes"]
MODEST = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.explicit, Phase.generate),
}


@pytest.fixture(scope="module")
def document(database: Settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    key, entry = new_key("schemathesis", "admin")
    (folder / "keys.json").write_text(f"[{entry.model_dump_json()}]")
    app = create_app(database.model_copy(update={"auth": "on", "api_keys_file": folder / "keys.json"}))
    config = SchemathesisConfig.from_dict(
        {"checks": CHECKS, "auth": {"openapi": {"APIKeyHeader": {"api_key": key}}}}
    )
    return schemathesis.openapi.from_asgi("/openapi.json", app, config=config)


def test_every_operation_is_tried(document):
    assert sorted(found.ok().label for found in document.get_all_operations()) == sorted(OPERATIONS)


# Its pytest plugin does not know pytest 9 yet, so its strategies are drawn from directly.
@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("label", OPERATIONS)
def test_every_operation_answers_as_its_document_says(document, label: str, mode: GenerationMode):
    method, path = label.split(" ", 1)
    operation = document[path][method]

    @settings(max_examples=60, **MODEST)
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        case.call_and_validate()

    try:
        check()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE
        takes_nothing = {"GET /health", "GET /ready", "GET /metrics"}
        assert label in takes_nothing, "only what takes no input has no bad input"
