"""
What arguments may be: what can be part of a request's path, what is a duration, what a trigger is made from.

Imports are cheap here, because the literal arguments of a DAG file are checked while it is parsed.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

__all__ = ["TriggerArguments", "check_durations", "check_path", "check_path_parameter", "is_template", "parse_seconds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerArguments:
    """
    What a trigger is made from: the one list of its arguments.

    A worker that defers, a DAG that starts in the triggerer (``start_trigger_args``) and ``serialize`` all use this
    list. It is a stored format: an argument is added with a default, and none is taken away or renamed. All values
    are plain JSON. What each means is documented at
    :class:`~airflow_provider_oxen.triggers.oxen.OxenEvaluationTrigger`.
    """

    namespace: str
    repo_name: str
    evaluation_id: str
    oxen_conn_id: str = "oxen_default"
    poke_interval: float = 10.0
    max_wait: float | None = 60.0
    deadline: float | None = None
    retry_window: float | None = 600.0
    timeout: float | None = None
    end_from_trigger: bool = False
    do_xcom_push: bool = True
    started_here: bool = False
    last_seen: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give the arguments by name."""
        return asdict(self)


def is_template(text: str) -> bool:
    """Say whether Jinja would change a text."""
    return any(mark in text for mark in ("{{", "{%", "{#"))


def check_path_parameter(name: str, value: object) -> str:
    """
    Refuse a namespace, repository name or evaluation id that does not name exactly one thing on the hub.

    :param name: the argument's name, for the error.
    :param value: what was given for it, rendered.
    :return: the value, unchanged.
    :raises OxenConfigError: it is not text, is empty, begins or ends with white space, has a control character,
        or would change the request's path (a slash, a backslash, ``.`` or ``..``). The text ``None`` is refused as
        well: it is what Jinja renders where an upstream task returned nothing.
    """
    if not isinstance(value, str):
        raise _error(f"must be text, but is {type(value).__name__}", name)
    if value in ("", "None"):
        raise _error(f"is {value!r}: nothing was given, or the task it should come from returned nothing", name)
    if value != value.strip():
        raise _error(f"is {value!r}: remove the white space around it", name)
    if value in (".", "..") or any(c in "/\\" or ord(c) < 0x20 or ord(c) == 0x7F for c in value):
        raise _error(
            f"is {value!r}: it may not contain a slash, a backslash or a control character, nor be '.' or '..'",
            name,
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _error("holds characters that cannot be sent (lone surrogates)", name) from error
    return value


def check_durations(**arguments: Any) -> None:
    """
    Refuse the durations among a task's arguments that can never work.

    :raises ValueError: as :func:`parse_seconds`; or ``poke_interval`` is 0.
    """
    for name in ("poke_interval", "max_wait", "retry_window", "timeout"):
        if name not in arguments or (arguments[name] is None and name in ("max_wait", "timeout")):
            continue
        if parse_seconds(name, arguments[name]) == 0 and name == "poke_interval":
            raise ValueError("poke_interval must be above 0 seconds")


def check_path(name: str, value: object) -> list[str]:
    """
    Refuse a branch or a file's path that would change the request's path.

    :param name: the argument's name, for the error.
    :param value: segments with slashes between them, such as ``data/customers.parquet``.
    :return: the segments.
    :raises OxenConfigError: it is not text, has an empty segment (a slash at its start or end, or two in a row), or a
        segment that :func:`check_path_parameter` refuses.
    """
    if not isinstance(value, str) or not value:
        check_path_parameter(name, value)
    segments = str(value).split("/")
    if "" in segments:
        raise _error(f"is {value!r}: it must not begin or end with a slash, nor have two in a row", name)
    return [check_path_parameter(name, segment) for segment in segments]


def parse_seconds(name: str, duration: timedelta | float) -> float:
    """
    Parse a duration.

    :param name: the argument's name, for the error.
    :param duration: a ``timedelta``, or a number of seconds.
    :return: seconds, 0 or more.
    :raises ValueError: it is neither, below 0, or without end.
    """
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
        raise ValueError(f"{name} must be a timedelta or a finite number of seconds, 0 or more, but is {duration!r}")
    return seconds


def _error(problem: str, name: str) -> ValueError:
    # Imported here: where nothing is wrong, as in nearly all DAG files, it is not needed.
    from airflow_provider_oxen.exceptions import OxenConfigError

    return OxenConfigError(problem, field=name)
