"""
What it takes to judge the rows of an evaluation's results: memory and time, by the number of rows.

Run ``python -m benchmarks.judging``. A process of its own imports Airflow, downloads the results from a server on this
machine, and checks three conditions on them: no missing answers, enough right ones, none too long. Its *peak* is the
most memory that was resident at any time, Airflow's included. Its *growth* is the peak without what a process takes
that imports Airflow and reads nothing.

Each way is measured in turns, round by round. All have to count the same rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from airflow_provider_oxen.testing import LocalHub
from benchmarks.section import Report, Target, command_line, spread
from benchmarks.vendor_hub import VendorHub

__all__ = ["WAYS", "run"]

#: Ways to judge, by the name that ``judges`` has for them, in the words of tables and plots.
WAYS = {
    "oxen": "this provider",
    "pandas": "requests and pandas",
    "two_columns": "requests and pandas, two columns",
    "oxenai": "oxenai and pandas",
}
#: Numbers of rows in Parquet. The last one is what the targets are stated for.
_ROWS, _SHORT_ROWS = (50_000, 500_000, 5_000_000), (1_000, 2_000)
#: Numbers of rows in the formats of text, each measured once.
_TEXT_ROWS, _SHORT_TEXT_ROWS = (100_000, 1_000_000), (1_000,)
_TEXT_FORMATS = {"csv": "FORMAT csv, HEADER", "jsonl": "FORMAT json", "json": "FORMAT json, ARRAY true"}
_TEXT_WAYS = ("oxen", "pandas")
_ROUNDS = 3
_LIMIT_MB = 200.0
#: The most that the peak may grow by, in MB, when there are a hundred times as many rows.
_LIMIT_MORE_MB = 20.0
_PROCESS_SECONDS = 120

_NAMES = {"namespace": "ox", "repo_name": "customer-intents"}
#: One answer in 25 is wrong.
_TABLE = """
    SELECT i AS id, 'What has become of my order ' || hash(i)::VARCHAR || '? It was to be here a week ago.' AS text,
        'intent_' || (hash(i) % 77)::VARCHAR AS label,
        CASE WHEN i % 25 = 0 THEN 'other' ELSE 'intent_' || (hash(i) % 77)::VARCHAR END AS intent
    FROM range({rows}) AS numbers(i)
"""


def run(*, short: bool, report: Report) -> dict[str, Any]:
    """
    Measure.

    :param short: few rows, one round.
    :param report: called with what is being done.
    :return: ``base_mb``, the peak of a process that reads nothing; ``files``, for each file its ``format``, ``rows``
        and ``bytes``, and in ``ways``, for each way, ``peak_mb``, ``growth_mb`` and ``seconds``, each summed up by
        :func:`spread`.
    """
    files = [("parquet", rows) for rows in (_SHORT_ROWS if short else _ROWS)]
    files += [(suffix, rows) for suffix in _TEXT_FORMATS for rows in (_SHORT_TEXT_ROWS if short else _TEXT_ROWS)]
    rounds = 1 if short else _ROUNDS
    base = spread([_measure("nothing", {}, os.environ)["peak_mb"] for _ in range(rounds)])
    report(f"Airflow alone: {base['median']:.0f} MB")
    measured = [_judge(suffix, rows, base["median"], rounds, report) for suffix, rows in files]
    own = [file["ways"]["oxen"] for file in measured if file["format"] == "parquet"]
    rows = f"{files[len(own) - 1][1]:,}"
    targets = [
        Target(f"MB resident while {rows} rows are judged, Airflow's included", _LIMIT_MB, own[-1]["peak_mb"]["most"]),
        Target(
            f"MB more for {rows} rows than for {files[0][1]:,}",
            _LIMIT_MORE_MB,
            own[-1]["peak_mb"]["median"] - own[0]["peak_mb"]["median"],
        ),
    ]
    return {"base_mb": base, "files": measured, "targets": [target.plain() for target in targets]}


def _judge(suffix: str, rows: int, base_mb: float, rounds: int, report: Report) -> dict[str, Any]:
    """Judge one file in each way."""
    is_text = suffix in _TEXT_FORMATS
    ways, rounds = (_TEXT_WAYS, 1) if is_text else (tuple(WAYS), rounds)
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oxen-bench-")))
        file = directory / f"intents.{suffix}"
        _write(file, rows)
        hub = stack.enter_context(LocalHub())
        vendor = stack.enter_context(VendorHub(file))
        task, environment = _prepare(hub, vendor, file)
        environment |= {"HOME": str(directory)}  # the vendor's client stores the key there
        _measure("oxen", task, environment)  # the hub reads the file whole when it is first asked about it
        for _ in range(rounds):
            for way in ways:
                found[way].append(_measure(way, task, environment))
                report(f"{rows:,} rows of {suffix}, {WAYS[way]}: {_in_words(found[way][-1])}")
        size = file.stat().st_size
    counted = {tuple(each["facts"]) for measured in found.values() for each in measured}
    if counted != {(rows, rows, rows - -(-rows // 25), 0)}:
        raise RuntimeError(f"the ways do not count the same rows: {counted}")
    return {"format": suffix, "rows": rows, "bytes": size, "ways": {
        way: {
            "peak_mb": spread([each["peak_mb"] for each in measured]),
            "growth_mb": spread([each["peak_mb"] - base_mb for each in measured]),
            "seconds": spread([each["seconds"] for each in measured]),
        }
        for way, measured in found.items()
    }}  # fmt: skip


def _prepare(hub: LocalHub, vendor: VendorHub, file: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Let the hub have the results of a completed evaluation; return what a process needs to know of them."""
    path = f"data/{file.name}"
    version = hub.add_file(*_NAMES.values(), path, file)
    fields = {"target_column": "intent", "target_path": path, "closing_commit": {"id": version}}
    evaluation_id = hub.add_evaluation(seconds=0, fields=fields)
    task = {
        **_NAMES,
        "path": path,
        "version": version,
        "evaluation_id": evaluation_id,
        "url": hub.url,
        "vendor_port": vendor.port,
        "api_key": hub.api_key,
    }
    environment = {**os.environ, "AIRFLOW_CONN_OXEN_DEFAULT": hub.connection_uri}
    return task, environment


def _write(file: Path, rows: int) -> None:
    """Write the results in the format that the file's name ends in."""
    import duckdb

    form = _TEXT_FORMATS.get(file.suffix.removeprefix("."), "FORMAT parquet")
    with duckdb.connect() as connection:
        connection.execute(f"COPY ({_TABLE.format(rows=rows)}) TO '{file}' ({form})")


def _measure(way: str, task: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Judge once, in a process of its own."""
    environment = {name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "benchmarks.judges", way, json.dumps(task)]
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, check=False, env=environment, timeout=_PROCESS_SECONDS
    )
    if done.returncode:
        raise RuntimeError(f"{way} failed:\n{done.stderr[-2_000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _in_words(measured: Mapping[str, Any]) -> str:
    return f"{measured['peak_mb']:.0f} MB, {measured['seconds']:.1f} s"


def _table(results: dict[str, Any], say: Callable[[str], None]) -> None:
    say(f"Airflow alone: {results['base_mb']['median']:.0f} MB")
    say(f"{'file':28}{'way':34}{'peak, MB':>10}{'growth, MB':>12}{'seconds':>10}")
    for file in results["files"]:
        name = f"{file['rows']:,} rows of {file['format']}"
        for way, found in file["ways"].items():
            peak, growth, seconds = (found[key]["median"] for key in ("peak_mb", "growth_mb", "seconds"))
            say(f"{name:28}{WAYS[way]:34}{peak:>10.0f}{growth:>12.0f}{seconds:>10.1f}")


if __name__ == "__main__":
    command_line(run, _table, description=__doc__)
