"""Airflow's PostgreSQL: whether it takes what it is given, and whether Airflow's tables are there."""

from collections.abc import Iterator
from typing import Any

from nightshift.cli.checks import Finding, timed
from nightshift.errors import OutageError

OLDEST = 13  # of PostgreSQL, that Airflow supports


def database(url: str) -> Iterator[Finding]:
    """`url` has a login, of which nothing is printed."""
    from nightshift.stack.external_services import host

    if not url.startswith("postgres"):
        yield Finding(None, f"Airflow's database {host(url)} was not asked: only PostgreSQL is")
        return
    import psycopg2  # type: ignore[import-untyped]

    from nightshift.stack import http_client
    from nightshift.stack.health import libpq

    try:
        connection = psycopg2.connect(libpq(url), connect_timeout=int(http_client.TIMEOUT))
        try:
            with connection, connection.cursor() as cursor:
                _, took = timed(lambda: _round_trip(cursor))
                cursor.execute("SELECT to_regclass('alembic_version') IS NOT NULL")
                migrated = cursor.fetchone()[0]
        finally:
            connection.close()
    except psycopg2.Error as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise OutageError(
            f"PostgreSQL at {host(url)} does not do what Airflow needs ({reason}); check its address, login "
            "and rights"
        ) from error
    version = connection.server_version // 10_000
    yield Finding(
        version >= OLDEST,
        f"PostgreSQL {version} at {host(url)} makes, fills and drops a table in {took}"
        + ("" if version >= OLDEST else f"; Airflow needs {OLDEST} or newer"),
    )
    if not migrated:
        yield Finding(None, "Airflow's tables are not in its database; airflow db migrate makes them")


def _round_trip(cursor: Any) -> None:
    cursor.execute("CREATE TEMPORARY TABLE nightshift_doctor (number integer)")
    cursor.execute("INSERT INTO nightshift_doctor VALUES (1)")
    cursor.execute("DROP TABLE nightshift_doctor")
