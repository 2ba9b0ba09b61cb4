"""How ``make docs`` builds the documentation. Every warning is an error there."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import airflow_provider_oxen

project = "airflow-provider-oxen"
author = "The airflow-provider-oxen developers"
copyright = author  # noqa: A001  # Sphinx's name
version = release = airflow_provider_oxen.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_copybutton"]
html_theme = "furo"
html_title = f"{project} {version}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_show_sphinx = False
html_show_copyright = False

# GitHub makes the same anchors, so that links work in both.
myst_heading_anchors = 3

# The reference is made from docstrings.
autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_use_unqualified_type_names = True
maximum_signature_line_length = 80

# A reference to a name of this project's must resolve. The inventories of others cannot be fetched where CI runs.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!airflow_provider_oxen)(?!Oxen).*")]

# Only what is typed is copied, without prompts and output.
copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"


def measured(results: dict[str, Any]) -> dict[str, str]:
    """
    Write what ``make bench`` measured as Markdown, so that no page holds a number of its own.

    :param results: what it wrote to ``benchmarks/results.json``; empty before the first run.
    :return: for each section a table, and when and where it was measured.
    """
    writers = {
        "cost": _cost, "scale": _loads, "failover": _failover, "parsing": _parsing, "end_to_end": _end_to_end,
    }  # fmt: skip
    texts = dict.fromkeys((*writers, "collections"), "*Not measured yet: `make bench` does.*")
    for section, write in writers.items():
        if found := results.get(section):
            texts[section] = f"{_table(*write(found))}\n\n{_about(found['about'])}"
    if collections := results.get("scale", {}).get("collections"):
        texts["collections"] = _table(*_collections(collections))
    return texts


def _about(about: dict[str, Any]) -> str:
    machine, versions = about["machine"], about["versions"]
    return (
        f"*Measured on {about['date']}: {machine['cores']} cores of {machine['processor']}, "
        f"{machine['memory_gib']:g} GiB, Python {about['python']}, Airflow {versions['apache-airflow']}, "
        f"HTTP provider {versions['apache-airflow-providers-http']}, "
        f"dbt Cloud provider {versions['apache-airflow-providers-dbt-cloud']}.*"
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    """Write a table: words on the left of each row, numbers on the right."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---", *["--:"] * (len(head) - 1)], *rows])


def _cost(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Compare the cost of one wait by who waits."""
    subjects = {
        "oxen": "this provider",
        "bare": "bare polling loop",
        "dbt": "dbt Cloud's trigger",
        "http": "`HttpEventTrigger`",
    }
    plain, tls, memory = found["cpu"]["plain"], found["cpu"]["tls"], found["memory"]
    whole = found.get("whole_waits")
    polls = median(plain["oxen"]["polls"]) / found["waits"]
    return ["", *subjects.values()], [
        ["CPU time of one poll over HTTP", *(f"{plain[who]['median']:.2f} ms" for who in subjects)],
        [
            "the same, if rows were processed since the last poll",
            f"{plain['oxen_moving']['median']:.2f} ms",
            "",
            "",
            "",
        ],
        ["CPU time of one poll over HTTPS", *(f"{tls[who]['median']:.2f} ms" for who in subjects)],
        # Results from before it was measured lack it.
        *(
            [["CPU time of a whole wait of eight polls", *(f"{whole[who]['median']:.1f} ms" for who in subjects)]]
            if whole
            else []
        ),
        ["memory of one wait", *(f"{memory[who]['bytes_a_wait'] / 1000:.1f} KB" for who in subjects)],
        [
            f"connections opened for {found['waits']:,} waits with about {polls:.0f} polls each",
            *(f"{median(plain[who]['connections']):,.0f}" for who in subjects),
        ],
    ]


def _failover(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Compare what taking over all waits takes."""
    subjects = [found["subjects"][name] for name in ("oxen", "dbt")]
    rows = {
        "until half of the waits had polled": lambda one: f"{one['seconds_until_polled']['half']:.1f} s",
        "until all had": lambda one: f"{one['seconds_until_polled']['most']:.1f} s",
        "most polls in a second": lambda one: f"{one['most_polls_in_a_second']:,}",
        "CPU time": lambda one: f"{one['cpu_seconds']:.1f} s",
        "look-ups of the connection": lambda one: f"{one['look_ups']:,}",
        "most connections at a time, and in all": lambda one: f"{one['most_connections']:,}, {one['connections']:,}",
    }
    head = [f"{found['waits']:,} waits", "this provider", "dbt Cloud's trigger"]
    return head, [[name, *map(write, subjects)] for name, write in rows.items()]


def _parsing(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Compare what importing a sensor takes."""
    return ["sensor of", "time to import it", "modules imported with it"], [
        [
            "this provider" if name == "oxen" else name,
            f"{one['ms']['median']:.1f} ms",
            str(one["modules"]),
        ]
        for name, one in found["sensors"].items()
    ]


def _end_to_end(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Compare ways to wait, by the time from the end of an evaluation to the next task. In seconds."""
    head = ["way to wait", "until the next poll", "Airflow's handing over", "in all", "worker processes for the gate"]
    return head, [
        [
            one["name"],
            *(f"{one[part]['median']:.1f} s" for part in ("noticing", "handing_over", "delay")),
            f"{one['workers']['median']:g}",
        ]
        for one in found["ways"].values()
    ]


def _loads(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Say how one process kept up with each load."""
    head = [
        *("waits", "a poll each", "polls a second, of those wanted", "use of one core"),
        *("lag, p99", "longest lag, in the start", "longest gap", "end seen, at the latest", "memory a wait"),
    ]
    return head, [_load(load) for load in found["loads"]]


def _load(load: dict[str, Any]) -> list[str]:
    interval = load["interval"]
    return [
        f"{load['waits']:,}",
        f"{interval:g} s",
        f"{load['polls_a_second']:,.0f} of {load['polls_a_second_wanted']:,.0f}",
        f"{load['busy']:.0%}",
        f"{load['lag_ms']['p99']:.3g} ms",
        f"{load['lag_ms']['most']:.0f} ms, {load['start_lag_ms']['most']:.0f} ms",
        f"{interval + load['worst_gap_over']:.1f} s",
        f"{interval + load['worst_delay_over']:.1f} s",
        f"{load['bytes_a_wait'] / 1000:.1f} KB",
    ]


def _collections(collections: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Say what a full garbage collection takes. It was measured together with the loads."""
    subjects = {
        "sleeping": "coroutines that only sleep",
        "sleeping_triggers": "triggers that only sleep",
        "oxen": "gates",
    }
    found = {name: collections[key] for key, name in subjects.items()}
    return ["waiting", "objects visited for each", "a full collection"], [
        [name, f"{one['tracked_a_wait']:.0f}", f"{one['least_ms']:.0f} ms"] for name, one in found.items()
    ]


_HERE = Path(__file__).resolve().parent
_RESULTS = _HERE.parent / "benchmarks" / "results.json"
myst_enable_extensions = ["substitution"]
myst_substitutions = measured(json.loads(_RESULTS.read_text(encoding="utf-8")) if _RESULTS.exists() else {})
