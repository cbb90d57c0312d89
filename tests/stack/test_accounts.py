"""Who may enter the servers, and what an account may do there: tried on servers as the stack starts them."""

import os
import re
import secrets
import stat
import subprocess
import sys
from pathlib import Path

import boto3
import mysql.connector
import psycopg
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError
from mysql.connector.abstracts import MySQLConnectionAbstract

from scripts.stack.accounts import account, can_mount, give
from scripts.stack.context import MYSQL_STORES, Stack
from scripts.stack.services import services
from scripts.stack.supervise import RUNNING, Supervisor
from tallyhouse.settings import ROOT, Settings

# The passwords that this repository once held, for every checkout the same.
OLD = {
    "POSTGRES_PASSWORD": "postgres",
    "DWH_PASSWORD": "dwh_pass",
    "DWH_READER_PASSWORD": "dwh_reader_pass",
    "ETL_READER_PASSWORD": "etl_reader_pass",
    "PANCAKE_PASSWORD": "jordans_pass",
    "AIRFLOW_DB_PASSWORD": "airflow_pass",
    "INGEST_PASSWORD": "ingest_pass",
    "SUPERSET_DB_PASSWORD": "superset_pass",
    "MYSQL_ROOT_PASSWORD": "root_pass",
    "MYSQL_CATALOG_PASSWORD": "catalog_pass",
    "MYSQL_ORDERS_PASSWORD": "orders_pass",
    "MYSQL_PAYMENTS_PASSWORD": "payments_pass",
    "MINIO_ROOT_PASSWORD": "minioadmin",
}


def postgres(settings: Settings, user: str, password: str, database: str) -> psycopg.Connection:
    return psycopg.connect(
        host=settings.postgres_host,
        port=settings.postgres_port,
        user=user,
        password=password,
        dbname=database,
        connect_timeout=10,
        autocommit=True,
    )


def mysql_login(values: dict[str, str], store: str, user: str, password: str) -> MySQLConnectionAbstract:
    return mysql.connector.connect(
        host=values[f"MYSQL_{store.upper()}_HOST"],
        port=int(values[f"MYSQL_{store.upper()}_PORT"]),
        user=user,
        password=password,
        connection_timeout=10,
    )


# -- passwords ------------------------------------------------------------------------------------


def test_no_committed_file_holds_a_password() -> None:
    """Neither of the stack's settings, but for the three that documents print, nor one of the old ones."""
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    assigned = re.compile(r"""\b([A-Z][A-Z_]*_PASSWORD)\s*[=:]\s*['"]?([\w.@/+-]{3,})""")
    old = re.compile(rf"\b({'|'.join({*OLD.values()} - {'postgres', 'dwh_pass', 'minioadmin'})})\b")
    allowed = {
        *(("MYSQL_AUTH_PASSWORD", "auth_pass"), ("DWH_DOCUMENTED_PASSWORD", "dwh_pass")),
        ("POSTGRES_PASSWORD", "test_password"),  # of docker-compose.integration.yml, gone with its container
    }
    found = []
    for name in files:
        path = ROOT / name
        if not path.is_file() or name in ("tests/stack/test_accounts.py", "uv.lock"):
            continue
        text = path.read_bytes().decode(errors="replace")
        found += [f"{name}: {match}" for match in old.findall(text)]
        if path.suffix in (".env", ".yaml", ".yml", ".sh", ".md", ".j2") or path.name == ".env.example":
            pairs = {*assigned.findall(text)} - allowed
            found += [f"{name}: {key}={value}" for key, value in pairs if key in Settings.generated()]
    assert not found


@pytest.mark.integration
def test_the_passwords_once_in_the_repository_are_refused(settings: Settings) -> None:
    users = {
        "POSTGRES": (settings.postgres_user, "postgres"),
        "DWH": (settings.dwh_user, settings.dwh_db),
        "DWH_READER": (settings.dwh_reader_user, settings.dwh_db),
        "ETL_READER": (settings.etl_reader_user, settings.pancake_db),
        "PANCAKE": (settings.pancake_user, settings.pancake_db),
        "AIRFLOW_DB": (settings.airflow_db_user, settings.airflow_db),
        "INGEST": (settings.ingest_user, settings.ingest_db),
    }
    for key, (user, database) in users.items():
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            postgres(settings, user, OLD[f"{key}_PASSWORD"], database)
    for store in MYSQL_STORES:
        accounts = {"root": "MYSQL_ROOT_PASSWORD", settings.etl_reader_user: "ETL_READER_PASSWORD"}
        if store != "auth":  # a document prints that one
            accounts |= {f"{store}_user": f"MYSQL_{store.upper()}_PASSWORD"}
        for user, key in accounts.items():
            with pytest.raises(mysql.connector.Error, match="Access denied"):
                mysql_login(settings.environment(), store, user, OLD[key])
    lake = boto3.client(
        "s3",
        endpoint_url=settings.minio_url,
        region_name=settings.lake_region,
        aws_access_key_id=settings.minio_root_user,
        aws_secret_access_key=OLD["MINIO_ROOT_PASSWORD"],
        config=Config(retries={"max_attempts": 1}),
    )
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        lake.list_buckets()
    clickhouse = f"http://{settings.clickhouse_host}:{settings.clickhouse_http_port}/?query=SELECT+1"
    assert requests.get(clickhouse, timeout=10).status_code in (401, 403)


@pytest.mark.integration
def test_no_server_lets_anyone_in_without_a_password(settings: Settings) -> None:
    with postgres(settings, settings.postgres_user, settings.postgres_password, "postgres") as connection:
        rows = connection.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules").fetchall()
        assert rows == [("scram-sha-256",)]
    for store in MYSQL_STORES:
        with (
            mysql_login(settings.environment(), store, "root", settings.mysql_root_password) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(
                "SELECT user, host FROM mysql.user WHERE authentication_string = '' AND user <> 'mariadb.sys'"
            )
            assert cursor.fetchall() == [], store


# -- rights ---------------------------------------------------------------------------------------


@pytest.mark.integration
def test_a_role_of_postgresql_reaches_its_own_database_and_nothing_on_the_machine(settings: Settings) -> None:
    with postgres(settings, settings.postgres_user, settings.postgres_password, "postgres") as admin:
        rights = admin.execute(
            "SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
            " FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> %s",
            [settings.postgres_user],
        ).fetchall()
        assert {name for name, more in rights if more} == set()
        members = admin.execute(
            "SELECT r.rolname, m.rolname FROM pg_auth_members"
            " JOIN pg_roles r ON r.oid = roleid JOIN pg_roles m ON m.oid = member"
            " WHERE m.rolname !~ '^pg_'"
        ).fetchall()
        assert set(members) == {
            (settings.dwh_reader_user, settings.dwh_documented_user),
            ("pg_read_all_stats", settings.etl_reader_user),  # which sessions are open, for the watermark
        }
        entered = admin.execute(
            "SELECT rolname, datname FROM pg_roles, pg_database WHERE rolname !~ '^pg_' AND rolname <> %s"
            " AND datname = ANY(%s) AND has_database_privilege(rolname, datname, 'CONNECT')",
            [
                settings.postgres_user,
                [
                    *(settings.dwh_db, settings.pancake_db, settings.airflow_db, settings.ingest_db),
                    *(settings.kaggle_data_db, settings.dwh_rebuild_db),
                ],
            ],
        ).fetchall()
    assert set(entered) == {
        (settings.dwh_user, settings.dwh_db),
        (settings.dwh_user, settings.dwh_rebuild_db),
        (settings.dwh_reader_user, settings.dwh_db),
        (settings.dwh_documented_user, settings.dwh_db),
        (settings.pipeline_info_db_user, settings.dwh_db),
        (settings.pancake_user, settings.pancake_db),
        (settings.etl_reader_user, settings.pancake_db),
        (settings.airflow_db_user, settings.airflow_db),
        (settings.ingest_user, settings.ingest_db),
        (settings.kaggle_data_user, settings.kaggle_data_db),
    }


@pytest.mark.integration
@pytest.mark.parametrize(
    "role", ["dwh", "dwh_documented", "airflow_db", "ingest", "pancake", "kaggle_data", "pipeline_info_db"]
)
def test_no_service_and_no_fixed_password_runs_a_program_or_reads_a_file(
    settings: Settings, role: str
) -> None:
    user, password = getattr(settings, f"{role}_user"), getattr(settings, f"{role}_password")
    database = {
        "airflow_db": settings.airflow_db,
        "ingest": settings.ingest_db,
        "pancake": settings.pancake_db,
        "kaggle_data": settings.kaggle_data_db,
    }.get(role, settings.dwh_db)
    with postgres(settings, user, password, database) as connection:
        for attack in (
            "COPY (SELECT 1) TO PROGRAM 'id'",
            "COPY (SELECT 1) TO '/tmp/tallyhouse-attack'",
            "SELECT pg_read_file('/etc/passwd')",
            "SELECT lo_import('/etc/passwd')",
            "SELECT pg_ls_dir('/')",
            f"ALTER ROLE {user} SUPERUSER",
            "CREATE EXTENSION file_fdw",
        ):
            with pytest.raises(psycopg.Error, match=r"permission denied|must be|Only roles|not available"):
                connection.execute(attack)


@pytest.mark.integration
def test_the_login_that_documents_print_only_reads(settings: Settings) -> None:
    with postgres(
        settings, settings.dwh_documented_user, settings.dwh_documented_password, settings.dwh_db
    ) as connection:
        connection.execute("SELECT count(*) FROM dwh.dim_customer")
        for attack in (
            "DELETE FROM dwh.dim_customer",
            "DROP SCHEMA dwh CASCADE",
            "SELECT * FROM ods.users",
            "SELECT * FROM pipeline_info.run",
            "CREATE TABLE public.mine (a int)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(attack)


@pytest.mark.integration
def test_pipeline_info_owns_its_schema_and_sees_no_other(settings: Settings) -> None:
    with postgres(
        settings, settings.pipeline_info_db_user, settings.pipeline_info_db_password, settings.dwh_db
    ) as connection:
        schemas = connection.execute(
            "SELECT nspname, nspowner::regrole::text = current_user FROM pg_namespace"
            " WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
            " AND has_schema_privilege(oid, 'USAGE')"
        ).fetchall()
        assert dict(schemas) == {"pipeline_info": True, "public": False}
        for attack in (
            "SELECT * FROM dwh.dim_customer",
            "SELECT * FROM ods.users",
            "SELECT * FROM etl.run",
            "CREATE SCHEMA mine",
            "CREATE TABLE public.mine (a int)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(attack)
        connection.execute("CREATE TABLE pipeline_info.of_a_test (a int)")
        connection.execute("DROP TABLE pipeline_info.of_a_test")


@pytest.mark.integration
@pytest.mark.parametrize("store", MYSQL_STORES)
def test_mariadb_reads_and_writes_no_file(settings: Settings, store: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    values = settings.environment()
    key = f"MYSQL_{store.upper()}"
    logins = {
        "root": settings.mysql_root_password,
        settings.etl_reader_user: settings.etl_reader_password,
        values[f"{key}_USER"]: values[f"{key}_PASSWORD"],
    }
    for user, password in logins.items():
        with mysql_login(values, store, user, password) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT @@secure_file_priv, @@local_infile")
            ((folder, local),) = cursor.fetchall()
            assert local == 0
            places = [str(tmp_path / "taken"), "/tmp/tallyhouse-attack", f"{folder.rstrip('/')}/taken"]  # noqa: S108
            for place in places:
                with pytest.raises(mysql.connector.Error):
                    cursor.execute(f"SELECT 1 INTO OUTFILE '{place}'")
                assert not os.path.lexists(place)
            cursor.execute("SELECT LOAD_FILE('/etc/passwd')")
            assert cursor.fetchall() == [(None,)]
            cursor.execute("SHOW GRANTS")
            grants = " ".join(str(row[0]) for row in cursor.fetchall())
            if user != "root":
                assert not re.search(r"\b(FILE|SUPER|GRANT OPTION|CREATE USER|SHUTDOWN)\b", grants)
            if user == values[f"{key}_USER"]:
                assert "GRANT USAGE ON *.*" in grants


# -- the servers' own accounts --------------------------------------------------------------------

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="who is not root runs the servers as himself")


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def family(pid: int) -> set[int]:
    """A process and all that come of it."""
    found = {pid}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found |= family(int(child))
    return found


@AS_ROOT
@pytest.mark.integration
def test_a_server_has_an_account_of_its_own_and_no_capability() -> None:
    stack = Stack()
    states = Supervisor(stack).states()
    uids: dict[str, set[int]] = {}
    for service in services(stack):
        if service.account and states[service.name]["statename"] in RUNNING:
            for pid in family(states[service.name]["pid"]):
                found = status(pid)
                ids = {int(number) for number in (*found["Uid"].split(), *found["Gid"].split())}
                assert ids == {account(stack, service.account)}, f"{service.name}: {found['Name']}"
                assert found["Groups"] == "", service.name
                assert found["NoNewPrivs"] == "1", service.name
                for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
                    assert int(found[f"Cap{kind}"], 16) == 0, f"{service.name}: Cap{kind}"
                uids.setdefault(service.account, set()).update(ids)
    assert {"postgres", "minio", "clickhouse", *(f"mysql-{store}" for store in MYSQL_STORES)} <= uids.keys()
    assert all(0 not in ids for ids in uids.values())
    # What is not among them still runs as root: Airflow, with what it starts.
    assert {s.name for s in services(stack) if not s.account and not s.name.startswith("airflow-")} == set()
    if can_mount():
        assert len({frozenset(ids) for ids in uids.values()}) == len(uids), "two servers share an account"


@AS_ROOT
@pytest.mark.integration
def test_not_even_postgresqls_superuser_reaches_what_is_roots(settings: Settings, tmp_path: Path) -> None:
    """The attack that was seen: a shell on the machine by way of COPY."""
    stack, secret = Stack(), tmp_path / "secret"
    secret.write_text("of root\n")
    secret.chmod(0o600)
    tmp_path.chmod(0o755)
    with postgres(settings, settings.postgres_user, settings.postgres_password, "postgres") as admin:
        admin.execute("CREATE TEMP TABLE taken (line text)")
        admin.execute("COPY taken FROM PROGRAM 'id -u'")
        assert admin.execute("SELECT line FROM taken").fetchall() == [(str(account(stack, "postgres")),)]
        for file in (secret, stack.local / "secrets.json", stack.run / "env.sh", stack.connections_file):
            with pytest.raises(psycopg.Error, match=r"Permission denied"):
                admin.execute(f"COPY taken FROM '{file}'")
            with pytest.raises(psycopg.Error, match=r"exit code|Permission denied"):
                admin.execute(f"COPY taken FROM PROGRAM 'cat {file}'")
        for place in (tmp_path / "planted", ROOT / "planted", stack.local / "planted", Path("/root/planted")):
            with pytest.raises(psycopg.Error):
                admin.execute(f"COPY taken TO PROGRAM 'cat > {place}'")
            assert not os.path.lexists(place)
        # Other servers' data, and what other processes were told.
        for other in services(stack):
            for folder in other.owns if other.account != "postgres" else ():
                if folder.exists():
                    with pytest.raises(psycopg.Error):
                        admin.execute(f"COPY taken FROM PROGRAM 'ls {folder}'")
        # What it was told itself: no password of another server.
        admin.execute("TRUNCATE taken")
        admin.execute("COPY taken FROM PROGRAM 'env'")
        told = "\n".join(line for (line,) in admin.execute("SELECT line FROM taken").fetchall())
        assert "PATH=" in told
        assert [value for value in stack.secrets.values() if value in told] == []
        pid = Supervisor(stack).states()["minio"]["pid"]
        with pytest.raises(psycopg.Error):
            admin.execute(f"COPY taken FROM PROGRAM 'cat /proc/{pid}/environ'")


@pytest.mark.integration
def test_nobody_else_may_read_what_the_stack_keeps() -> None:
    """Each file and folder below is for one account; the upper folders may be passed, and not be listed."""
    stack = Stack()
    passed = {stack.local, stack.data, stack.logs, stack.run, stack.run / "prometheus"}
    shown = ("*.passwd", "*.properties", "prometheus.yml")  # no secret, and the servers' accounts read them
    open_to_others = []
    for where, folders, files in os.walk(stack.local):
        # MySQL gives what is in its data folder modes of its own; the folder itself is closed, as asserted.
        of_mysql = Path(where).name.endswith("-mysql")
        folders[:] = [] if of_mysql else folders
        for path in (Path(where), *(Path(where, name) for name in ([] if of_mysql else files))):
            if path.is_symlink() or path.is_socket() or not path.exists() or any(map(path.match, shown)):
                continue
            mode = stat.S_IMODE(path.stat().st_mode)
            allowed = 0o711 if path in passed else 0o555 if path.name == "closed" else 0o700
            if mode & ~allowed & 0o077:
                open_to_others.append(f"{path}: {mode:o}")
    assert open_to_others == []


@AS_ROOT
@pytest.mark.skipif(not can_mount(), reason="no mount namespace may be made here")
def test_a_checkout_behind_a_closed_folder_is_reached_and_what_is_beside_it_is_not(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    tmp_path.chmod(0o755)
    (closed / "deep/checkout/data").mkdir(parents=True)
    (closed / "deep/checkout/code").write_text("code\n")
    (closed / "beside").write_text("private\n")
    closed.chmod(0o700)
    uid = 1_879_048_192 + secrets.randbelow(1000)
    (tmp_path / "passwd").write_text(f"root:x:0:0::/:/bin/sh\nserver:x:{uid}:{uid}::/:/bin/sh\n")
    os.chown(closed / "deep/checkout/data", uid, uid)
    script = "id -un; cat code; ls -A {0}; touch data/mine; ls -A {0}/deep; touch here; umask"
    done = subprocess.run(
        [
            *(sys.executable, "-I", str(ROOT / "scripts/stack/confine.py"), f"--uid={uid}"),
            *(f"--passwd={tmp_path / 'passwd'}", f"--see={closed / 'deep/checkout'}", "--see=/usr"),
            *("--", "sh", "-c", script.format(closed)),
        ],
        cwd=closed / "deep/checkout",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["server", "code", "deep", "checkout", "0077"]
    assert "here" in done.stderr
    assert (closed / "deep/checkout/data/mine").stat().st_uid == uid
    assert (closed / "beside").read_text() == "private\n"  # hidden from it alone


@AS_ROOT
def test_data_of_an_older_version_is_given_to_the_account(tmp_path: Path, settings: Settings) -> None:
    stack = Stack(settings.model_copy(update={"tallyhouse_local": tmp_path}))
    data = tmp_path / "data/postgres"
    (data / "base").mkdir(parents=True)
    (data / "base/1").write_text("row")
    outside = tmp_path / "outside"
    outside.write_text("of root")
    (data / "link").symlink_to(outside)
    give(stack, "postgres", [data])
    uid = account(stack, "postgres")
    assert {path.lstat().st_uid for path in (data, data / "base", data / "base/1", data / "link")} == {uid}
    assert outside.stat().st_uid == 0
    assert data.stat().st_mode & 0o777 == 0o700


def test_what_an_older_version_left_open_is_shut(tmp_path: Path, settings: Settings) -> None:
    local = tmp_path / "local"
    (local / "data/minio/bucket").mkdir(parents=True)
    (local / "data/minio/bucket/object").write_text("x")
    for path in (local, *local.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    Stack(settings.model_copy(update={"tallyhouse_local": local})).make_folders()
    assert local.stat().st_mode & 0o777 == 0o711
    assert (local / "data/minio").stat().st_mode & 0o777 == 0o700
    assert (local / "data/minio/bucket/object").stat().st_mode & 0o777 == 0o600
