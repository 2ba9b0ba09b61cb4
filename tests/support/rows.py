"""Files of rows in every format, as tests write them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FORMATS = ("parquet", "csv", "tsv", "jsonl", "ndjson", "json")


def write_rows(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows in the format that the file's name ends in. All have the same columns."""
    suffix = file.suffix
    if suffix in (".csv", ".tsv"):
        with file.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == ".json":
        file.write_text(json.dumps(rows))
    else:
        lines = file.with_suffix(".jsonl")
        lines.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        if suffix == ".parquet":
            import duckdb

            with duckdb.connect() as connection:
                names = {name: _kind([row[name] for row in rows]) for name in rows[0]}
                connection.read_json(str(lines), format="newline_delimited", columns=names).write_parquet(str(file))
        elif suffix != ".jsonl":
            lines.rename(file)
    return file


def _kind(values: Sequence[Any]) -> str:
    kinds = {type(value) for value in values} - {type(None)}
    return {int: "BIGINT", float: "DOUBLE"}.get(kinds.pop(), "VARCHAR") if len(kinds) == 1 else "VARCHAR"
