"""Embedded ClickHouse: one process that owns a chDB folder and answers ClickHouse's HTTP protocol.

chDB lets one process open a data folder, but a run, a reconciliation, a dashboard and a page all want to
read. This process owns the folder and answers as a ClickHouse server does, enough of it for
clickhouse-connect, its SQLAlchemy dialect and Airflow's provider: queries in the parameter or the body,
``FORMAT``, bound parameters (``param_x``), settings, sessions, streamed results, streamed and compressed
inserts, errors with ClickHouse's code and text. Not spoken: multipart external tables, compressed
responses, more than one account.

    CLICKHOUSE_PASSWORD=... python -m services.embedded_clickhouse --path .local/data/clickhouse --port 8123

What keeps it closed, the strongest first:

- the kernel (`sandbox`): the process reads no file outside its programs and its data, and connects to no port
  but the lake's;
- the engine's own access rights (`users.xml`): no source but the lake's S3 endpoint, and
  limits that no query lifts;
- `statement`: what the engine does before it asks for rights (a result written to a file, a table function
  without a right of its own);
- `login`: a password, no page in a browser, no other Host.
"""
