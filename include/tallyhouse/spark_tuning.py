"""How Spark is set up on one machine: by the bytes of raw that a run brings, the cores and the memory.

Only for a master of `local[…]`. A cluster's values are the cluster's own: they stand under `conf` in the
extra of the Spark connection.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

LARGE_BYTES = 128 * 1024 * 1024
"""Raw Parquet (zstd) above which a job runs long enough for the optimizing compiler to pay."""

_MB = 1024 * 1024
_PARTITION_BYTES = 16 * _MB
_MOST_PARTITIONS = 200
# A short job ends before the optimizing compiler has paid for itself: without it, and without the threads
# of a parallel collector, it takes half the processor time. Spark's code needs more room than the
# limited compiler reserves by default.
_SHORT = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC"
_LONG = "-XX:+UseParallelGC"


@dataclass(frozen=True)
class Machine:
    """What a driver on this machine may use.

    Attributes:
        cores: Processors that this process may run on.
        memory: Bytes of memory, of the container where there is one.
        classes: Archive of Spark's classes that its JVM made earlier (JEP 350); None where there is none.
    """

    cores: int
    memory: int
    classes: Path | None = None

    @classmethod
    def here(cls) -> Machine:
        """The machine, or the container, that this process runs on."""
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
            try:
                memory = min(memory, int(Path(limit).read_text("ascii")))
            except (OSError, ValueError):  # there is no such file, or it says `max`
                continue
        classes = Path(os.environ.get("TALLYHOUSE_SPARK_CLASSES", ""))
        return cls(len(os.sched_getaffinity(0)), memory, classes if classes.is_file() else None)


def local_conf(raw_bytes: int, machine: Machine) -> dict[str, str]:
    """Spark's settings for a job whose driver does all the work.

    Args:
        raw_bytes: Bytes of the raw Parquet that the run brought.
        machine: Where the driver runs.

    Returns:
        Settings for `spark-submit --conf`, or for a session that starts its own JVM.
    """
    large = raw_bytes > LARGE_BYTES
    # A sixth of the machine: the servers of a laptop's stack want the rest.
    heap = min(4096, max(1024, machine.memory // 6 // _MB)) if large else 1024
    partitions = min(_MOST_PARTITIONS, max(2 * machine.cores, raw_bytes // _PARTITION_BYTES))
    options = _LONG if large else _SHORT
    if machine.classes:
        # A JVM of another version, or with other jars, passes over it and loads its classes one by one.
        options += f" -XX:SharedArchiveFile={machine.classes}"
    return {
        "spark.driver.memory": f"{heap}m",
        "spark.driver.extraJavaOptions": options,
        "spark.sql.shuffle.partitions": str(partitions),
    }
