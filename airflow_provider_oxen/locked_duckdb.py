"""A DuckDB in memory that can reach nothing but one file, and how a query is run so that a signal ends it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

__all__ = ["connect", "quote_name", "quote_text", "run"]


def connect(memory_limit: str = "64MB", *, allowed: Path | None = None) -> duckdb.DuckDBPyConnection:
    """
    Start a DuckDB in memory that can reach nothing.

    :param allowed: a file that it can reach all the same.
    """
    import duckdb

    connection = duckdb.connect(":memory:", config={"threads": 1, "memory_limit": memory_limit})
    try:
        for setting, value in {
            "allowed_paths": "[]" if allowed is None else f"[{quote_text(str(allowed))}]",
            "temp_directory": "''",
            "enable_progress_bar": "false",  # or it is in the task's log
            "python_enable_replacements": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "enable_external_access": "false",
            "lock_configuration": "true",  # the last, as nothing can be set after it
        }.items():
            connection.execute(f"SET {setting} = {value}")
    except BaseException:
        connection.close()
        raise
    return connection


def run(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    """
    Run a query on a thread of its own, so that what a signal raises comes through: Airflow stops tasks by signals.

    On the main thread, a signal ends the query too, but DuckDB then raises a RuntimeError of its own.
    """
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: connection.execute(query).fetchall())
        try:
            return running.result()
        except BaseException:
            while not running.done():  # it may not have begun
                connection.interrupt()
                wait([running], timeout=0.1)
            raise


def quote_name(name: str) -> str:
    """Write a name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """Write a text in SQL."""
    return "'" + text.replace("'", "''") + "'"
