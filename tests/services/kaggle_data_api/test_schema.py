"""schemathesis on the whole OpenAPI document, every check on: no 5xx, no undocumented answer."""

import psycopg
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from services.common.security import new_key
from services.kaggle_data_api.app import create_app
from services.kaggle_data_api.settings import Settings
from tests.services.kaggle_data_api.conftest import url_of

# What a schema cannot say may be refused: a cursor is one that was given out, a ref is of one dataset alone,
# a name is more than blanks, and what is not there is not found.
CHECKS = {"positive_data_acceptance": {"expected-statuses": [200, 201, 204, 400, 404, 409, 422]}}
OPERATIONS = [
    *("GET /health", "GET /ready", "GET /metrics", "GET /datasets", "POST /datasets"),
    *("GET /datasets/{dataset_id}", "PUT /datasets/{dataset_id}", "DELETE /datasets/{dataset_id}"),
]
MODEST = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.explicit, Phase.generate),
}


@pytest.fixture(scope="module")
def open_document(database: Settings, tmp_path_factory):
    """Reads the document of an application; inputs are of the modes that are named."""

    def opened(*modes: GenerationMode):
        folder = tmp_path_factory.mktemp("keys")
        key, entry = new_key("schemathesis", "admin")
        (folder / "keys.json").write_text(f"[{entry.model_dump_json()}]")
        app = create_app(database.model_copy(update={"auth": "on", "api_keys_file": folder / "keys.json"}))
        config = SchemathesisConfig.from_dict(
            {
                "checks": CHECKS,
                "auth": {"openapi": {"APIKeyHeader": {"api_key": key}}},
                "generation": {"mode": modes[0].value if len(modes) == 1 else "all"},
            }
        )
        return schemathesis.openapi.from_asgi("/openapi.json", app, config=config)

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


def test_a_walk_through_the_links(open_document, database: Settings):
    """Calls that follow one another, each given what the one before it answered."""
    answered: set[tuple[str, int]] = set()

    class Walk(open_document(GenerationMode.POSITIVE).as_state_machine()):
        def setup(self):
            with psycopg.connect(url_of(database)) as connection:
                connection.execute("TRUNCATE datasets")

        def after_call(self, response, case):
            answered.add((case.operation.label, response.status_code))

    Walk.run(settings=settings(max_examples=60, stateful_step_count=8, **MODEST))
    assert ("POST /datasets", 201) in answered
    assert ("GET /datasets/{dataset_id}", 200) in answered
    assert ("PUT /datasets/{dataset_id}", 200) in answered
    assert ("DELETE /datasets/{dataset_id}", 204) in answered
