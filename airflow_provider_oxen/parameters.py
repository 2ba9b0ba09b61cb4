"""
What may stand in the path of a request.

Apart from ``api`` because a DAG file's literal arguments are checked while it is parsed, where imports must be cheap.
"""

from __future__ import annotations

from airflow_provider_oxen.exceptions import OxenConfigError

__all__ = ["check_path_parameter"]


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
