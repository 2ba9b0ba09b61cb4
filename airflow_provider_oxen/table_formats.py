"""How the files of each format are read: the SQL that describes a file, its columns and its rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from airflow_provider_oxen.locked_duckdb import quote_name, quote_text

__all__ = [
    "AS_WRITTEN",
    "ROWS",
    "Format",
    "find_format",
    "find_same_names",
    "may_be_renamed",
    "top_names",
]

#: The name of the rows in SQL.
ROWS = "rows"
#: The same rows of a text file, every cell as it is written there.
AS_WRITTEN = "rows as written"

_CSV = (
    "quote='\"', escape='\"', skip=0, comment='', nullstr='', null_padding=false, "
    # The default holds 32 MB at a time. A row may be as long as DuckDB's default.
    "buffer_size=8000000, max_line_size=2000000"
)
#: A table of many columns is no single column of maps.
_JSON = "map_inference_threshold=-1"


class Format(NamedTuple):
    """How the files of one format are read."""

    name: str
    reader: str
    options: str = ""
    #: The least in which DuckDB read 5 million short rows, with room to spare. To find the types in a JSON array, it
    #: parses 32 MB at once, which takes 300 MB where rows are small.
    memory_limit: str = "128MB"

    def select(self, path: str, *more: str) -> str:
        """Write a query for all rows."""
        # Otherwise a folder such as ``dt=1`` would be a column.
        options = ["hive_partitioning=false", self.options, *more]
        if self.reader == "read_csv" and not any(option.startswith("header") for option in more):
            options.append("header=true")
        written = "".join(f", {option}" for option in options if option)
        return f"SELECT * FROM {self.reader}({quote_text(path)}{written})"  # noqa: S608

    def describe(self, path: str) -> str:
        """Write a query for the columns. The types of a text file's are found from all its rows."""
        return "DESCRIBE " + (
            self.select(path) if self.reader == "read_parquet" else self.select(path, "sample_size=-1")
        )

    def choose_types(self, columns: Mapping[str, str]) -> dict[str, str]:
        """Choose the types that columns are read with, from those that DuckDB found."""
        return {name: _json_type(kind) if self.reader == "read_json" else kind for name, kind in columns.items()}

    def create_views(self, path: str, columns: Mapping[str, str]) -> list[str]:
        """Write what makes the rows known to SQL."""
        typed = written = self.select(path)
        if self.reader == "read_json":
            typed = written = self.select(path, _write_columns(columns))
        elif self.reader == "read_csv":
            typed = self.select(path, "auto_detect=false", _write_columns(columns))
            written = self.select(path, "auto_detect=false", _write_columns(dict.fromkeys(columns, "VARCHAR")))
        return [f"CREATE VIEW {quote_name(view)} AS {how}" for view, how in ((ROWS, typed), (AS_WRITTEN, written))]

    def select_names(self, path: str, columns: Sequence[str]) -> str:
        """Write a query for the names of the columns as they are in the file. :func:`top_names` reads what it gives."""
        if self.reader == "read_parquet":
            return f"SELECT name, num_children FROM parquet_schema({quote_text(path)})"  # noqa: S608
        if self.reader == "read_csv":
            cells = _write_columns({f"c{number}": "VARCHAR" for number in range(len(columns))})
            heading = self.select(path, "auto_detect=false", "header=false", cells)
            return f"SELECT unnest([*COLUMNS(*)]), 0 FROM ({heading} LIMIT 1)"  # noqa: S608
        objects = self._replace(reader="read_json_objects", options=self.options.split(", ")[0]).select(path)
        return f"SELECT DISTINCT unnest(json_keys(json)), 0 FROM ({objects}) ORDER BY 1"  # noqa: S608


FORMATS = {
    "parquet": Format("Parquet", "read_parquet"),
    "csv": Format("CSV", "read_csv", f"delim=',', {_CSV}"),
    "tsv": Format("TSV", "read_csv", f"delim='\t', {_CSV}"),
    "jsonl": Format("JSON lines", "read_json", f"format='newline_delimited', {_JSON}"),
    "ndjson": Format("JSON lines", "read_json", f"format='newline_delimited', {_JSON}"),
    "json": Format("JSON", "read_json", f"format='auto', {_JSON}", memory_limit="320MB"),
}


def find_format(suffix: str) -> Format | str:
    """Return the format of the files with a suffix, in any case; a text where there is none: what is wrong."""
    form = FORMATS.get(suffix.lower().removeprefix("."))
    return (
        form or f"conditions on rows can read {', '.join(FORMATS)}, but the results are in a file ending in {suffix!r}"
    )


def may_be_renamed(columns: Iterable[str]) -> bool:
    """Check whether DuckDB may have renamed a column: of ``intent`` and ``Intent``, it makes ``Intent_1``."""
    names = [name.lower() for name in columns]
    bases = {re.sub(r"_[0-9]+$", "", name) for name in names if re.search(r"_[0-9]+$", name)}
    return len(set(names)) < len(names) or not bases.isdisjoint(names)


def top_names(found: Sequence[tuple[Any, ...]], *, has_root: bool) -> list[str]:
    """Read the names of the columns, without those of the fields inside them."""
    names, inside = [], 0
    for name, fields in found[1:] if has_root else found:
        if inside:
            inside -= 1
        elif name is not None:
            names.append(str(name))
        inside += fields or 0
    return names


def find_same_names(names: Iterable[str]) -> tuple[str, str] | None:
    """Find two columns that are one for SQL, where the case of a name does not count."""
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in seen:
            return seen[name.lower()], name
        seen[name.lower()] = name
    return None


def _write_columns(columns: Mapping[str, str]) -> str:
    return "columns={" + ", ".join(f"{quote_text(name)}: {quote_text(kind)}" for name, kind in columns.items()) + "}"


def _json_type(kind: str) -> str:
    """
    Read values of several types, or none, as their texts, without the quotes of JSON.

    So are dates and the like: they are texts in JSON, and DuckDB would not keep how they are written.
    """
    return re.sub(r'^(JSON|"NULL"|DATE|TIME[^\[]*|UUID)(?=(\[\])*$)', "VARCHAR", kind)
