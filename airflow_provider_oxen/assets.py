"""
Assets: ``oxen://host/namespace/repo_name/path?revision=…`` names a file in an Oxen repository, at a branch or commit.

A gate with such an outlet emits the asset's event when it opens. The event says what was evaluated, so that a DAG that
is scheduled on the asset can read it. Airflow checks the URI while a DAG file is parsed, with this module; imports are
few and late here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from airflow_provider_oxen.parameters import check_path_parameter

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from airflow.sdk import Asset, AssetAlias
    from airflow.sdk.types import OutletEventAccessorsProtocol

    from airflow_provider_oxen.evaluations import Evaluation
    from airflow_provider_oxen.outcomes import JudgedResults

__all__ = ["add_to_events", "convert_asset_to_openlineage", "create_asset", "describe_evaluation", "sanitize_uri"]

_SCHEME = "oxen"
_FORM = "oxen://host/namespace/repo_name/path?revision=branch_or_commit"


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """
    Check an asset's URI, and normalize it.

    :param uri: the URI, as Airflow has split it.
    :raises ValueError: it is not of the form ``oxen://host/namespace/repo_name/path?revision=branch_or_commit``. The
        revision may be left out.
    """
    if "@" in uri.netloc:
        raise ValueError(f"An asset URI must not hold a login: the API key belongs in the connection. Write {_FORM}")
    host = _check_host(uri)
    try:
        namespace, repo_name, *path = _read_path(uri.path)
    except ValueError as error:
        raise ValueError(f"Asset URI {uri.geturl()!r}: {error}. Write {_FORM}") from None
    query = parse_qsl(uri.query, keep_blank_values=True)
    if [name for name, _ in query] not in ([], ["revision"]) or any(not value.strip() for _, value in query):
        raise ValueError(
            f"Asset URI {uri.geturl()!r} has a query other than one revision, a branch or a commit. Write {_FORM}"
        )
    segments = "/".join(quote(segment, safe="") for segment in (namespace, repo_name, *path))
    return uri._replace(netloc=host, path=f"/{segments}", query=urlencode(query), fragment="")


def create_asset(
    *,
    namespace: str,
    repo_name: str,
    path: str,
    revision: str | None = None,
    host: str = "hub.oxen.ai",
    extra: dict[str, Any] | None = None,
) -> Asset:
    """
    Make the asset of a file in a repository.

    :param namespace: user or organization that owns the repository.
    :param repo_name: the repository.
    :param path: the file, inside the repository.
    :param revision: branch or commit; None: none in particular.
    :param host: the hub, with its port where it is not the scheme's own.
    :param extra: what Airflow stores with the asset.
    :raises ValueError: one of them cannot be part of the URI.
    """
    from airflow_provider_oxen.airflow_names import Asset

    segments = "/".join(quote(segment, safe="") for segment in (namespace, repo_name, *path.strip("/").split("/")))
    query = "" if revision is None else f"?{urlencode({'revision': revision})}"
    return Asset(uri=f"{_SCHEME}://{host}/{segments}{query}", extra=extra)


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> Any:  # noqa: ARG001  # Airflow's signature
    """Make the OpenLineage dataset of an asset: the same as a gate's own lineage names."""
    from airflow_provider_oxen.lineage import make_dataset

    uri = urlsplit(asset.uri)
    namespace, repo_name, *path = _read_path(uri.path)
    revision = dict(parse_qsl(uri.query)).get("revision")
    return make_dataset(uri.netloc, namespace, repo_name, "/".join(path), revision)


def add_to_events(
    outlets: Iterable[Asset | AssetAlias],
    outlet_events: OutletEventAccessorsProtocol,
    evaluation: Evaluation,
    results: JudgedResults | None = None,
) -> None:
    """
    Add facts about the evaluation to the events of a task's ``oxen://`` outlets.

    :param outlets: the task's outlets, of any kind.
    :param outlet_events: Airflow's, from the task's context.
    :param results: where the results are, and what was measured.
    """
    for outlet in outlets:
        if str(getattr(outlet, "uri", "")).startswith(f"{_SCHEME}://"):
            outlet_events[outlet].extra.update(describe_evaluation(evaluation, results))


def describe_evaluation(evaluation: Evaluation, results: JudgedResults | None = None) -> dict[str, Any]:
    """
    Describe an evaluation for the event of an asset.

    :return: ``evaluation_id``; ``commit``, which holds the results; ``source_version``, the commit or branch of the
        source data; ``rows`` processed; ``tokens`` and ``credits`` spent; ``results``, as
        :meth:`~airflow_provider_oxen.outcomes.JudgedResults.to_dict`. What the hub does not report is None. Of one that
        has not completed, ``evaluation_id`` alone: the rest is not final.
    """
    from airflow_provider_oxen.evaluations import EvaluationStatus

    if evaluation.status != EvaluationStatus.COMPLETED:
        return {"evaluation_id": evaluation.id}
    return {
        "evaluation_id": evaluation.id,
        "commit": evaluation.results_commit,
        "source_version": evaluation.source_version,
        "rows": evaluation.progress.processed,
        "tokens": evaluation.tokens_used,
        "credits": evaluation.credits_used,
        "results": None if results is None else results.to_dict(),
    }


def _check_host(uri: SplitResult) -> str:
    try:
        host, port = uri.hostname, uri.port
    except ValueError:
        host = port = None
    if not host:
        raise ValueError(f"Asset URI {uri.geturl()!r} names no host, such as hub.oxen.ai. Write {_FORM}")
    shown = f"[{host}]" if ":" in host else host
    # The port of https, given or not, is the same hub.
    return f"{shown}:{port}" if port and port != 443 else shown


def _read_path(path: str) -> list[str]:
    """
    Read namespace, repository and the segments of the file's path.

    :raises ValueError: why not.
    """
    segments = [unquote(segment) for segment in path.strip("/").split("/")]
    if len(segments) < 3:
        raise ValueError("it names no file in a repository")
    for name, segment in zip(("namespace", "repo_name"), segments[:2], strict=True):
        if check_path_parameter(name, segment) != segment:  # an asset's address is compared as it is written
            raise ValueError(f"there is white space around its {name}")
    if any(segment in ("", ".", "..") for segment in segments):
        raise ValueError("it has an empty segment in its path, or '.' or '..'")
    return segments
