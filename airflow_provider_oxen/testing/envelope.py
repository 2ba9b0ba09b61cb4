"""The responses of the hub: the envelope around what it sends, and files, which have none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timezone
from pathlib import Path
from typing import Any

from airflow_provider_oxen.testing.exchange import HubResponse
from airflow_provider_oxen.testing.files import FileVersion

__all__ = ["build_error", "build_evaluation", "build_file", "build_invalid_params", "build_meta"]


def build_evaluation(evaluation: Mapping[str, Any]) -> HubResponse:
    """Build the response that shows an evaluation."""
    return HubResponse.from_json({"status": "success", "status_message": "resource_found", "evaluation": evaluation})


def build_file(found: FileVersion) -> HubResponse:
    """
    Build the response that has a file's bytes. Its header ``oxen-revision-id`` is the commit that made this version.

    Source: the vendor's open-source server.
    """
    headers = {"Content-Type": found.media_type, "oxen-revision-id": found.commit.id}
    content = found.content
    if isinstance(content, Path):
        return HubResponse(headers=headers, file=content)
    return HubResponse(headers=headers, body=content)


def build_meta(found: FileVersion, version: str) -> HubResponse:
    """
    Build the response that describes a file.

    Source: ``MetadataEntry`` and ``MetadataTabular`` in the vendor's open-source server.

    :param found: the file.
    :param version: the branch or the commit that it was asked for at.
    """
    commit, shape = found.commit, found.shape
    at = commit.at.astimezone(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
    author = {"author": "Ox", "email": "ox@example.com"}
    table = None
    if shape is not None:
        fields = [{"name": name, "dtype": kind} for name, kind in shape.columns]
        table = {"height": shape.rows, "width": len(fields), "schema": {"fields": fields}}
    entry = {
        "filename": found.path.rpartition("/")[2],
        "is_dir": False,
        "hash": found.hash,
        "size": found.size,
        "latest_commit": {"id": commit.id, **author, "message": commit.message, "timestamp": at},
        "resource": {"path": found.path, "version": version},
        "data_type": "binary" if table is None else "tabular",
        "mime_type": found.media_type,
        "extension": found.suffix,
        "metadata": None if table is None else {"tabular": table},
    }
    return HubResponse.from_json({"status": "success", "status_message": "resource_found", "entry": entry})


def build_invalid_params(mistakes: Mapping[str, str]) -> HubResponse:
    """
    Build the response to a request whose fields are wrong.

    :param mistakes: what is wrong, by the name of the field.
    """
    detail = "; ".join(f"{name} {mistake}" for name, mistake in mistakes.items())
    return build_error(400, "invalid_params", "Invalid parameters", detail)


def build_error(status_code: int, kind: str, title: str, detail: str | None = None) -> HubResponse:
    """
    Build an error response.

    :param status_code: HTTP status code.
    :param kind: the error's ``type``, and the message of the envelope.
    :param title: a few words for people.
    :param detail: more words for people.
    """
    error = {"title": title, "type": kind, "detail": detail}
    return HubResponse.from_json({"status": "error", "status_message": kind, "error": error}, status_code)
