"""
What the arguments of users may be: what can stand in the path of a request, and what is a duration.

Apart from ``api`` because a DAG file's literal arguments are checked while it is parsed, where imports must be cheap.
"""

from __future__ import annotations

import math
from datetime import timedelta

from airflow_provider_oxen.exceptions import OxenConfigError

__all__ = ["check_path_parameter", "read_seconds"]


def check_path_parameter(name: str, value: object) -> str:
    """
    Refuse a namespace, repository name or evaluation id that would not name one thing on the hub.

    :param name: the argument's name, for the error.
    :param value: what was given for it, rendered.
    :return: the value, unchanged.
    :raises OxenConfigError: it is no text, is empty, begins or ends with white space, has a control character,
        or would change the request's path (a slash, a backslash, ``.`` or ``..``). The text ``None`` is refused as
        well: it is what Jinja renders where an upstream task returned nothing.
    """
    if not isinstance(value, str):
        raise OxenConfigError(f"must be text, but is {type(value).__name__}", field=name)
    if value in ("", "None"):
        raise OxenConfigError(
            f"is {value!r}: nothing was given, or the task it was to come from returned nothing", field=name
        )
    if value != value.strip():
        raise OxenConfigError(f"is {value!r}: remove the white space around it", field=name)
    if value in (".", "..") or any(c in "/\\" or ord(c) < 0x20 or ord(c) == 0x7F for c in value):
        raise OxenConfigError(
            f"is {value!r}: it may not contain a slash, a backslash or a control character, nor be '.' or '..'",
            field=name,
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise OxenConfigError("holds characters that cannot be sent (lone surrogates)", field=name) from error
    return value


def read_seconds(name: str, duration: timedelta | float) -> float:
    """
    Read a duration.

    :param name: the argument's name, for the error.
    :param duration: a ``timedelta``, or a number of seconds.
    :return: seconds, 0 or more.
    :raises ValueError: it is neither, below 0, or without end.
    """
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
        raise ValueError(f"{name} must be a timedelta or a finite number of seconds, 0 or more, but is {duration!r}")
    return seconds
