"""What a connection says of TLS, sockets, addresses and passwords holds on every path, on real servers."""

import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import mysql.connector
import psycopg
import pyarrow as pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from scripts.stack import fetch, stores
from scripts.stack.accounts import account, confined, give
from scripts.stack.context import Stack, open_log
from scripts.stack.provision import patiently
from scripts.stack.service import make_data, run_logged
from spark_jobs.warehouse import Warehouse
from tallyhouse.contracts import Column, ColumnType, TableContract
from tallyhouse.extract import mysql as mysql_source
from tallyhouse.extract import postgres as postgres_source
from tallyhouse.publish import staging
from tallyhouse.servers import MySqlServer, PostgresServer

pytestmark = pytest.mark.integration
USER, PASSWORD = "read@er:/%#", "p@:/%#?&= '\"\\ є"
TABLE = TableContract(
    "scratch",
    "words",
    (
        Column("id", ColumnType.parse("int"), False),
        Column("word", ColumnType.parse("varchar(20)"), True),
        Column("ratio", ColumnType.parse("float"), True),
        Column("bytes", ColumnType.parse("varbinary(9)"), True),
    ),
    ("id",),
    None,
    (),
    (),
)
ROWS = [
    {"id": 1, "word": "є🥞", "ratio": float.fromhex("0x1.99999ap-4"), "bytes": b"\xff\x00"},
    {"id": 2, "word": None, "ratio": None, "bytes": None},
]


@dataclass(frozen=True)
class Certificates:
    """An authority, and what it signed: by file."""

    folder: Path

    def file(self, name: str) -> str:
        return str(self.folder / name)


def make_certificates(folder: Path) -> Certificates:
    """An authority, certificates of a server at this machine and of a client, and a stranger's authority."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)

    def signed(name: str, by: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None) -> tuple:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        here = [x509.DNSName("localhost"), *(x509.IPAddress(ip_address(one)) for one in ("127.0.0.1", "::1"))]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(by[0] if by else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        )
        if by:
            builder = builder.add_extension(x509.SubjectAlternativeName(here), critical=False)
        certificate = builder.sign(by[1] if by else key, hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        (folder / f"{name}.key").chmod(0o600)
        return subject, key

    authority = signed("authority", None)
    signed("server", authority)
    signed("client", authority)
    signed("stranger", None)
    return Certificates(folder)


def free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def mysql_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[MySqlServer, Certificates, Path]]:
    """MySQL 9.7 that takes nothing but TLS, on 127.0.0.1 and ::1, with a user whose name has every sign."""
    stack = Stack()
    fetch.ensure_mysql(stack)
    name, port = "mysql-tls", free_port()
    service = stores.server(stack, name, "orders", "mysql", port)
    service.prepare()
    own = stack.sockets / name
    certificates = make_certificates(tmp_path_factory.mktemp("certificates"))
    theirs = make_certificates_for(stack, name, certificates, own / "tls")
    command = [
        *shlex.split(service.command),
        *("--bind-address=127.0.0.1,::1", "--require-secure-transport=ON"),
        *(f"--ssl-ca={theirs / 'authority.pem'}", f"--ssl-cert={theirs / 'server.pem'}"),
        f"--ssl-key={theirs / 'server.key'}",
    ]
    log = stack.logs / f"{name}.log"
    process = subprocess.Popen(
        [*confined(stack, name, service.sees()), *command],
        env=os.environ | service.environment,
        stdout=open_log(log),
        stderr=subprocess.STDOUT,
    )

    def runs() -> None:
        assert process.poll() is None, log.read_text(errors="replace")

    settings = stack.settings
    try:
        patiently(service.ready, 60, runs)
        with mysql.connector.connect(
            host="127.0.0.1", port=port, user="root", password=settings.mysql_root_password, autocommit=True
        ) as root:
            cursor = root.cursor()
            cursor.execute("CREATE DATABASE IF NOT EXISTS tls")
            cursor.execute("DROP TABLE IF EXISTS tls.words")
            cursor.execute(
                "CREATE TABLE tls.words "
                "(id int PRIMARY KEY, word varchar(20), ratio float, bytes varbinary(9))"
            )
            cursor.execute("INSERT INTO tls.words VALUES (1, 'є🥞', 0.1, x'ff00'), (2, NULL, NULL, NULL)")
            cursor.execute("DROP USER IF EXISTS %s@'%', 'with_certificate'@'%'", (USER,))
            cursor.execute("CREATE USER %s@'%' IDENTIFIED BY %s", (USER, PASSWORD))
            cursor.execute("CREATE USER 'with_certificate'@'%' IDENTIFIED BY 'w' REQUIRE X509")
            for user in (USER, "with_certificate"):
                cursor.execute("GRANT SELECT ON tls.* TO %s@'%'", (user,))
        yield MySqlServer("127.0.0.1", port, USER, PASSWORD, "tls"), certificates, own / "sock"
    finally:
        process.terminate()
        process.wait(60)


def make_certificates_for(stack: Stack, name: str, certificates: Certificates, folder: Path) -> Path:
    """A copy that the server's account can read."""
    give(stack, name, [folder])
    uid = account(stack, name)
    for file in certificates.folder.iterdir():
        copy = folder / file.name
        copy.write_bytes(file.read_bytes())
        copy.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(copy, uid, uid)
    return folder


def read_mysql(server: MySqlServer) -> list[dict]:
    """By both paths: the one that asks, and the one that reads."""
    with closing(server.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT COUNT(*) FROM words")
        assert cursor.fetchall() == [(2,)]
    stream = mysql_source.open_stream(server, TABLE, None)
    rows = [row for batch in stream.batches for row in batch.to_pylist()]
    assert len(rows) == stream.statement.rows
    return sorted(rows, key=lambda row: row["id"])


def test_mysql_takes_tls_where_the_server_asks_for_it(mysql_server) -> None:
    server, certificates, own_socket = mysql_server
    authority = certificates.file("authority.pem")
    for options in (
        {},  # MySQL's own clients take TLS where it is offered
        {"ssl_mode": "REQUIRED"},
        {"ssl_mode": "VERIFY_CA", "ssl_ca": authority},
        {"ssl_mode": "VERIFY_IDENTITY", "ssl_ca": authority},
        {"ssl_mode": "VERIFY_IDENTITY", "ssl_ca": authority, "host": "localhost"},
        {"ssl_mode": "VERIFY_IDENTITY", "ssl_ca": authority, "host": "::1"},
        {"ssl_mode": "PREFERRED", "socket": str(own_socket)},
    ):
        assert read_mysql(replace(server, **options)) == ROWS, options


def test_mysql_with_a_clients_certificate(mysql_server) -> None:
    server, certificates, _ = mysql_server
    files = {"ssl_cert": certificates.file("client.pem"), "ssl_key": certificates.file("client.key")}
    asked = replace(server, user="with_certificate", password="w", ssl_ca=certificates.file("authority.pem"))
    assert read_mysql(replace(asked, ssl_mode="VERIFY_IDENTITY", **files)) == ROWS
    with pytest.raises(mysql.connector.Error, match="Access denied"):
        asked.connect()


def test_mysql_is_not_entered_when_it_cannot_show_who_it_is(mysql_server) -> None:
    server, certificates, _ = mysql_server
    stranger = certificates.file("stranger.pem")
    for mode in ("VERIFY_CA", "VERIFY_IDENTITY"):
        wrong = replace(server, ssl_mode=mode, ssl_ca=stranger)
        with pytest.raises(mysql.connector.Error):
            wrong.connect()
        with pytest.raises(RuntimeError) as refused:
            mysql_source.open_stream(wrong, TABLE, None)
        assert PASSWORD not in str(refused.value)
    with pytest.raises(mysql.connector.Error, match="insecure transport"):
        replace(server, ssl_mode="DISABLED").connect()


@pytest.fixture(scope="module")
def postgres_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[PostgresServer, Certificates]]:
    """PostgreSQL that takes nothing but TLS and a client's certificate, on 127.0.0.1 and ::1."""
    stack, name, port = Stack(), "postgres-tls", free_port()
    data = stack.data / name
    certificates = make_certificates(tmp_path_factory.mktemp("certificates"))

    def initdb(fresh: Path) -> None:
        command = [str(stack.postgres / "bin/initdb"), "-D", str(fresh), "-U", "postgres", "--no-sync"]
        run_logged(stack, f"{name}-init", [*command, "--encoding=UTF8", "--auth=trust"], account=name)

    if not data.exists():
        make_data(stack, name, data, initdb)
    theirs = make_certificates_for(stack, name, certificates, stack.sockets / name)
    hba = data / "pg_hba.conf"
    hba.write_text("local all postgres trust\nhostssl all all all scram-sha-256 clientcert=verify-ca\n")
    options = {
        "listen_addresses": "127.0.0.1,::1",
        "port": port,
        "unix_socket_directories": theirs,
        "ssl": "on",
        "ssl_ca_file": theirs / "authority.pem",
        "ssl_cert_file": theirs / "server.pem",
        "ssl_key_file": theirs / "server.key",
    }
    log = stack.logs / f"{name}.log"
    process = subprocess.Popen(
        [
            *(*confined(stack, name), str(stack.postgres / "bin/postgres"), "-D", str(data)),
            *(part for key, value in options.items() for part in ("-c", f"{key}={value}")),
        ],
        env=os.environ,
        stdout=open_log(log),
        stderr=subprocess.STDOUT,
    )
    local = PostgresServer({"host": str(theirs), "port": str(port), "user": "postgres", "dbname": "postgres"})

    def runs() -> None:
        assert process.poll() is None, log.read_text(errors="replace")

    try:
        patiently(lambda: local.connect().close(), 60, runs)
        with local.connect(autocommit=True) as root:
            root.execute("DROP TABLE IF EXISTS public.words")
            root.execute("DROP SCHEMA IF EXISTS staging CASCADE")
            root.execute(f'DROP ROLE IF EXISTS "{USER}"')  # type: ignore[call-overload]
            quoted = PASSWORD.replace("'", "''")
            root.execute(f"CREATE ROLE \"{USER}\" LOGIN SUPERUSER PASSWORD '{quoted}'")  # type: ignore[call-overload]
            root.execute("CREATE TABLE words (id int PRIMARY KEY, word varchar(20), ratio real, bytes bytea)")
            root.execute("INSERT INTO words VALUES (1, 'є🥞', 0.1, '\\xff00'), (2, NULL, NULL, NULL)")
            root.execute("CREATE SCHEMA staging CREATE TABLE words (id int, word varchar(20))")
        extra = {
            "sslmode": "verify-full",
            "sslrootcert": certificates.file("authority.pem"),
            "sslcert": certificates.file("client.pem"),
            "sslkey": certificates.file("client.key"),
        }
        yield (
            PostgresServer.of(
                host="localhost", port=port, user=USER, password=PASSWORD, database="postgres", extra=extra
            ),
            certificates,
        )
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_postgresql_on_every_path(postgres_server, spark, host: str) -> None:
    server = PostgresServer({**postgres_server[0].options, "host": host})
    with server.connect() as connection:  # what asks
        assert connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchall() == [
            (True,)
        ]
        connection.execute("TRUNCATE staging.words")
    stream = postgres_source.open_stream(server.conninfo, TABLE, None)  # what reads
    rows = [row for batch in stream.batches for row in batch.to_pylist()]
    assert sorted(rows, key=lambda row: row["id"]) == ROWS
    batch = pa.RecordBatch.from_pylist([{"id": 7, "word": "seven"}])
    schema = pa.schema([pa.field("id", pa.int32()), pa.field("word", pa.string())])
    staging.copy_in(server.conninfo, "words", schema, [batch])  # what copies
    again = Warehouse(server).read(spark, "SELECT id, word FROM staging.words", {}, "id", "word")  # Spark
    assert [row.asDict() for row in again.collect()] == [{"id": 7, "word": "seven"}]


def test_postgresql_is_not_entered_when_it_cannot_show_who_it_is(postgres_server) -> None:
    server, certificates = postgres_server
    wrong = PostgresServer({**server.options, "sslrootcert": certificates.file("stranger.pem")})
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        wrong.connect()
    with pytest.raises(postgres_source.Error, match="certificate verify failed"):
        postgres_source.open_stream(wrong.conninfo, TABLE, None)


def test_an_option_that_a_path_would_drop_is_refused() -> None:
    parts = {"host": "h", "port": 1, "user": "u", "password": "p", "database": "d"}
    with pytest.raises(ValueError, match="compression, which extraction does not know"):
        MySqlServer.of(**parts, extra={"compression": "zstd"})
    with pytest.raises(ValueError, match="ssl_mode 'SOMETIMES' is not one of DISABLED"):
        MySqlServer.of(**parts, extra={"ssl_mode": "sometimes"})
    with pytest.raises(ValueError, match="iam, which PostgreSQL's client does not know"):
        PostgresServer.of(**parts, extra={"iam": True})
    with pytest.raises(ValueError, match="Java's driver has no option that does what sslcrl does"):
        _ = PostgresServer.of(**parts, extra={"sslcrl": "/f"}).jdbc
    with pytest.raises(ValueError, match="Java's driver needs one host name or address"):
        _ = PostgresServer.of(**parts | {"host": "/run/postgresql"}, extra={}).jdbc


def test_options_are_read_as_airflows_provider_has_them() -> None:
    parts = {"host": "h", "port": 1, "user": "u", "password": "p", "database": "d"}
    found = MySqlServer.of(
        **parts,
        extra={
            "client": "mysql-connector-python",
            "charset": "latin1",
            "ssl": '{"ca": "/ca", "cert": "/c", "key": "/k"}',
            "connect_timeout": "3",
        },
    )
    assert (found.ssl_mode, found.ssl_ca, found.ssl_cert, found.ssl_key) == ("VERIFY_CA", "/ca", "/c", "/k")
    assert (found.timeout, found.connectorx) == (3, None)
    assert "password" not in repr(found)
