"""How ``make docs`` builds the documentation. Every warning is an error there."""

from __future__ import annotations

import json
from pathlib import Path
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


def measured(results: dict[str, Any], plots: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """
    Write what ``make bench`` measured as Markdown, so that no page holds a number of its own.

    :param results: what it wrote to ``benchmarks/results.json``; empty before the first run.
    :param plots: for each section, the plots it draws in this folder.
    :return: texts by name: ``about``, each section, and ``loads``, what one process did under each.
    """
    texts = {"about": "*Nothing has been measured yet: `make bench` does.*"}
    if about := results.get("about"):
        machine, versions = about["machine"], about["versions"]
        texts["about"] = (
            f"Measured on {about['date']}: {machine['cores']} cores of {machine['processor']}, "
            f"{machine['memory_gib']:g} GiB, Python {about['python']}, Airflow {versions['apache-airflow']}, "
            f"HTTP provider {versions['apache-airflow-providers-http']}, "
            f"dbt Cloud provider {versions['apache-airflow-providers-dbt-cloud']}."
        )
    for section, names in plots.items():
        rows = [
            f"| {_cell(target['name'])} | {_number(target['value'])} | {_number(target['limit'])} "
            f"| {'yes' if target['holds'] else '**no**'} |"
            for target in results.get("sections", {}).get(section, {}).get("targets", [])
        ]
        table = (
            ["| measured | value | at most | holds |", "|---|--:|--:|---|", *rows] if rows else ["*Not measured yet.*"]
        )
        drawn = [f"\n![{name}]({name}.svg)" for name in names if (_HERE / f"{name}.svg").exists()]
        texts[section] = "\n".join([*table, *drawn])
    loads = results.get("sections", {}).get("scale", {}).get("loads", [])
    texts["loads"] = "\n".join([_LOADS_HEAD, *map(_load, loads)]) if loads else "*Not measured yet.*"
    return texts


_LOADS_HEAD = (
    "| waits | each polling every | polls/s, of those wanted | of one core | lag p99 | longest lag, in the start "
    "| longest gap | end seen, at the latest | memory a wait |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def _load(load: dict[str, Any]) -> str:
    interval = load["interval"]
    cells = (
        f"{load['waits']:,}",
        f"{interval:g} s",
        f"{load['polls_a_second']:,.0f} of {load['polls_a_second_wanted']:,.0f}",
        f"{load['busy']:.0%}",
        f"{_number(load['lag_ms']['p99'])} ms",
        f"{_number(load['lag_ms']['most'])} ms, {_number(load['start_lag_ms']['most'])} ms",
        f"{interval + load['worst_gap_over']:.1f} s",
        f"{interval + load['worst_delay_over']:.1f} s",
        f"{load['bytes_a_wait'] / 1000:.1f} KB",
    )
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _number(value: float | None) -> str:
    if value is None:
        return "not seen"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


_HERE = Path(__file__).resolve().parent
_RESULTS = _HERE.parent / "benchmarks" / "results.json"
myst_enable_extensions = ["substitution"]
myst_substitutions = measured(
    json.loads(_RESULTS.read_text(encoding="utf-8")) if _RESULTS.exists() else {},
    {
        "cost": ("cpu-a-poll", "connections", "memory-a-wait"),
        "scale": ("scale",),
        "parsing": ("dag-parsing",),
        "end_to_end": ("end-to-end",),
    },
)
