"""The services of events: the Kafka broker, the service that takes events in, its relay, the consumer."""

import base64
import shlex
import sys
import uuid
from pathlib import Path

from scripts.stack import readiness
from scripts.stack.accounts import of_service
from scripts.stack.context import Stack
from scripts.stack.service import Service, make_data, run_logged


def event_services(stack: Stack) -> list[Service]:
    """Every service of the group."""
    s = stack.settings
    python = shlex.quote(sys.executable)
    environment = event_environment(stack)

    def part(name: str, command: str, setting: str, port: int, after: tuple[str, ...], url: str) -> Service:
        return Service(
            name,
            f"{python} -m {command}",
            {setting: port},
            ready=lambda: readiness.http(f"http://{s.ingest_host}:{port}/health"),
            environment=environment,
            after=after,
            account=of_service(name),
            url=url,
            group="events",
        )

    return [
        kafka(stack),
        part(
            "ingest",
            f"services.ingest --host {s.ingest_host} --port {s.ingest_port}",
            "INGEST_PORT",
            s.ingest_port,
            ("databases",),
            s.ingest_url,
        ),
        part(
            "ingest-relay",
            "services.ingest.relay",
            "INGEST_RELAY_PORT",
            s.ingest_relay_port,
            ("databases", "bucket", "kafka"),
            "",
        ),
        part(
            "consumer",
            "services.consumer.consumer",
            "CONSUMER_PORT",
            s.consumer_port,
            ("kafka", "clickhouse"),
            "",
        ),
    ]


def event_environment(stack: Stack) -> dict[str, str]:
    """The settings of the event services, by the names that their documents have."""
    s = stack.settings
    return {
        "MINIO_ENDPOINT": s.minio_url,
        "MINIO_BUCKET": s.events_bucket,
        "MINIO_ACCESS_KEY": s.minio_root_user,
        "MINIO_SECRET_KEY": s.minio_root_password,
        "KAFKA_BOOTSTRAP": s.kafka_bootstrap,
        "KAFKA_TOPIC": s.kafka_topic,
        "POSTGRES_HOST": s.postgres_host,
        "POSTGRES_PORT": str(s.postgres_port),
        "POSTGRES_USER": s.ingest_user,
        "POSTGRES_PASSWORD": s.ingest_password,
        "POSTGRES_DB": s.ingest_db,
        "CLICKHOUSE_HOST": s.clickhouse_host,
        "CLICKHOUSE_PORT": str(s.clickhouse_http_port),
        "CLICKHOUSE_USER": s.clickhouse_user,
        "CLICKHOUSE_PASSWORD": s.clickhouse_password,
        "CLICKHOUSE_DB": s.events_clickhouse_db,
        "INGEST_RELAY_HOST": s.ingest_host,
        "INGEST_RELAY_PORT": str(s.ingest_relay_port),
        "CONSUMER_HOST": s.ingest_host,
        "CONSUMER_PORT": str(s.consumer_port),
    }


def kafka(stack: Stack) -> Service:
    """One broker that is its own controller (KRaft)."""
    s = stack.settings
    data, properties = stack.data / "kafka", stack.run / "kafka.properties"
    java = [
        *(str((stack.java_home or Path("/usr")) / "bin/java"), "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC"),
        # A small broker starts in half the time when it is not optimized to the last.
        *("-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"),
        *("-cp", f"{stack.kafka_jars}/*"),
    ]
    controller = f"{s.kafka_host}:{s.kafka_controller_port}"
    options = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"BROKER://{s.kafka_bootstrap},CONTROLLER://{controller}",
        "advertised.listeners": f"BROKER://{s.kafka_bootstrap}",
        "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "BROKER",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": 0,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        # One broker has no replicas to fall back on if the machine stops: at most a second is at stake.
        "log.flush.interval.ms": 1000,
        "log.retention.hours": 24 * 7,
        "log.segment.bytes": 128 * 1024 * 1024,
        "num.network.threads": 2,
        "num.io.threads": 4,
    }

    def prepare() -> None:
        properties.touch(mode=0o644)
        properties.chmod(0o644)
        properties.write_text("".join(f"{key}={value}\n" for key, value in options.items()))
        if not data.exists():
            make_data(stack, "kafka", data, format_storage)

    def format_storage(fresh: Path) -> None:
        aside = properties.with_suffix(".format")
        aside.write_text(properties.read_text().replace(str(data), str(fresh)))
        aside.chmod(0o644)
        # One that begins with a minus would be taken for an option.
        cluster = base64.b64encode(uuid.uuid4().bytes, b"AB").decode().rstrip("=")
        command = [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(aside)]
        run_logged(stack, "kafka-format", command, account="kafka")
        aside.unlink()

    return Service(
        "kafka",
        shlex.join([*java, "kafka.Kafka", str(properties)]),
        {"KAFKA_PORT": s.kafka_port, "KAFKA_CONTROLLER_PORT": s.kafka_controller_port},
        ready=lambda: readiness.kafka(s),
        prepare=prepare,
        url=s.kafka_bootstrap,
        account="kafka",
        told=(),
        owns=(data,),
        group="events",
    )
