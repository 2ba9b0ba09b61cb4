"""
Small web pages that show what the local hub has, at the addresses that such pages have at Oxen.ai. No server.

The page of an evaluation that has not ended loads itself again every two seconds.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from jinja2 import DictLoader, Environment

from airflow_provider_oxen.testing.exchange import HubResponse
from airflow_provider_oxen.testing.files import FileVersion
from airflow_provider_oxen.testing.tables import Content, find_columns, read_rows

__all__ = [
    "build_evaluation_page",
    "build_file_page",
    "build_index_page",
    "build_missing_page",
    "build_repository_page",
]

#: How many rows of a table are shown, and how many bytes of a file that is none.
_ROWS, _BYTES = 100, 10_000
_ENDS = ("completed", "errored", "cancelled")
#: Fields of an evaluation that its page shows, in this order, each if it has a value.
_FIELDS = (
    *("name", "error_message", "model", "prompt", "target_column"),
    *("queued_at", "started_at", "completed_at", "cancelled_at", "tokens_used", "credits_used"),
)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{% if load_again %}
<meta http-equiv="refresh" content="2">
{% endif %}
<title>{{ title }}</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em }
th, td { border-bottom: 1px solid #8886; padding: .2em 1em .2em 0; text-align: left; vertical-align: top }
td, pre { white-space: pre-wrap; overflow-wrap: break-word }
progress { width: 100% }
footer { margin-top: 2em; opacity: .7 }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% block body required %}
{% endblock %}
<footer>A page of the local hub. At Oxen.ai, it looks different.</footer>
</body>
</html>
"""
_REPOSITORY = """{% extends "page" %}{% block body %}
<table>
{% for id, evaluation in evaluations.items() %}
<tr>
<td><a href="{{ address }}/evaluations/{{ id | segment }}">{{ id }}</a></td>
<td>{{ evaluation.name or "" }}</td>
<td>{{ evaluation.status }}</td>
</tr>
{% else %}
<tr><td>No evaluation has been asked for yet.</td></tr>
{% endfor %}
</table>
{% endblock %}"""
_EVALUATION = """{% extends "page" %}{% block body %}
<p>Repository <a href="{{ address }}">{{ names | join("/") }}</a></p>
{% if evaluation is none %}
<p>Its time begins with the first request for it.</p>
{% else %}
<p><strong>{{ evaluation.status }}</strong>
{%- if progress %}, {{ progress.processed }} of {{ progress.total }} rows{% endif %}</p>
{% if progress.total %}
<progress value="{{ progress.processed }}" max="{{ progress.total }}"></progress>
{% endif %}
<table>
{% for name in fields if evaluation[name] is not none and evaluation[name] is defined %}
<tr>
<th>{{ name }}</th>
<td>{{ evaluation[name].name if evaluation[name] is mapping else evaluation[name] }}</td>
</tr>
{% endfor %}
{% for name, version, path in files %}
<tr>
<th>{{ name }}</th>
<td><a href="{{ address }}/file/{{ version | segment }}/{{ path | urlencode }}">{{ version }}/{{ path }}</a></td>
</tr>
{% endfor %}
</table>
{% endif %}
{% endblock %}"""
_FILE = """{% extends "page" %}{% block body %}
<p>
In <a href="{{ address }}">{{ names | join("/") }}</a> at {{ version }}, from commit {{ file.commit.id }}:
{{ file.commit.message }}
</p>
<p>{{ about }}</p>
{% if text %}
<pre>{{ text }}</pre>
{% endif %}
<table>
<tr>{% for name in columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in rows %}
<tr>{% for cell in row %}<td>{{ cell if cell is not none }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endblock %}"""
_MISSING = """{% extends "page" %}{% block body %}
<p>
There is no such evaluation or file. An evaluation commits its results when it completes, unless it was started without
auto_commit. Its source is made then, too, if it was not added before.
</p>
{% endblock %}"""
_INDEX = """{% extends "page" %}{% block body %}
<p>Each repository has a page: {{ address }}/NAMESPACE/REPO_NAME</p>
<p>For instance <a href="{{ address }}/ox/customer-intents">ox/customer-intents</a>.</p>
{% endblock %}"""
_PAGES = Environment(
    loader=DictLoader(
        {
            "page": _PAGE,
            "index": _INDEX,
            "repository": _REPOSITORY,
            "evaluation": _EVALUATION,
            "file": _FILE,
            "missing": _MISSING,
        }
    ),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_PAGES.filters["segment"] = partial(quote, safe="")


def build_index_page(address: str) -> HubResponse:
    """
    Say where the others are.

    :param address: the address that all pages have at their beginning.
    """
    return _page("Local Oxen hub", "index", address=address)


def build_repository_page(
    address: str, names: tuple[str, str], evaluations: Mapping[str, Mapping[str, Any]]
) -> HubResponse:
    """
    List the evaluations of a repository.

    :param address: the repository's address.
    :param names: its namespace and its name.
    :param evaluations: those whose time has begun, by id.
    """
    return _page("/".join(names), "repository", address=address, evaluations=evaluations)


def build_evaluation_page(
    address: str, names: tuple[str, str], evaluation_id: str, evaluation: Mapping[str, Any] | None
) -> HubResponse:
    """
    Show an evaluation.

    :param address: the repository's address.
    :param names: its namespace and its name.
    :param evaluation_id: the evaluation's id.
    :param evaluation: its fields; None before its time begins.
    """
    shown = evaluation or {}
    source, results, progress = (_mapping(shown.get(name)) for name in ("resource", "closing_commit", "progress"))
    files = [
        ("source", source.get("version"), source.get("path")),
        ("results", results.get("id"), shown.get("target_path") or source.get("path")),
    ]
    return _page(
        f"Evaluation {evaluation_id}",
        "evaluation",
        load_again=shown.get("status") not in _ENDS,
        address=address,
        names=names,
        evaluation=evaluation,
        progress=progress,
        fields=_FIELDS,
        files=[file for file in files if all(isinstance(part, str) and part for part in file)],
    )


def build_file_page(address: str, names: tuple[str, str], version: str, file: FileVersion) -> HubResponse:
    """
    Show the first rows of a table, or the beginning of another file.

    :param address: the repository's address.
    :param names: its namespace and its name.
    :param version: the branch or the commit that the file was asked for at.
    :param file: the file.
    """
    try:
        shown = _read_table(file) or _read_text(file.content)
    except (OSError, ValueError, ModuleNotFoundError) as error:  # it cannot be made, or is gone
        shown = {"about": f"The file cannot be shown: {error}"}
    return _page(file.path, "file", address=address, names=names, version=version, file=file, **shown)


def build_missing_page() -> HubResponse:
    """Say that there is nothing at an address."""
    return _page("Not found", "missing", status_code=404)


def _read_table(file: FileVersion) -> dict[str, Any] | None:
    """Read the first rows of a table; None if it is none."""
    try:
        found = read_rows(file.path, file.content, limit=_ROWS + 1)
    except (ValueError, csv.Error, RecursionError):
        return None
    columns = [name for name in find_columns(found) if name is not None]  # None: cells that no column has
    return {
        "about": f"The first {_ROWS} rows" if len(found) > _ROWS else f"{len(found)} rows",
        "columns": columns,
        "rows": [[row.get(name) for name in columns] for row in found[:_ROWS]],
    }


def _read_text(content: Content) -> dict[str, Any]:
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as source:
        begin, is_cut = source.read(_BYTES), bool(source.read(1))
    about = f"The first {_BYTES:,} bytes" if is_cut else f"{len(begin):,} bytes"
    return {"about": about, "text": begin.decode(errors="replace")}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _page(title: str, body: str, *, status_code: int = 200, **values: Any) -> HubResponse:
    """Build a page. What it shows comes from files and requests, and is escaped."""
    html = _PAGES.get_template(body).render(title=title, **values)
    return HubResponse(status_code, html.encode(errors="replace"), {"Content-Type": "text/html; charset=utf-8"})
