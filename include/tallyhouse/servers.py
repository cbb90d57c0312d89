"""Database servers: one description of each, spelled for every driver that enters it.

Whatever a connection says of TLS, timeouts or sockets holds on every path alike: when the source is asked,
when it is read, when rows are copied, and when Spark reads the warehouse. An option that one of them could
not honour is refused by name, rather than dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urlencode

import mysql.connector
import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tallyhouse.settings import Settings

CONNECT_SECONDS = 10
"""How long to wait for a server that does not say otherwise."""
_IGNORED = ("client", "cursor", "charset", "local_infile", "allow_local_infile", "use_unicode")
"""Options of Airflow's hooks that say how its own connections behave; what is read has settings of ours."""


@dataclass(frozen=True)
class PostgresServer:
    """A PostgreSQL server and an account, in libpq's own words.

    Attributes:
        options: By libpq's keyword: `host`, `password`, `sslmode`, `options`, …
    """

    options: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(
        cls,
        *,
        host: str | None,
        port: int | None,
        user: str | None,
        password: str | None,
        database: str | None,
        extra: Mapping[str, Any],
    ) -> PostgresServer:
        """A server by the parts of a connection; the extra holds further keywords of libpq.

        Raises:
            ValueError: The extra has a keyword that libpq does not know.
        """
        known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
        more = {name: value for name, value in extra.items() if name not in _IGNORED}
        if unknown := sorted(more.keys() - known):
            raise ValueError(f"the extra has {', '.join(unknown)}, which PostgreSQL's client does not know")
        parts = {"host": host, "port": port, "user": user, "password": password, "dbname": database}
        given = {name: str(value) for name, value in parts.items() if value not in (None, "")}
        return cls({"connect_timeout": str(CONNECT_SECONDS), **given, **{k: str(v) for k, v in more.items()}})

    @classmethod
    def parse(cls, conninfo: str) -> PostgresServer:
        """A server by a libpq connection string or URI."""
        return cls({name: str(value) for name, value in conninfo_to_dict(conninfo).items()})

    @property
    def conninfo(self) -> str:
        """For libpq, and so for psycopg and ADBC; it holds the password, so it must not be logged."""
        return make_conninfo("", **self.options)

    def connect(self, **kwargs: Any) -> psycopg.Connection[Any]:
        """An open connection.

        Raises:
            psycopg.OperationalError: The server does not answer, or does not let us in.
        """
        return psycopg.connect(self.conninfo, **kwargs)

    @property
    def jdbc(self) -> dict[str, str]:
        """For Spark's JDBC reader: `url`, `user`, `password` and the driver's properties.

        Raises:
            ValueError: The driver has nothing that does the same as an option.
        """
        options = dict(self.options)
        host = options.pop("host", "127.0.0.1")
        if host.startswith("/") or "," in host:
            raise ValueError(f"Java's driver needs one host name or address, not {host!r}")
        # Java's driver compares an IPv6 address with the certificate's as it is spelled: without ::.
        place = f"[{':'.join(f'{int(one, 16):x}' for one in _groups(host))}]" if ":" in host else host
        database = quote(options.pop("dbname", ""), safe="")
        found = {"url": f"jdbc:postgresql://{place}:{options.pop('port', '5432')}/{database}"}
        for name, value in options.items():
            if name not in _JDBC:
                raise ValueError(f"Java's driver has no option that does what {name} does")
            if _JDBC[name]:
                found[_JDBC[name]] = value
        return found


def warehouse(settings: Settings) -> PostgresServer:
    """The warehouse, as its owner enters it."""
    return PostgresServer.of(
        host=settings.postgres_host,
        port=settings.postgres_port,
        user=settings.dwh_user,
        password=settings.dwh_password,
        database=settings.dwh_db,
        extra={"connect_timeout": 5},
    )


def _groups(address: str) -> list[str]:
    return ip_address(address).exploded.split(":")


# By libpq's keyword; empty where Java's driver does it anyway.
_JDBC = {
    "user": "user",
    "password": "password",
    "sslmode": "sslmode",
    "sslrootcert": "sslrootcert",
    "sslcert": "sslcert",
    "sslkey": "sslkey",
    "sslpassword": "sslpassword",
    "connect_timeout": "connectTimeout",
    "options": "options",
    "application_name": "ApplicationName",
    "fallback_application_name": "",
    "client_encoding": "",
    "keepalives": "tcpKeepAlive",
    "keepalives_idle": "",
    "keepalives_interval": "",
    "keepalives_count": "",
    "gssencmode": "gssEncMode",
    "channel_binding": "channelBinding",
}
_SSL_MODES = ("DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY")


@dataclass(frozen=True)
class MySqlServer:
    """A MySQL or MariaDB server and an account.

    Attributes:
        host: Name or address; also an IPv6 one.
        port: Its port.
        user: The account.
        password: Its password; any characters.
        database: The database.
        socket: Unix socket, in the place of host and port.
        ssl_mode: As MySQL's own clients have it; PREFERRED takes TLS where the server offers it.
        ssl_ca: File of the authorities that may have signed the server's certificate.
        ssl_cert: File of a client certificate.
        ssl_key: File of its key.
        timeout: Seconds to wait for the server to answer.
    """

    host: str = "127.0.0.1"
    port: int = 3306
    user: str = ""
    password: str = field(default="", repr=False)
    database: str = ""
    socket: str | None = None
    ssl_mode: str = "PREFERRED"
    ssl_ca: str | None = None
    ssl_cert: str | None = None
    ssl_key: str | None = None
    timeout: int = CONNECT_SECONDS

    @classmethod
    def of(
        cls,
        *,
        host: str | None,
        port: int | None,
        user: str | None,
        password: str | None,
        database: str | None,
        extra: Mapping[str, Any],
    ) -> MySqlServer:
        """A server by the parts of a connection; the extra is that of Airflow's MySQL provider.

        Raises:
            ValueError: The extra has an option that is not known, or a wrong value.
        """
        more = {name: value for name, value in extra.items() if name not in _IGNORED}
        ssl = more.pop("ssl", {})
        for name, value in (json.loads(ssl) if isinstance(ssl, str) else ssl).items():
            more[f"ssl_{name}"] = value
        verify = {name: bool(more.pop(name, False)) for name in ("ssl_verify_identity", "ssl_verify_cert")}
        disabled = bool(more.pop("ssl_disabled", False))
        mode = str(more.pop("ssl_mode", "")).upper().replace("-", "_")
        if not mode:
            implied = {
                "DISABLED": disabled,
                "VERIFY_IDENTITY": verify["ssl_verify_identity"],
                "VERIFY_CA": verify["ssl_verify_cert"] or "ssl_ca" in more,
                "REQUIRED": "ssl_cert" in more,
            }
            mode = next((name for name, said in implied.items() if said), "PREFERRED")
        if mode not in _SSL_MODES:
            raise ValueError(f"ssl_mode {mode!r} is not one of {', '.join(_SSL_MODES)}")
        names = {"unix_socket": "socket", "connect_timeout": "timeout", "connection_timeout": "timeout"}
        options = {names.get(name, name): value for name, value in more.items()}
        if unknown := sorted(options.keys() - {"socket", "timeout", "ssl_ca", "ssl_cert", "ssl_key"}):
            raise ValueError(f"the extra has {', '.join(unknown)}, which extraction does not know")
        if "timeout" in options:
            options["timeout"] = int(options["timeout"])
        return cls(
            host or "127.0.0.1",
            port or 3306,
            user or "",
            password or "",
            database or "",
            ssl_mode=mode,
            **options,
        )

    def connect(self, **kwargs: Any) -> Any:
        """An open connection of MySQL's own driver.

        Raises:
            mysql.connector.Error: The server does not answer, or does not let us in.
        """
        place = {"unix_socket": self.socket} if self.socket else {"host": self.host, "port": self.port}
        files = {"ssl_ca": self.ssl_ca, "ssl_cert": self.ssl_cert, "ssl_key": self.ssl_key}
        connection = mysql.connector.connect(
            **place,
            **{name: file for name, file in files.items() if file},
            user=self.user,
            password=self.password,
            database=self.database,
            connection_timeout=self.timeout,
            charset="utf8mb4",
            ssl_disabled=self.ssl_mode == "DISABLED",
            ssl_verify_cert=self.ssl_mode in ("VERIFY_CA", "VERIFY_IDENTITY"),
            ssl_verify_identity=self.ssl_mode == "VERIFY_IDENTITY",
            **kwargs,
        )
        if self.ssl_mode == "REQUIRED" and not _is_encrypted(connection):
            connection.close()
            raise mysql.connector.errors.InterfaceError("the server offers no TLS, and ssl_mode is REQUIRED")
        return connection

    def settled(self) -> MySqlServer:
        """The same server with TLS or without, where PREFERRED leaves that to what the server offers.

        Raises:
            mysql.connector.Error: The server does not answer, or does not let us in.
        """
        if self.ssl_mode != "PREFERRED":
            return self
        connection = self.connect()
        try:
            return replace(self, ssl_mode="REQUIRED" if _is_encrypted(connection) else "DISABLED")
        finally:
            connection.close()

    @property
    def connectorx(self) -> str | None:
        """The address for ConnectorX, which must not be logged; None where it lacks an option of this one."""
        if self.socket or self.ssl_cert or self.ssl_key:
            return None
        place = f"[{self.host}]" if ":" in self.host else self.host
        options = {} if self.ssl_mode == "DISABLED" else {"ssl-mode": self.ssl_mode}
        if self.ssl_ca and options:
            options["ssl-ca"] = self.ssl_ca
        options["tcp_connect_timeout_ms"] = str(self.timeout * 1000)
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"mysql://{login}@{place}:{self.port}/{quote(self.database, safe='')}?{urlencode(options)}"


def _is_encrypted(connection: Any) -> bool:
    cursor = connection.cursor()
    cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
    rows = cursor.fetchall()
    cursor.close()
    return bool(rows and rows[0][1])
