"""The envelope that the hub puts around what it sends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_oxen.testing.exchange import HubResponse

__all__ = ["build_error", "build_evaluation", "build_invalid_params"]


def build_evaluation(evaluation: Mapping[str, Any]) -> HubResponse:
    """Build the response that shows an evaluation."""
    return HubResponse.from_json({"status": "success", "status_message": "resource_found", "evaluation": evaluation})


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
