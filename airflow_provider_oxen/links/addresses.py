"""
Every address that a person can open. Pure: from what is known of an evaluation to a URL.

Only addresses that the vendor itself shows are made, for the public hub, and the same ones for a local hub that has
pages. Where another hub shows its pages is not known, so there is none for it.

Source: links on the vendor's pages, ``https://www.oxen.ai/{namespace}/{repo_name}``, followed by
``/evaluations/{evaluation_id}`` or ``/file/{branch_or_commit}/{path}``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef

__all__ = ["evaluation_url", "repository_url", "results_url", "source_url"]

#: The hub whose pages are at ``www.oxen.ai``.
_PUBLIC_HUB, _PUBLIC_PAGES = "https://hub.oxen.ai", "https://www.oxen.ai"
#: The beginning and the end of the address of a local hub that has pages. They are below that address.
_LOCAL_HUB = ("http://127.0.0.1:", "/local-hub")


def evaluation_url(ref: EvaluationRef, hub: str | None) -> str | None:
    """Build the address of the evaluation's own page; None for a hub whose pages are not known."""
    repository = repository_url(ref.namespace, ref.repo_name, hub)
    return None if repository is None else f"{repository}/evaluations/{quote(ref.evaluation_id, safe='')}"


def repository_url(namespace: str, repo_name: str, hub: str | None) -> str | None:
    """Build the address of a repository; None for a hub whose pages are not known."""
    pages = _find_pages(hub)
    return None if pages is None else f"{pages}/{quote(namespace, safe='')}/{quote(repo_name, safe='')}"


def source_url(ref: EvaluationRef, evaluation: Evaluation, hub: str | None) -> str | None:
    """
    Build the address of the source rows, at the version that is evaluated.

    None where the hub does not give both, and for a hub whose pages are not known.
    """
    return _file_url(ref, hub, evaluation.source_version, (evaluation.resource or {}).get("path"))


def results_url(ref: EvaluationRef, evaluation: Evaluation, hub: str | None) -> str | None:
    """
    Build the address of the results: at the commit that holds them, and until there is one at the target branch.

    None as for :func:`source_url`.
    """
    version = evaluation.results_commit or evaluation.target_branch
    return _file_url(ref, hub, version, evaluation.results_path)


def _file_url(ref: EvaluationRef, hub: str | None, version: str | None, path: str | None) -> str | None:
    """
    Build the address of a file.

    The hub's texts are checked, as they become part of a link: none may lead out of the repository.
    """
    repository = repository_url(ref.namespace, ref.repo_name, hub)
    segments = (path or "").strip("/").split("/")
    if repository is None or any(segment in ("", ".", "..") for segment in (version or "", *segments)):
        return None
    return f"{repository}/file/{'/'.join(quote(segment, safe='') for segment in (version or '', *segments))}"


def _find_pages(hub: str | None) -> str | None:
    if hub == _PUBLIC_HUB:
        return _PUBLIC_PAGES
    begins, ends = _LOCAL_HUB
    return hub if hub is not None and hub.startswith(begins) and hub.endswith(ends) else None
