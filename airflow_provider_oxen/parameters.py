"""
What arguments may be: what can be part of a request's path, what is a duration, what a trigger is made from.

Imports are cheap here, because the literal arguments of a DAG file are checked while it is parsed.
"""

from __future__ import annotations

import inspect
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from numbers import Integral
from typing import Any
from uuid import UUID

__all__ = [
    "TriggerArguments",
    "as_text",
    "check_booleans",
    "check_conn_id",
    "check_durations",
    "check_path",
    "check_path_parameter",
    "is_known",
    "is_template",
    "parse_optional_seconds",
    "parse_seconds",
]

#: Longest duration, in seconds: 100 years. Later moments cannot be stored in every database, nor in any calendar.
_LONGEST_SECONDS = 100 * 365.25 * 86_400
#: What to write, by the argument's name.
_EXAMPLES = {
    "namespace": "the user or organization that owns the repository, such as 'ox'",
    "repo_name": "the repository's name alone, such as 'customer-intents'",
    "evaluation_id": "the evaluation's id, such as 'd0c8585d-1234-5678-abcd-ef0123456789'",
}
#: The arguments that are True or False, Airflow's own for the end of a wait included.
_BOOLEANS = (
    *("deferrable", "start_from_trigger", "end_from_trigger", "wait_for_completion", "durable"),
    *("soft_fail", "never_fail", "silent_fail"),
)
#: What people take for a name, and is the hub.
_HOSTS = ("hub.oxen.ai", "www.oxen.ai", "oxen.ai")
#: What editors and shells leave around a text without being seen, besides white space.
_INVISIBLE = "\N{ZERO WIDTH NO-BREAK SPACE}\N{ZERO WIDTH SPACE}"
#: Slashes, control characters (some terminals obey those from \u0080 on) and separators of lines; and white space.
_UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SPACE = re.compile(r"[ \t\r\n\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")


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
    is_recorded: bool = False
    last_seen: dict[str, Any] | None = None
    seen_at: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments by name."""
        return asdict(self)


def is_template(text: str) -> bool:
    """Say whether Jinja would change a text."""
    return any(mark in text for mark in ("{{", "{%", "{#"))


def is_known(value: object) -> bool:
    """Say whether an argument is what it will be: no template, no function in place of one, no output of a task."""
    if isinstance(value, str):
        return not is_template(value)
    if callable(value) and _is_called_by_airflow(value):
        return False
    return not hasattr(value, "iter_references")  # as the output of a task, and all else that Airflow resolves, has


def _is_called_by_airflow(function: Callable[..., object]) -> bool:
    """Say whether Airflow can call a function in place of a template. Source: ``Templater`` in Airflow 2.11 and 3."""
    try:
        inspect.signature(function).bind(context=None, jinja_env=None)
    except (TypeError, ValueError):
        return False
    return True


def as_text(value: Any) -> Any:
    """
    Take a UUID and a whole number as their text, and remove the white space around a text.

    A task may return a ``uuid.UUID`` or a number, and a shell's XCom ends with a line break.

    :return: the text; any other value as it is.
    """
    if isinstance(value, str):
        return str.__str__(value).strip().strip(_INVISIBLE).strip()
    if isinstance(value, (UUID, Integral)) and not isinstance(value, bool):
        return str(value)
    return value


def check_path_parameter(name: str, value: object) -> str:
    """
    Refuse a namespace, repository name or evaluation id that does not name exactly one thing on the hub.

    :param name: the argument's name, for the error.
    :param value: what was given for it, rendered.
    :return: its text, see :func:`as_text`.
    :raises OxenConfigError: it is not text, is empty, has a control character, or would change the request's path (a
        slash, a backslash, ``.`` or ``..``). The texts ``None`` and ``null`` are refused as well: the first is what
        Jinja renders where an upstream task returned nothing. So is what no name has: braces,
        percent-encoding, white space, characters that cannot be seen. The error says what to write instead, as far as
        that can be known.
    """
    text = as_text(value)
    if not isinstance(text, str):
        raise _error(_describe_other(name, value), name)
    if text.lower() in ("", "none", "null"):
        raise _error(_describe_nothing(name, text), name)
    if advice := _advise(name, text) or _advise_on_characters(text):
        raise _error(f"is {text!r}: {advice}", name)
    return _check_segment(name, text)


def check_conn_id(value: object) -> None:
    """
    Refuse what cannot be the id of an Airflow connection.

    :raises ValueError: it is empty, is not text, or is an address.
    """
    example = "name the Airflow connection to use, such as 'oxen_default'"
    if value is None or (isinstance(value, str) and value.strip() in ("", "None")):
        raise ValueError(f"oxen_conn_id is empty: {example}")
    if not isinstance(value, str):
        raise ValueError(  # noqa: TRY004  # as all that is wrong with an argument
            f"oxen_conn_id must be text, but is {type(value).__name__}: {example}"
        )
    if "://" in value:  # not shown, for it may hold the key
        raise ValueError(f"oxen_conn_id is an address: put it into an Airflow connection; then {example}")


def check_durations(**arguments: Any) -> None:
    """
    Refuse the durations among a task's arguments that can never work.

    :raises ValueError: as :func:`parse_seconds`; or ``poke_interval`` is 0.
    """
    for name in ("poke_interval", "max_wait", "retry_window", "timeout", "execution_timeout"):
        if name not in arguments or (arguments[name] is None and name in ("max_wait", "timeout", "execution_timeout")):
            continue
        if parse_seconds(name, arguments[name]) == 0 and name == "poke_interval":
            raise ValueError("poke_interval must be above 0 seconds")


def check_booleans(arguments: Mapping[str, object]) -> None:
    """
    Refuse a text where an argument is True or False: ``"false"`` would count as true.

    :param arguments: by name. One that is not there counts as not given; so does a ``deferrable`` that is None.
    :raises ValueError: one of them is neither.
    """
    for name in _BOOLEANS:
        value = arguments.get(name, False)
        if not isinstance(value, bool) and (name, value) != ("deferrable", None):
            raise ValueError(f"{name} must be True or False, but is {value!r}")


def check_path(name: str, value: object) -> list[str]:
    """
    Refuse a branch or a file's path that would change the request's path.

    :param name: the argument's name, for the error.
    :param value: segments with slashes between them, such as ``data/customers.parquet``.
    :return: the segments.
    :raises OxenConfigError: it is not text, has an empty segment (a slash at its start or end, or two in a row), or a
        segment that :func:`check_path_parameter` refuses.
    """
    text = as_text(value)
    if not isinstance(text, str):
        raise _error(_describe_other(name, value), name)
    if text in ("", "None"):
        raise _error(_describe_nothing(name, text), name)
    if "://" in text:
        raise _error(f"is a URL, {text!r}: write only the part inside the repository", name)
    segments = text.split("/")
    if "" in segments:
        raise _error(f"is {text!r}: it must not begin or end with a slash, nor have two in a row", name)
    return [_check_segment(name, segment) for segment in segments]


def parse_seconds(name: str, duration: timedelta | float) -> float:
    """
    Parse a duration.

    :param name: the argument's name, for the error.
    :param duration: a ``timedelta``, or a number of seconds.
    :return: seconds, 0 or more.
    :raises ValueError: it is neither, below 0, without end, or longer than 100 years.
    """
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < float("inf"):
        raise ValueError(f"{name} must be a timedelta or a finite number of seconds, 0 or more, but is {duration!r}")
    if seconds > _LONGEST_SECONDS:
        raise ValueError(f"{name} is {duration!r}, which would end beyond the calendar: at most 100 years are possible")
    return seconds


def parse_optional_seconds(name: str, duration: timedelta | float | None) -> float | None:
    """Parse a duration that may be None."""
    return None if duration is None else parse_seconds(name, duration)


def _check_segment(name: str, text: str) -> str:
    """Refuse what is not one segment of a path."""
    if not text or text != text.strip():
        raise _error(f"is {text!r}: remove the white space around it", name)
    if text in (".", "..") or _UNSAFE.search(text):
        raise _error(
            f"is {text!r}: it may not contain a slash, a backslash or a control character, nor be '.' or '..'", name
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _error("holds characters that cannot be sent (lone surrogates)", name) from error
    return text


def _describe_nothing(name: str, value: object) -> str:
    what = f". Give {_EXAMPLES[name]}" if name in _EXAMPLES else ""
    return f"is {value!r}: nothing was given, or the task it should come from returned nothing{what}"


def _describe_other(name: str, value: object) -> str:
    """Say what to write instead of a value that is not text."""
    problem = f"must be text, but is {type(value).__name__}"
    if value is None:
        return _describe_nothing(name, value)
    if isinstance(value, dict):
        return f"{problem}: give one of its values, such as start.output['evaluation_id'] of the task that starts it"
    if isinstance(value, (list, tuple, set, frozenset)) or hasattr(value, "__next__"):
        return f"{problem}: one task waits for one evaluation; for several, use .partial(...).expand({name}=[...])"
    if isinstance(value, (bytes, bytearray)):
        return f"{problem}: decode it, as in value.decode()"
    if hasattr(value, "task_id"):
        return f"{problem}: a task was given; give its output, as in start.output"
    if callable(value):
        return f"{problem}: a function was given; give the output of a task, with the parentheses, as in start()"
    if isinstance(value, (bool, float)):
        return f"{problem}: pass it as text"
    return f"{problem}: give {_EXAMPLES[name]}" if name in _EXAMPLES else problem


def _advise(name: str, text: str) -> str | None:
    """Say what to write instead of an address, of several names in one, or of a text in quotation marks."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return "remove the quotation marks around it"
    if text.lower() in _HOSTS:
        write = _EXAMPLES.get(name, "a name")
        return f"it is the address of the hub, which belongs into the connection's host; write {write}"
    if text.startswith("git@"):
        text = f"https://{text[4:].replace(':', '/', 1)}"
    is_url = "://" in text or text.lower().startswith(("www.", "oxen.ai/", "hub.oxen.ai/"))
    if "/" not in text or text[0] in "[{":
        return None
    path = text.split("://", 1)[-1].partition("?")[0].partition("#")[0].strip("/")
    parts = path.removesuffix(".git").split("/")[1 if is_url else 0 :]
    parts = parts[2:] if parts[:2] == ["api", "repos"] else parts
    names = {}
    if len(parts) >= 4 and parts[2] == "evaluations":
        names = {"namespace": parts[0], "repo_name": parts[1], "evaluation_id": parts[3]}
    elif len(parts) == 2 and parts[0] == "evaluations":
        names = {"evaluation_id": parts[1]}
    elif len(parts) >= 2 and (is_url or name != "evaluation_id") and all(parts[:2]) and (is_url or len(parts) == 2):
        names = {"namespace": parts[0], "repo_name": parts[1]}
    written = ", ".join(f"{each}={value!r}" for each, value in names.items() if value not in (".", ".."))
    if is_url:
        return f"it is a URL; write {written or _EXAMPLES.get(name, 'a name')}"
    return f"it may not contain a slash; write {written}" if written else None


def _advise_on_characters(text: str) -> str | None:
    """Say what to write instead of a text with characters that no name has."""
    if text[0] == "[" and text[-1] == "]":
        return "it is a list as text: name one task in xcom_pull, as in task_ids='start', which then gives one value"
    if text[0] == "{" and text[-1] == "}" and ":" in text:
        return "it is a dict as text: give one of its values, as in ti.xcom_pull(task_ids='start')['evaluation_id']"
    if text[0] == "<" and text[-1] == ">":
        return "it is a placeholder: write what it stands for"
    if text[0] == "$":
        return (
            "Airflow fills in no shell variables: write os.environ['…'] or a template, as in '{{ var.value.latest }}'"
        )
    if "{" in text or "}" in text:
        return "a template has two braces, as in '{{ var.value.latest }}', and in an f-string four"
    if re.search("%[0-9A-Fa-f]{2}", text):
        return "it is percent-encoded: write it as it reads, such as 'Örebro' and not '%C3%96rebro'"
    if not text.isascii() and any(unicodedata.category(c) == "Cf" for c in text):
        return "it holds characters that cannot be seen: type it anew"
    if _SPACE.search(text):
        return "no name has white space in it; write the name alone"
    return None


def _error(problem: str, name: str) -> ValueError:
    from airflow_provider_oxen.exceptions import OxenConfigError  # not needed in a DAG file where nothing is wrong

    return OxenConfigError(problem, field=name)
