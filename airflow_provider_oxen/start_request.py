"""What is asked for when an evaluation is started: the request, and what can be refused before it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from airflow_provider_oxen.parameters import (
    as_text,
    check_booleans,
    check_conn_id,
    check_path,
    check_path_parameter,
    is_known,
)

if TYPE_CHECKING:
    from airflow_provider_oxen.evaluations import EvaluationRef
    from airflow_provider_oxen.start_record import Record

__all__ = [
    "FOR_WAITING",
    "SENT",
    "StartRequest",
    "build_request",
    "check_can_be_judged",
    "check_fields",
    "check_literals",
    "check_settings",
    "find_unknown_types",
]

#: The arguments that are fields of the request, under the same names.
SENT = (
    *("prompt", "target_column", "input_type", "output_type", "target_branch", "target_path", "auto_commit"),
    *("commit_message", "is_sample", "sample_count", "batch_size"),
)
#: The arguments that have no meaning without a wait.
FOR_WAITING = ("conditions", "soft_fail", "end_from_trigger")

#: Source: the vendor's page. The hub may add others, so another one is only warned of.
_TYPES = {"input_type": ("text", "image", "video"), "output_type": ("text", "image", "video", "embeddings")}
#: The arguments that must not be empty, with what is checked of each besides.
_REQUIRED = {
    "namespace": check_path_parameter,
    "repo_name": check_path_parameter,
    "branch": check_path,
    "path": check_path,
    "model": None,
    "prompt": None,
    "target_column": None,
}


@dataclass(frozen=True, slots=True)
class StartRequest:
    """
    What is asked for.

    :param body: the fields of the request, as the vendor names them; ``name`` among them.
    """

    namespace: str
    repo_name: str
    branch: str
    path: str
    body: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The evaluation's name, by which a person finds it on the hub."""
        return str(self.body.get("name") or "")

    def ref_of(self, evaluation_id: str, record: Record | None = None) -> EvaluationRef:
        """Name an evaluation: in the repository of its record, if it says one, and else in that of this request."""
        from airflow_provider_oxen.evaluations import EvaluationRef

        namespace = None if record is None else record.namespace
        repo_name = None if record is None else record.repo_name
        return EvaluationRef(namespace or self.namespace, repo_name or self.repo_name, evaluation_id)


def check_literals(arguments: Mapping[str, object]) -> dict[str, object]:
    """
    Refuse what is wrong with an argument whose value is known.

    :param arguments: by name; only those that are what they will be when the task runs.
    :return: them, as text where they are to be text: see :func:`airflow_provider_oxen.parameters.as_text`. A prompt, a
        message and a column keep the white space around them.
    :raises ValueError: one is empty, or is not text.
    :raises OxenConfigError: one cannot be part of a path.
    """
    checked = dict(arguments)
    for name, value in arguments.items():
        required = name in _REQUIRED
        if name == "body" or (value is None and not required and name != "oxen_conn_id"):
            continue
        if required and (value is None or (isinstance(value, str) and not value.strip())):
            raise ValueError(f"{name} is empty")
        text = as_text(value)
        if check := _REQUIRED.get(name):
            check(name, value)
        elif name == "oxen_conn_id":
            check_conn_id(value)
        elif not isinstance(text, str):
            raise ValueError(f"{name} must be text, but is {type(value).__name__}")
        if check is not None or name in ("model", "oxen_conn_id") or not isinstance(value, str):
            checked[name] = text
    return checked


def find_unknown_types(arguments: Mapping[str, object]) -> list[str]:
    """Find input and output types that the vendor does not document: a sentence each."""
    return [
        f"{name}={arguments[name]!r} is none of those that the vendor documents: {', '.join(known)}"
        for name, known in _TYPES.items()
        if isinstance(arguments.get(name), str) and arguments[name] not in known
    ]


def check_settings(arguments: Mapping[str, Any]) -> None:
    """
    Refuse what does not depend on templates.

    :param arguments: of the operator, by name. One that is not there counts as not given.
    :raises ValueError: one of them cannot be used.
    """
    if arguments.get("start_from_trigger"):
        why = "because a triggerer may run a trigger twice, and each start costs money"
        raise ValueError(f"start_from_trigger cannot be used here: an evaluation is started on a worker, {why}")
    check_booleans(arguments)
    for name, other in (("on_unknown_start", "fail"), ("on_clear", "resume")):
        value = arguments.get(name, other)
        if value not in (other, "start_again"):
            raise ValueError(f"{name} must be {other!r} or 'start_again', but is {value!r}")
    for name in () if arguments.get("wait_for_completion", True) else FOR_WAITING:
        if arguments.get(name):
            raise ValueError(f"{name} has no meaning with wait_for_completion=False: give it to the task that waits")


def check_fields(arguments: Mapping[str, Any], *, are_rendered: bool = False) -> None:
    """
    Refuse what is wrong with the fields of the request, as they will be sent: ``body`` counts before the arguments.

    :param arguments: of the operator, by name. One that is not there counts as not given.
    :param are_rendered: whether they are what they will be; if not, only those that are known are checked.
    :raises ValueError: one of them cannot be used, or would have no effect.
    """
    body = arguments.get("body")
    if body is not None and not isinstance(body, Mapping) and (are_rendered or is_known(body)):
        raise ValueError(f"body must be a dict of fields of the request, but is {type(body).__name__}")
    fields = _find_fields(arguments)
    known = {name: value for name, value in fields.items() if are_rendered or is_known(value)}
    for name in ("prompt", "target_column", "model_id"):
        if isinstance(body, Mapping) and isinstance(known.get(name), str) and not known[name].strip():
            raise ValueError(f"{name} is empty")
    if known.get("target_path") is not None:
        check_path("target_path", known["target_path"])
    for name in ("auto_commit", "is_sample"):
        if not isinstance(known.get(name), bool | None):
            raise ValueError(  # noqa: TRY004  # as all that is wrong with an argument
                f"{name} must be True or False, but is {known[name]!r}"
            )
    if isinstance(body, Mapping | None):  # else it may have what is missing
        if (fields["target_branch"] or fields["target_path"]) and not fields["auto_commit"]:
            raise ValueError("target_branch and target_path need auto_commit=True: otherwise nothing is committed")
        if fields["sample_count"] is not None and not fields["is_sample"]:
            raise ValueError("sample_count needs is_sample=True: without it, every row is evaluated, and paid for")
    for name in ("sample_count", "batch_size"):
        number = known.get(name)
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
            raise ValueError(f"{name} must be a whole number, 1 or more, but is {number!r}")


def check_can_be_judged(arguments: Mapping[str, Any]) -> None:
    """
    Refuse conditions on rows where results are not committed, or not read: they would be paid for, and never judged.

    :param arguments: of the operator, by name. What a template will be is not checked, nor what is not there.
    :raises ValueError: it is so.
    """
    body = arguments.get("body")
    if not isinstance(body, Mapping | None):
        return
    fields = _find_fields(arguments)
    if not fields["auto_commit"]:
        raise ValueError("conditions on rows need auto_commit=True: otherwise there are no results to read")
    from airflow_provider_oxen.table_formats import find_format

    path = fields["target_path"] or arguments.get("path")
    if isinstance(path, str) and is_known(path) and isinstance(problem := find_format(PurePath(path).suffix), str):
        raise ValueError(problem)


def build_request(arguments: Mapping[str, Any], *, default_name: str) -> StartRequest:
    """
    Build the request of a task.

    :param arguments: of the operator, by name, rendered and checked.
    :param default_name: the evaluation's name where none is given.
    """
    from airflow_provider_oxen import values

    fields = {"name": arguments["name"] or default_name} | _find_fields(arguments)
    fields["name"] = values.text(fields["name"]) or fields["name"]  # as it is stored, so that a record is known again
    body = {field: value for field, value in fields.items() if value is not None}
    return StartRequest(arguments["namespace"], arguments["repo_name"], arguments["branch"], arguments["path"], body)


def _find_fields(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Find the fields of the request, but for the name's default."""
    body = arguments.get("body")
    own = {name: arguments.get(name) for name in SENT} | {"model_id": arguments.get("model")}
    return own | (dict(body) if isinstance(body, Mapping) else {})
