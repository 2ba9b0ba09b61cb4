"""
From the fields of an Airflow connection to one validated configuration.

Plain values in, a frozen value out: this module knows nothing of Airflow, so that every way in which a connection can
be wrong is tested without one. The first error found is raised as an :class:`OxenConfigError` that names the connection
and the field, and never the API key.
"""

from __future__ import annotations

import ipaddress
import json
import math
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from airflow_provider_oxen.exceptions import OxenConfigError

__all__ = ["DEFAULT_HOST", "DEFAULT_MAX_CONNECTIONS", "DEFAULT_TIMEOUT_SECONDS", "ClientConfig", "parse_config"]

#: The vendor's production host.
DEFAULT_HOST = "hub.oxen.ai"
#: A poll has one small response. A hub that has not sent it in this time is better asked again.
DEFAULT_TIMEOUT_SECONDS = 30.0
#: Enough for thousands of waits (a poll takes milliseconds), few enough for a triggerer's open-file limit.
DEFAULT_MAX_CONNECTIONS = 20

#: A request for a status that takes an hour is a typing error (milliseconds, for instance).
_MAX_TIMEOUT_SECONDS = 3_600.0
#: Beyond this, the limit on open files is reached first.
_MAX_CONNECTIONS = 1_000

#: The supported schemes, with the port of each.
_SCHEMES = {"https": 443, "http": 80}
_EXTRA_FIELDS = ("timeout", "verify", "proxy", "max_connections")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """
    What a transport needs to reach one hub. Equal configurations may share connections; others never do.

    :param conn_id: the Airflow connection it was read from, for messages.
    :param base_url: scheme, host, port where it is not the scheme's own, and path prefix, without a slash at the end.
    :param api_key: the bearer key. Never shown.
    :param timeout_seconds: longest time one request may take from start to end, above 0.
    :param verify: whether the hub's certificate is checked; a text is the path of the CA file to check it against.
    :param ca_file_version: what changes when the CA file does, or that of the machine; None where there is none.
    :param proxy: address of an HTTP proxy, or None. Not shown, for it may hold a password.
    :param max_connections: most connections open at one time, 1 or more.
    :param warnings: what is odd but usable, a sentence each.
    """

    conn_id: str
    base_url: str
    api_key: str = field(repr=False)
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    verify: bool | str = True
    ca_file_version: tuple[int, ...] | None = field(default=None, repr=False, kw_only=True)
    proxy: str | None = field(default=None, repr=False)
    max_connections: int = DEFAULT_MAX_CONNECTIONS
    warnings: tuple[str, ...] = field(default=(), compare=False)


def parse_config(
    conn_id: str,
    *,
    host: str | None = None,
    schema: str | None = None,
    port: int | str | None = None,
    password: str | None = None,
    extra: str | Mapping[str, Any] | None = None,
) -> ClientConfig:
    """
    Parse a connection's fields.

    :param conn_id: id of the connection, for messages.
    :param host: a bare host, ``host:port`` or a full URL, whose path is kept as a prefix. Empty: ``hub.oxen.ai``.
    :param schema: ``https`` (the default) or ``http``.
    :param port: TCP port; empty: the scheme's own.
    :param password: the API key.
    :param extra: a JSON object, as text or as mapping: ``timeout`` (seconds, default 30), ``verify`` (true, false or
        the path of a CA file), ``proxy`` (``http://host:port``), ``max_connections`` (default 20). Numbers and
        booleans may be text, since the connection form of Airflow 2 stores text. Other keys are named in a warning and
        go nowhere.
    :return: the configuration.
    :raises OxenConfigError: a field cannot be used; the error names it.
    """
    field_error = _FieldError(conn_id)
    settings = {key: value for key, value in _read_extra(field_error, extra).items() if value not in (None, "")}
    warnings = []
    names = (str(key) for key in settings if key not in _EXTRA_FIELDS)
    if unknown := sorted(name if name.isprintable() else repr(name) for name in names):
        warnings.append(
            f"connection {conn_id!r}: extra fields {', '.join(unknown)} are unknown and not used; "
            f"the known ones are {', '.join(_EXTRA_FIELDS)}"
        )
    base = _read_address(field_error, host, schema, port)
    if base.scheme == "http" and not _is_loopback(base.hostname or ""):
        warnings.append(
            f"connection {conn_id!r}: the API key goes to {base.hostname} unencrypted; set field 'schema' to https"
        )
    verify = _read_verify(field_error, settings.get("verify", True))
    return ClientConfig(
        conn_id=conn_id,
        base_url=base.geturl().rstrip("/"),
        api_key=_read_key(field_error, password),
        timeout_seconds=_read_timeout(field_error, settings.get("timeout", DEFAULT_TIMEOUT_SECONDS)),
        verify=verify,
        ca_file_version=_read_file_version(verify),
        proxy=_read_proxy(field_error, settings.get("proxy")),
        max_connections=_read_max_connections(field_error, settings.get("max_connections", DEFAULT_MAX_CONNECTIONS)),
        warnings=tuple(warnings),
    )


class _FieldError:
    """Makes the errors of one connection."""

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id

    def __call__(self, name: str, problem: str) -> OxenConfigError:
        return OxenConfigError(problem, field=name, conn_id=self.conn_id)


def _read_extra(field_error: _FieldError, extra: str | Mapping[str, Any] | None) -> Mapping[str, Any]:
    if isinstance(extra, str) and extra.strip():
        try:
            extra = json.loads(extra)
        except ValueError:  # its text may quote a secret
            raise field_error("extra", 'is not valid JSON: it must be an object, such as {"timeout": 30}') from None
    if not extra:
        return {}
    if not isinstance(extra, Mapping):
        raise field_error("extra", 'must be a JSON object, such as {"timeout": 30}')
    return extra


def _read_address(
    field_error: _FieldError, host: str | None, schema: str | None, port: int | str | None
) -> SplitResult:
    host = (host or "").strip() or DEFAULT_HOST
    schema = (schema or "").strip().lower() or None
    if schema not in (None, *_SCHEMES):
        # Not quoted: in a URI whose key has an unencoded slash, the rest of the key is what arrives here.
        raise field_error("schema", "must be https or http (in a URI, the API key has to be percent-encoded)")
    if host.count(":") > 1 and "://" not in host and not host.startswith("["):
        host = f"[{host}]"  # a bare IPv6 address
    try:
        parts = urlsplit(host if "://" in host else f"{schema or 'https'}://{host}")
        host_port = parts.port
    except ValueError:  # its text may quote a login
        raise field_error("host", "is neither a host name nor a URL") from None
    if parts.scheme not in _SCHEMES:
        raise field_error("host", f"begins with {parts.scheme}://, but only https:// and http:// are supported")
    if schema and schema != parts.scheme:
        raise field_error("schema", f"says {schema}, but the host says {parts.scheme}://: leave one of them out")
    if parts.username is not None or parts.password is not None:
        raise field_error("host", "holds a login: put the API key into the password field, and only there")
    if parts.query or parts.fragment:
        raise field_error("host", "holds a '?' or '#': give only the address")
    name = parts.hostname or ""
    _check_host_name(field_error, name)
    if any(not "!" <= c <= "~" or c in '"<>\\^`{|}' for c in parts.path):
        raise field_error("host", "holds characters that cannot be part of a URL's path")
    if host_port == 0:
        raise field_error("host", "has the port 0, on which nothing can listen")
    own_port = _read_port(field_error, port)
    if own_port and host_port and own_port != host_port:
        raise field_error("port", f"says {own_port}, but the host says {host_port}: leave one of them out")
    shown = f"[{name}]" if ":" in name else name
    chosen = host_port or own_port
    # The scheme's own port, given or not, is the same hub: lineage, links and assets must name it alike.
    return parts._replace(netloc=shown if chosen in (None, _SCHEMES[parts.scheme]) else f"{shown}:{chosen}")


def _check_host_name(field_error: _FieldError, name: str) -> None:
    labels = name.removesuffix(".").split(".")
    if (
        not name.isascii()
        or any(not (c.isalnum() or c in "-._:") for c in name)
        or any(not 1 <= len(label) <= 63 for label in labels)
    ):
        raise field_error("host", f"is not a host name: {name!r}")
    if name in _SCHEMES:
        raise field_error("host", f"has {name} more than once, or without its colon")


def _read_port(field_error: _FieldError, port: int | str | None) -> int | None:
    if port in (None, ""):
        return None
    number = _to_number(port)
    if number == 0:  # which Airflow's pages send for a port that is not set, when a connection is tested
        return None
    if number is None or not number.is_integer() or not 1 <= number <= 65_535:
        raise field_error("port", f"must be a number from 1 to 65535, but is {port!r}")
    return int(number)


def _read_key(field_error: _FieldError, password: str | None) -> str:
    key = (password or "").strip()
    if not key:
        raise field_error(
            "password",
            "is empty: put an API key of Oxen.ai there; in a URI, it follows a colon, as in oxen://:API_KEY@hub.oxen.ai",
        )
    if key.lower().startswith("bearer "):
        raise field_error("password", "begins with 'Bearer': give the key alone")
    if len(key) > 1 and key[0] == key[-1] and key[0] in "\"'":
        raise field_error("password", "is in quotation marks: remove them")
    if key == "***":
        raise field_error("password", "is '***', which Airflow shows in place of a secret: give the key itself")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise field_error("password", "is not an API key: it holds a space, a line break or a character outside ASCII")
    return key


def _read_timeout(field_error: _FieldError, value: object) -> float:
    number = _to_number(value)
    if number is None or not 0 < number <= _MAX_TIMEOUT_SECONDS:
        raise field_error("timeout", f"must be a number of seconds, above 0 and at most 3600, but is {value!r}")
    return number


def _read_max_connections(field_error: _FieldError, value: object) -> int:
    number = _to_number(value)
    if number is None or not number.is_integer() or not 1 <= number <= _MAX_CONNECTIONS:
        raise field_error("max_connections", f"must be a whole number from 1 to 1000, but is {value!r}")
    return int(number)


def _read_verify(field_error: _FieldError, value: object) -> bool | str:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise field_error("verify", f"must be true, false or the path of a CA file, but is {value!r}")
    word = value.strip()
    if word.lower() in (*_TRUE, *_FALSE):
        return word.lower() in _TRUE
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=word)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise field_error("verify", f"names a CA file that cannot be read, {word!r} ({reason})") from None
    return word


def _read_file_version(verify: bool | str) -> tuple[int, ...] | None:
    """Describe the CA file as it is now, so that settings with a replaced file differ from those before."""
    path = ssl.get_default_verify_paths().cafile if verify is True else verify
    if not isinstance(path, str):
        return None
    try:
        found = Path(path).stat()
    except OSError:  # removed since it was read, a moment ago
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read_proxy(field_error: _FieldError, value: object) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(value.strip()) if isinstance(value, str) else None
        usable = parts is not None and parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
        usable = usable and " " not in str(value).strip()
    except ValueError:
        usable = False
    if not usable or not str(value).strip().isascii() or not str(value).strip().isprintable():
        raise field_error("proxy", "must be the address of an HTTP proxy, such as http://proxy.example:3128")
    return str(value).strip()


def _to_number(value: object) -> float | None:
    """Read a finite number, also from text; a boolean is not one."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
