"""What the service's tests share."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from services.pipeline_info.app import create_app
from services.pipeline_info.backends.jsonl import JsonlPipelineRepository
from services.pipeline_info.settings import Settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "runs.jsonl"


@pytest.fixture
def repository(file: Path) -> JsonlPipelineRepository:
    return JsonlPipelineRepository(file)


@pytest.fixture
def client(repository: JsonlPipelineRepository) -> TestClient:
    return TestClient(create_app(Settings(), repository), raise_server_exceptions=False)
