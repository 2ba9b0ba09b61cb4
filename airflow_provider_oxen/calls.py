"""
The calls to the hub: one function for each endpoint, which builds a :class:`~airflow_provider_oxen.protocol.Call`.

A call names its parser: that of an evaluation is in ``evaluations``, that of a file's description in ``files``, and a
small one stays here.

Source: the vendor's OpenAPI pages (API 0.224.2), but for ``/api/authorize`` and the calls for files: the open-source
Oxen client. The vendor's pages name ``/metadata/`` for what that client asks from ``/meta/``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NoReturn
from urllib.parse import quote

from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef, parse_evaluation
from airflow_provider_oxen.files import FileMeta, parse_file_meta
from airflow_provider_oxen.parameters import check_path, check_path_parameter
from airflow_provider_oxen.protocol import GOOD_ENVELOPES, Call, ContractError, decode_object
from airflow_provider_oxen.redaction import one_line, redact
from airflow_provider_oxen.refs import FileRef

__all__ = [
    "build_get_evaluation",
    "build_get_file",
    "build_get_file_meta",
    "build_get_user",
    "build_start_evaluation",
]


def build_get_evaluation(ref: EvaluationRef) -> Call[Evaluation]:
    """
    Ask for one evaluation as it stands now.

    :raises OxenConfigError: namespace, repo_name or evaluation_id cannot be part of a path.
    """
    names = ("namespace", "repo_name", "evaluation_id")
    segments = [quote(check_path_parameter(name, getattr(ref, name)), safe="") for name in names]
    return Call(
        "GET",
        "/api/repos/{}/{}/evaluations/{}".format(*segments),
        partial(parse_evaluation, evaluation_id=ref.evaluation_id, namespace=ref.namespace, repo_name=ref.repo_name),
        check="namespace, repo_name and evaluation_id, and that the evaluation was not deleted",
        is_poll=True,
    )


def build_start_evaluation(
    namespace: str, repo_name: str, branch: str, path: str, body: Mapping[str, Any]
) -> Call[Evaluation]:
    """
    Start an evaluation over the rows of a file. It costs money, and must not be repeated.

    :param branch: the branch the rows are read from. It may hold slashes.
    :param path: the file, inside the repository.
    :param body: the fields of the vendor's page, such as ``prompt``, ``model_id`` and ``target_column``.
    :raises OxenConfigError: an argument cannot be part of a path.
    """
    segments = [
        check_path_parameter("namespace", namespace),
        check_path_parameter("repo_name", repo_name),
        "evaluations",
        *check_path("branch", branch),
        *check_path("path", path),
    ]
    return Call(
        "POST",
        "/api/repos/" + "/".join(quote(segment, safe="") for segment in segments),
        partial(parse_evaluation, namespace=segments[0], repo_name=segments[1]),
        check="namespace, repo_name, branch and path, and the fields of the request",
        body=dict(body),
        repeatable=False,
    )


def build_get_file_meta(ref: FileRef) -> Call[FileMeta]:
    """
    Ask for the size of a file, the commit that changed it last, and how many rows it has.

    :raises OxenConfigError: a part of the reference cannot be part of a path.
    """
    return Call("GET", _file_path(ref, "meta"), parse_file_meta, check=_CHECK_FILE)


def build_get_file(ref: FileRef) -> Call[NoReturn]:
    """
    Ask for the bytes of a file. Send it with ``OxenClient.receive``: ``ask`` takes no file as a result.

    :raises OxenConfigError: a part of the reference cannot be part of a path.
    """
    return Call(
        "GET",
        _file_path(ref, "file"),
        _refuse_instead_of_file,
        check=_CHECK_FILE,
        on_redirect="ask the hub's administrator to let the hub serve files itself",
    )


_CHECK_FILE = "namespace, repo_name, version and path"


def _file_path(ref: FileRef, endpoint: str) -> str:
    segments = [
        check_path_parameter("namespace", ref.namespace),
        check_path_parameter("repo_name", ref.repo_name),
        endpoint,
        *check_path("version", ref.version),
        *check_path("path", ref.path),
    ]
    return "/api/repos/" + "/".join(quote(segment, safe="") for segment in segments)


def _refuse_instead_of_file(_body: bytes, _secret: str) -> NoReturn:
    """Say of a good response that came instead of a file what is wrong with it."""
    raise ContractError("the response is not the file that was asked for")


def build_get_user() -> Call[str]:
    """Ask whose key it is. The result is the user's name and email, as far as the hub gives them."""
    return Call("GET", "/api/authorize", _parse_user, check="the connection's host")


def _parse_user(body: bytes, secret: str) -> str:
    """Parse the body of a response with a user: name and email, as far as the hub gives them."""
    envelope = decode_object(body)
    if envelope is None or envelope.get("status") not in GOOD_ENVELOPES:
        raise ContractError("the response is not a good envelope")
    user = envelope.get("user")
    if not isinstance(user, Mapping):
        raise ContractError("the response names no user")
    name, email = (value if isinstance(value := user.get(key), str) else "" for key in ("name", "email"))
    shown = f"{name} <{email}>" if name and email else name or email
    return one_line(redact(shown, secret)) or "a user without a name"
