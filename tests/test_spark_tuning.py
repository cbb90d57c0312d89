"""Spark's settings on one machine follow the data, the cores and the memory."""

import os
import subprocess
from pathlib import Path

import pytest

from tallyhouse.spark_tuning import LARGE_BYTES, Machine, local_conf

GB = 1024**3
LAPTOP = Machine(cores=2, memory=24 * GB)


def test_a_small_run_starts_quickly() -> None:
    conf = local_conf(5_000_000, LAPTOP)
    assert conf["spark.driver.memory"] == "1024m"
    assert "TieredStopAtLevel=1" in conf["spark.driver.extraJavaOptions"]
    assert "UseSerialGC" in conf["spark.driver.extraJavaOptions"]
    assert conf["spark.sql.shuffle.partitions"] == "4"


def test_a_large_run_gets_the_compiler_and_memory() -> None:
    conf = local_conf(662_000_000, LAPTOP)
    assert conf["spark.driver.memory"] == "4096m"
    assert "TieredStopAtLevel" not in conf["spark.driver.extraJavaOptions"]
    assert "UseParallelGC" in conf["spark.driver.extraJavaOptions"]
    assert conf["spark.sql.shuffle.partitions"] == "39"


@pytest.mark.parametrize(("memory", "heap"), [(4 * GB, "1024m"), (12 * GB, "2048m"), (256 * GB, "4096m")])
def test_the_heap_leaves_room_for_the_servers(memory: int, heap: str) -> None:
    assert local_conf(LARGE_BYTES + 1, Machine(2, memory))["spark.driver.memory"] == heap


def test_partitions_follow_the_cores_of_the_machine() -> None:
    assert local_conf(0, Machine(8, 24 * GB))["spark.sql.shuffle.partitions"] == "16"
    assert local_conf(10**13, LAPTOP)["spark.sql.shuffle.partitions"] == "200"


def test_the_machine_is_seen() -> None:
    here = Machine.here()
    assert here.cores >= 1
    assert here.memory > GB


def test_a_jvm_maps_the_archive_of_sparks_classes(tmp_path: Path) -> None:
    classes = Machine.here().classes
    assert classes is not None  # set-up made it
    options = local_conf(0, Machine.here())["spark.driver.extraJavaOptions"].split()
    log = tmp_path / "classes.log"
    java = Path(os.environ["JAVA_HOME"]) / "bin/java"
    jars = f"{os.environ['TALLYHOUSE_SPARK_JARS']}/*"
    command = [
        *(str(java), *options, f"-Xlog:class+load:file={log}"),
        *("-cp", jars, "org.apache.spark.deploy.SparkSubmit", "--version"),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    loaded = [line for line in log.read_text().splitlines() if "] org.apache.spark." in line]
    assert [line for line in loaded if "shared objects file (top)" in line]
    assert not [line for line in loaded if ".jar" in line]


def test_without_an_archive_nothing_is_asked_for() -> None:
    assert "SharedArchiveFile" not in local_conf(0, LAPTOP)["spark.driver.extraJavaOptions"]
