"""What the job is told by its environment, and which datasets it brings."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from jobs.fetch_kaggle.errors import FetchError

# As the catalogue takes it; no part may begin with a dot, since it becomes a folder.
_REF = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}/[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"


class Settings(BaseSettings):
    """Settings, each an environment variable of its name in upper case.

    Attributes:
        kaggle_data_root: The folder that datasets are kept in; `KAGGLE_DATA_ROOT`.
        kaggle_api_token: Of <https://www.kaggle.com/settings/api>.
        kaggle_username: An account's name, for a key of the older kind in the token's place.
        kaggle_key: That key.
        kaggle_endpoint: A server that speaks Kaggle's API, in place of Kaggle.
        fetch_kaggle_datasets: The YAML file of wanted datasets.
        fetch_kaggle_max_bytes: The most that the folder may hold.
        fetch_kaggle_free_bytes: So much of its disk is left free.
        fetch_kaggle_keep: How many versions of a dataset are kept in the folder.
        fetch_kaggle_attempts: How often a request or a file is tried.
        fetch_kaggle_wait: Seconds before the second try; waits double, and what the server asks for counts.
        kaggle_data_api_url: The catalogue, services/kaggle_data_api; empty for none.
        kaggle_data_api_key: Its API key, where it asks for one.
        minio_endpoint: The lake's server, MinIO or any S3; empty for none.
        lake_bucket: Its bucket.
        lake_region: Its region.
        minio_access_key: Its account.
        minio_secret_key: Its secret.
    """

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    kaggle_data_root: Path
    kaggle_api_token: SecretStr = SecretStr("")
    kaggle_username: str = ""
    kaggle_key: SecretStr = SecretStr("")
    kaggle_endpoint: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    fetch_kaggle_datasets: Path = Path(__file__).with_name("datasets.yaml")
    fetch_kaggle_max_bytes: Annotated[int, Field(ge=0)] = 20 * 1024**3
    fetch_kaggle_free_bytes: Annotated[int, Field(ge=0)] = 1024**3
    fetch_kaggle_keep: Annotated[int, Field(ge=1)] = 2
    fetch_kaggle_attempts: Annotated[int, Field(ge=1, le=20)] = 5
    fetch_kaggle_wait: Annotated[float, Field(ge=0)] = 1
    kaggle_data_api_url: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    kaggle_data_api_key: SecretStr = SecretStr("")
    minio_endpoint: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    lake_bucket: str = "lake"
    lake_region: str = "us-east-1"
    minio_access_key: SecretStr = SecretStr("")
    minio_secret_key: SecretStr = SecretStr("")


class Wanted(BaseModel):
    """A dataset to bring.

    Attributes:
        ref: Kaggle's name of it: owner and dataset.
        files: The files that are wanted; none named is all of them.
        sha256: What a file has to be, by its name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ref: Annotated[str, Field(pattern=_REF)]
    files: tuple[str, ...] = ()
    sha256: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = {}

    @field_validator("files")
    @classmethod
    def _below_the_folder(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            check_name(name)
        return names


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    datasets: list[Wanted]


def check_name(name: str) -> str:
    """The name of a file of a dataset, after making sure that it stays below the dataset's folder.

    Raises:
        ValueError: It would not, or is one that the job keeps for itself.
    """
    path = PurePosixPath(name)
    bad = path.is_absolute() or any(part.startswith(".") for part in path.parts) or not path.parts
    if bad or str(path) != name or "\\" in name or path.name.startswith("_") or not name.isprintable():
        raise ValueError(f"{name!r} is not a plain name of a file")
    return name


def read_wanted(path: Path, refs: list[str] | None = None) -> list[Wanted]:
    """The datasets to bring.

    Args:
        path: The YAML file.
        refs: Only those; None for all.

    Raises:
        FetchError: The file cannot be read, or does not name one of them.
    """
    try:
        found = _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))).datasets
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise FetchError(f"{path}: {place}: {first['msg']}; fix it there") from error
    except (OSError, yaml.YAMLError) as error:
        raise FetchError(f"{path}: cannot be read ({str(error).splitlines()[0]}); fix it") from error
    names = [one.ref for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise FetchError(f"{path}: {', '.join(twice)}: more than once; leave one of them")
    if unknown := sorted(set(refs or ()) - set(names)):
        raise FetchError(f"{path}: does not name {', '.join(unknown)}; there are {', '.join(names)}")
    return [one for one in found if not refs or one.ref in refs]
