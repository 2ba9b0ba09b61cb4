"""
What a request must have to start an evaluation, and how the evaluation shows that request. No server.

Source: the vendor's page of the call. What that page does not say is decided in :func:`find_mistakes` and in
:func:`show_request`. It shares no code with the client.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from airflow_provider_oxen.testing.addresses import decode_segments, is_missing
from airflow_provider_oxen.testing.envelope import build_error, build_invalid_params
from airflow_provider_oxen.testing.exchange import HubRequest, HubResponse
from airflow_provider_oxen.testing.scenario import Scenario, from_evaluation_id

__all__ = [
    "OnStart",
    "StartedEvaluation",
    "check_request",
    "choose_scenario",
    "find_mistakes",
    "parse_body",
    "show_request",
    "split_address",
    "with_defaults",
]

_INPUT_TYPES = ("text", "image", "video")
_OUTPUT_TYPES = (*_INPUT_TYPES, "embeddings")

_REQUIRED = ("prompt", "input_type", "output_type", "model_id", "target_column")
_TYPES: Mapping[str, type] = {
    "prompt": str,
    "input_type": str,
    "output_type": str,
    "model_id": str,
    "target_column": str,
    "auto_commit": bool,
    "commit_message": str,
    "target_branch": str,
    "target_path": str,
    "is_sample": bool,
    "sample_count": int,
    "batch_size": int,
    "name": str,
    # The older form.
    "type": str,
    "model": str,
}
_TYPE_NAMES: Mapping[type, str] = {str: "text", bool: "true or false", int: "a whole number"}
_ENUMS: Mapping[str, Collection[str]] = {
    "input_type": _INPUT_TYPES,
    "output_type": _OUTPUT_TYPES,
    "type": _OUTPUT_TYPES,
}
_DEFAULTS: Mapping[str, Any] = {"auto_commit": False, "is_sample": False, "sample_count": 10, "batch_size": 10}
#: What may stand in place of a required field: the vendor's guide still shows these names.
_OLDER_NAMES: Mapping[str, str] = {"input_type": "type", "output_type": "type", "model_id": "model"}


@dataclass(frozen=True)
class StartedEvaluation:
    """
    An evaluation that the hub started for a request.

    :param id: its id, a new UUID.
    :param namespace: from the address, as the next three. Not percent-encoded.
    :param repo_name: the repository.
    :param branch: the source's branch.
    :param path: the source's path on that branch.
    :param body: the request's JSON body as it was sent, without defaults.
    :param at: when the hub started it, in seconds, by the clock of :class:`HubRequest`.
    """

    id: str
    namespace: str
    repo_name: str
    branch: str
    path: str
    body: Mapping[str, Any]
    at: float


OnStart: TypeAlias = Scenario | Callable[[StartedEvaluation], Scenario] | None


def split_address(address: str, branches: Collection[str] = ()) -> tuple[str, str, str, str] | None:
    """
    Find namespace, repository, branch and path in the address of a request.

    :param address: path of the URL as it was sent, percent-encoded, with or without a query.
    :param branches: branches whose names have a slash. The longest one that matches counts. If none does, the branch is
        the first segment after ``evaluations``.
    :return: the four, decoded; None if the address has no branch or no path, or if a segment of it can be no name:
        because it is empty, ``.`` or ``..``, or has a slash that is encoded as ``%2F``.
    """
    match = re.match(r"/api/repos/([^/]+)/([^/]+)/evaluations/([^?]+)", address)
    if match is None:
        return None
    segments = decode_segments(f"{match[1]}/{match[2]}/{match[3]}")
    if segments is None:
        return None
    namespace, repo_name, *rest = segments
    target = "/".join(rest)
    matching = [branch for branch in branches if target == branch or target.startswith(f"{branch}/")]
    branch = max(matching, key=len, default=rest[0])
    path = target[len(branch) + 1 :]
    return (namespace, repo_name, branch, path) if path else None


def check_request(
    request: HubRequest, branches: Collection[str], missing: Collection[str], *, out_of_credits: bool
) -> StartedEvaluation | HubResponse:
    """
    Decide whether a request starts an evaluation.

    :param request: the request.
    :param branches: as for :func:`split_address`.
    :param missing: what does not exist.
    :param out_of_credits: whether there is no money left.
    :return: the evaluation, with a new id; or the response that says why there is none.
    """
    body, address = parse_body(request), split_address(request.path, branches)
    if body is None:
        return build_invalid_params({"body": "must be a JSON object, with the Content-Type application/json"})
    if mistakes := find_mistakes(body):
        return build_invalid_params(mistakes)
    if address is None or is_missing(missing, *address):
        return build_error(404, "resource_not_found", "Not found")
    if out_of_credits:
        return build_error(402, "insufficient_credits", "Out of credits")
    return StartedEvaluation(str(uuid.uuid4()), *address, body=body, at=time.monotonic())


def parse_body(request: HubRequest) -> dict[str, Any] | None:
    """Parse a JSON object; None if the body is none, or if its ``Content-Type`` is not ``application/json``."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        document = json.loads(request.body)
    except ValueError:
        return None
    return document if media_type == "application/json" and isinstance(document, dict) else None


def find_mistakes(body: Mapping[str, Any]) -> dict[str, str]:
    """
    Check a request's body against the vendor's schema.

    As strict as the schema, and no stricter: ``null`` is of the wrong type, other fields than the schema's are ignored,
    and a text may be empty.

    Two decisions, where the vendor's pages differ or where Airflow's users need it:

    - The older form of the vendor's guide is accepted: ``type`` stands for ``input_type`` and ``output_type``, and
      ``model`` for ``model_id``, each where the newer field is missing. ``type`` may be what ``output_type`` may be.
    - ``model_id`` may be any text, although the vendor declares a UUID.

    :param body: the JSON object.
    :return: what is wrong, by field, in the order of the schema; empty if nothing is.
    """
    mistakes = {}
    for name, kind in _TYPES.items():
        if name not in body:
            if name in _REQUIRED and _OLDER_NAMES.get(name) not in body:
                mistakes[name] = "is missing"
        elif type(body[name]) is not kind:  # not isinstance: True is no whole number
            mistakes[name] = f"must be {_TYPE_NAMES[kind]}"
        elif name in _ENUMS and body[name] not in _ENUMS[name]:
            mistakes[name] = f"must be one of {', '.join(_ENUMS[name])}"
    return mistakes


def with_defaults(body: Mapping[str, Any]) -> dict[str, Any]:
    """Add the fields that a body does not have: the vendor's defaults, and the newer names of those in older form."""
    newer = {name: body[older] for name, older in _OLDER_NAMES.items() if older in body}
    return {**_DEFAULTS, **newer, **body}


def choose_scenario(on_start: OnStart, started: StartedEvaluation) -> Scenario:
    """
    Find what a started evaluation does.

    A sample processes ``sample_count`` rows, and no more than the scenario has.

    :param on_start: a scenario for all; a function that returns one; None: the scenario that the model's name says, as
        ``completed-20s`` does, and for any other name the default one.
    :param started: the evaluation.
    """
    body = with_defaults(started.body)
    if isinstance(on_start, Scenario):
        scenario = on_start
    elif on_start is not None:
        scenario = on_start(started)
    else:
        scenario = from_evaluation_id(body["model_id"]) or Scenario()
    if body["is_sample"]:
        return replace(scenario, rows=min(scenario.rows, max(body["sample_count"], 0)))
    return scenario


def show_request(document: Mapping[str, Any], started: StartedEvaluation, scenario: Scenario) -> dict[str, Any]:
    """
    Put the fields of its request into an evaluation.

    Not documented by the vendor, so decided here: with ``auto_commit`` the results go to ``target_branch``, or to the
    source's branch, and ``target_path`` is null if it was not sent. Without ``auto_commit`` the evaluation does not
    commit: it has no ``closing_commit`` and is never ``committing``.

    :param document: the evaluation as its scenario shows it.
    :param started: the evaluation with its request.
    :param scenario: its scenario, whose ``fields`` come last.
    """
    body = with_defaults(started.body)
    commits, model = body["auto_commit"], body["model_id"]
    shown = {
        **document,
        "name": body.get("name", document["name"]),
        "prompt": body["prompt"],
        "is_sample": body["is_sample"],
        "sample_count": body["sample_count"],
        "target_column": body["target_column"],
        "target_branch": body.get("target_branch", started.branch if commits else None),
        "target_path": body.get("target_path"),
        "resource": {"path": started.path, "version": started.branch},
    }
    if scenario.form == "2024":
        shown |= {"type": body["input_type"], "model": model}
    else:
        types = {"input_type": body["input_type"], "output_type": body["output_type"]}
        shown |= {**types, "model": {"id": model, "name": model}}
    if not commits:
        shown |= {"closing_commit": None, "commit_started_at": None}
        shown["status"] = "running" if shown["status"] == "committing" else shown["status"]
    elif shown["closing_commit"] and "commit_message" in body:
        shown["closing_commit"] = {**shown["closing_commit"], "message": body["commit_message"]}
    return {**shown, **scenario.fields}
