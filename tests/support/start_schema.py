"""
The vendor's schema of the call that starts an evaluation, as data.

``POST /api/repos/{namespace}/{repo_name}/evaluations/{branch}/{path…}``. Written from the vendor's page of the call,
once, for all tests: of the local hub, and of what the operator and the hook send.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["ERRORS", "FIELDS", "MINIMAL", "OLDER_FORM", "SUCCESS", "Field"]


@dataclass(frozen=True)
class Field:
    """
    A field of the request's body.

    :param kind: its JSON type.
    :param required: whether each request must have it.
    :param enum: the values that it may have; empty: any of its type.
    :param default: the value it has if it is not sent; None: none is documented.
    """

    kind: type
    required: bool = False
    enum: tuple[str, ...] = ()
    default: Any = None


FIELDS = {
    "prompt": Field(str, required=True),
    "input_type": Field(str, required=True, enum=("text", "image", "video")),
    "output_type": Field(str, required=True, enum=("text", "image", "video", "embeddings")),
    "model_id": Field(str, required=True),
    "target_column": Field(str, required=True),
    "auto_commit": Field(bool, default=False),
    "commit_message": Field(str),
    "target_branch": Field(str),
    "target_path": Field(str),
    "is_sample": Field(bool, default=False),
    "sample_count": Field(int, default=10),
    "batch_size": Field(int, default=10),
    "name": Field(str),
}

#: A request with the required fields only.
MINIMAL = {
    "prompt": "Which intent is this?\n{text}",
    "input_type": "text",
    "output_type": "text",
    "model_id": "0b6f6f4e-7a3c-4f5e-9a53-2f8f3f0f5b11",
    "target_column": "intent",
}

#: A request in the form that the vendor's guide still shows.
OLDER_FORM = {
    "prompt": MINIMAL["prompt"],
    "type": "text",
    "model": "gemini-3-1-flash-lite-preview",
    "target_column": "intent",
}

#: What a started evaluation's response has: status code, the envelope's status and message, the evaluation's status.
SUCCESS = (200, "success", "resource_found", "queued")

#: The error's type by status code.
ERRORS = {400: "invalid_params", 402: "insufficient_credits", 404: "resource_not_found"}
