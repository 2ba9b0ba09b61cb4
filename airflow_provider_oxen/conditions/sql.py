"""SQL of users: whether it is one expression, which columns it names, and whether it compares two of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_oxen.locked_duckdb import connect
from airflow_provider_oxen.redaction import one_line

if TYPE_CHECKING:
    import duckdb

__all__ = ["Expression", "parse_expression"]


class Expression(NamedTuple):
    """What is known of a SQL expression without any rows."""

    #: The columns that it names, in order, each once. Some may be names of other things, such as of a table's alias.
    names: tuple[str, ...]
    #: The two columns, where it is ``a = b`` and nothing else.
    compared: tuple[str, str] | None


@lru_cache(maxsize=64)
def parse_expression(sql: str) -> Expression:
    """
    Parse SQL as DuckDB does, without any rows.

    :raises ValueError: it is not one expression. The text says why not.
    """
    with closing(connect()) as connection:
        bare, enclosed, one = (_parse_statements(connection, text) for text in (sql, f"(\n{sql}\n)", "1"))
    selected = bare[0]["node"].get("select_list", []) if bare else []
    # In brackets it has to mean the same, and around it has to be what is around a 1, or it is more than an expression:
    # "a, b" would be a pair, and "SELECT count(*) FROM rows", a number that is true for every row.
    same = _without_places(bare) == _without_places(enclosed)
    for statements in (bare, one):
        for statement in statements:
            statement["node"].pop("select_list", None)
    if not same or len(selected) != 1 or _without_places(bare) != _without_places(one):
        raise ValueError("it is not one expression, or has parameters")
    (tree,) = selected
    names = tuple(dict.fromkeys(_name(ref) for ref in _find_columns(tree)))
    sides = (tree.get("left"), tree.get("right")) if tree.get("type") == "COMPARE_EQUAL" else ()
    columns = [_name(side) for side in sides if side["class"] == "COLUMN_REF" and len(side["column_names"]) == 1]
    return Expression(names, (columns[0], columns[1]) if len(columns) == 2 else None)


def _parse_statements(connection: duckdb.DuckDBPyConnection, selected: str) -> list[dict[str, Any]]:
    ((text,),) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [f"SELECT {selected}"]).fetchall()
    parsed = json.loads(text)
    if parsed["error"]:
        if (
            parsed["error_type"] != "parser"
        ):  # it may be another statement, which this function of DuckDB's cannot write
            return []
        raise ValueError(one_line(str(parsed["error_message"])))
    statements: list[dict[str, Any]] = parsed["statements"]
    return statements


def _without_places(tree: Any) -> Any:
    """Leave out where in the text each part stands."""
    if isinstance(tree, dict):
        return {key: _without_places(inner) for key, inner in tree.items() if not key.startswith("query_location")}
    return [_without_places(inner) for inner in tree] if isinstance(tree, list) else tree


def _find_columns(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if tree.get("class") == "COLUMN_REF":
            yield tree
        elif tree.get("class") != "SUBQUERY":  # whose columns may be of another table
            for inner in tree.values():
                yield from _find_columns(inner)
    elif isinstance(tree, list):
        for inner in tree:
            yield from _find_columns(inner)


def _name(ref: dict[str, Any]) -> str:
    names: list[str] = ref["column_names"]
    return names[1] if len(names) > 1 and names[0].lower() == "rows" else names[0]
