"""The four TechMarket stores, each a private server: MariaDB, or MySQL where STORES_ENGINE says so."""

import shlex
from pathlib import Path

from scripts.stack import readiness
from scripts.stack.accounts import account, give
from scripts.stack.context import Stack, write_private
from scripts.stack.service import HOST, Service, make_data, run_logged

UMASK = {"UMASK": "0600", "UMASK_DIR": "0700"}  # the servers set their own, and would let their group read


def store_server(stack: Stack, store: str) -> Service:
    """One of the four TechMarket stores."""
    port = int(stack.environment[f"MYSQL_{store.upper()}_PORT"])
    return server(stack, f"mysql-{store}", store, stack.settings.stores_engine, port)


def server(stack: Stack, name: str, store: str, engine: str, port: int) -> Service:
    """A private server with a store's database and accounts.

    Args:
        stack: whose folders, programs and passwords.
        name: of the service, its account and its folders.
        store: whose settings it takes, of MYSQL_STORES.
        engine: `mariadb` or `mysql`.
        port: on 127.0.0.1.
    """
    key = f"MYSQL_{store.upper()}"
    values = stack.environment | {f"{key}_PORT": str(port)}
    # Neither engine reads what the other one wrote.
    data = stack.data / (name if engine == "mariadb" else f"{name}-mysql")
    init_file, closed = stack.run / f"{name}.init.sql", stack.run / "closed"
    own = stack.sockets / name

    def prepare() -> None:
        closed.mkdir(exist_ok=True)
        closed.chmod(0o555)
        give(stack, name, [own])
        write_private(init_file, accounts_sql(values, key, engine), account(stack, name))
        if not data.exists():
            make_data(stack, name, data, lambda fresh: install(stack, engine, fresh, own, name))

    command = [
        *_command(stack, engine, data, own, port),
        f"--init-file={init_file}",
        # No statement reads or writes a file: not the server's (the folder is empty and nobody may write
        # into it), nor the client's.
        *(f"--secure-file-priv={closed}", "--local-infile=OFF"),
    ]
    return Service(
        name,
        shlex.join(command),
        {f"{key}_PORT": port},
        ready=lambda: readiness.mysql_store(values, store),
        prepare=prepare,
        environment=UMASK,
        account=name,
        told=(),
        owns=(data, own),
        url=f"{HOST}:{port}",
    )


def _command(stack: Stack, engine: str, data: Path, own: Path, port: int) -> list[str]:
    return [
        *(*_program(stack, engine), f"--datadir={data}"),
        *(f"--bind-address={HOST}", f"--port={port}", f"--socket={own / 'sock'}"),
        # Each server clears the tables that it finds in its temporary folder at its start.
        *(f"--pid-file={own / 'pid'}", f"--tmpdir={own}"),
        # updated_at is stored in the session's time.
        "--default-time-zone=+00:00",
        *("--character-set-server=utf8mb4", "--collation-server=utf8mb4_unicode_520_ci"),
        *("--skip-name-resolve", "--max-connections=60"),
        *("--innodb-buffer-pool-size=192M", "--max-allowed-packet=64M"),
        # A laptop's disk: one flush per second instead of one per commit. A crash of the machine may lose
        # the last second of made-up shopping; a crash of the server loses nothing.
        *("--innodb-flush-log-at-trx-commit=2", "--innodb-flush-method=fsync"),
        *_PERFORMANCE_SCHEMA,
        *(_MARIADB if engine == "mariadb" else _MYSQL),
    ]


# Extraction asks it when each open transaction and statement began.
_PERFORMANCE_SCHEMA = (
    "--performance-schema=ON",
    *(
        f"--performance-schema-consumer-{name}=ON"
        for name in ("events-statements-current", "events-statements-history", "events-transactions-current")
    ),
    "--performance-schema-instrument=statement/%=ON",
    "--performance-schema-instrument=transaction=ON",
    # Of a transaction with more statements than this, it is not known how long the first one had waited.
    "--performance-schema-events-statements-history-size=100",
)
_MARIADB = (
    # It would make itself a certificate at every start: ten seconds of arithmetic for a loopback.
    *("--skip-ssl", "--innodb-log-file-size=96M"),
)
_MYSQL = (
    # Nothing replicates from it; a second protocol on a second port is not needed either.
    *("--disable-log-bin", "--mysqlx=OFF", "--innodb-redo-log-capacity=192M"),
)


def _program(stack: Stack, engine: str) -> list[str]:
    if engine == "mariadb":
        return [str(stack.mariadb / "bin/mariadbd"), "--no-defaults", f"--basedir={stack.mariadb}"]
    base = stack.mysql / "usr"
    share, libraries = base / "share/mysql", base / "lib/x86_64-linux-gnu"
    return [
        # Its C library may be newer than the machine's, so the loader that came with it starts it.
        *(str(base / "lib64/ld-linux-x86-64.so.2"), "--library-path", str(libraries)),
        *(str(base / "sbin/mysqld"), "--no-defaults", f"--basedir={base}", f"--lc-messages-dir={share}"),
        *(f"--character-sets-dir={share / 'charsets'}", f"--plugin-dir={base / 'lib/mysql/plugin'}"),
    ]


def accounts_sql(values: dict[str, str], key: str, engine: str) -> str:
    """SQL that a store runs at each start: its database and accounts, as the settings have them."""

    def quoted(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def accounts(user: str, password: str) -> list[str]:
        who = f"{quoted(user)}@'%'"
        # The second one sets the password of a data folder made with other settings.
        return [
            f"CREATE USER IF NOT EXISTS {who} IDENTIFIED BY {quoted(password)};",
            f"ALTER USER {who} IDENTIFIED BY {quoted(password)};",
        ]

    # MariaDB's installation made others, without a password; MySQL's makes the one of localhost alone.
    others = [
        "DELETE FROM mysql.global_priv WHERE User = 'root' AND Host NOT IN ('localhost', '%');",
        "FLUSH PRIVILEGES;",
    ]
    database, owner, reader = values[f"{key}_DB"], values[f"{key}_USER"], values["ETL_READER_USER"]
    lines = [
        f"CREATE DATABASE IF NOT EXISTS `{database}` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci;",
        *accounts("root", values["MYSQL_ROOT_PASSWORD"]),
        "GRANT ALL PRIVILEGES ON *.* TO 'root'@'%' WITH GRANT OPTION;",
        *(others if engine == "mariadb" else []),
        f"ALTER USER 'root'@'localhost' IDENTIFIED BY {quoted(values['MYSQL_ROOT_PASSWORD'])};",
        *accounts(owner, values[f"{key}_PASSWORD"]),
        f"GRANT ALL PRIVILEGES ON `{database}`.* TO {quoted(owner)}@'%';",
        *accounts(reader, values["ETL_READER_PASSWORD"]),
        # They show the open transactions of others, which the watermark needs.
        f"GRANT PROCESS ON *.* TO {quoted(reader)}@'%';",
        f"GRANT SELECT ON performance_schema.* TO {quoted(reader)}@'%';",
        f"GRANT SELECT ON `{database}`.* TO {quoted(reader)}@'%';",
    ]
    return "\n".join(lines) + "\n"


def install(stack: Stack, engine: str, into: Path, tmp: Path, name: str) -> None:
    """Make an empty data folder.

    Args:
        stack: whose programs.
        engine: `mariadb` or `mysql`.
        into: the folder, which is there and empty.
        tmp: a folder of the server's own.
        name: of the log, and of the account that does it.
    """
    if engine == "mariadb":
        script = stack.mariadb / "scripts/mariadb-install-db"
        command = [
            *(str(script), "--no-defaults", f"--basedir={stack.mariadb}", f"--datadir={into}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"),
            *(f"--tmpdir={tmp}", "--innodb-log-file-size=96M", "--skip-ssl"),
        ]
    else:
        command = [
            *(*_program(stack, engine), "--initialize-insecure", f"--datadir={into}", f"--tmpdir={tmp}"),
            *(*_MYSQL, "--innodb-flush-method=fsync"),
        ]
    run_logged(stack, f"{name}-init", command, environment=UMASK, account=name)
