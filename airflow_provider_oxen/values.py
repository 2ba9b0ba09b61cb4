"""
Reading what stands in a decoded JSON document, and keeping it in little memory.

A value that makes no sense is None, and never an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pendulum import DateTime

__all__ = [
    "boolean",
    "count",
    "json_safe",
    "moment",
    "named_texts",
    "number",
    "pack",
    "plain_values",
    "text",
    "unpack",
]

#: Longest text handed on, in characters: an event and an XCom are rows in Airflow's database.
_TEXT_LIMIT = 4_000
#: Most entries of an open object handed on, for the same reason.
_ENTRIES_LIMIT = 50
#: Largest count accepted: what a signed 64-bit column holds.
_COUNT_LIMIT = 2**63 - 1
#: Longest number accepted as text, in characters: Python reads longer integers slowly, or not at all.
_NUMBER_LIMIT = 40


def text(value: object) -> str | None:
    """
    Read a text, in a form every database takes.

    PostgreSQL refuses NUL in text and JSON, and no database takes lone surrogates.
    """
    if not isinstance(value, str):
        return None
    if len(value) > _TEXT_LIMIT:
        value = value[: _TEXT_LIMIT - 1] + "…"
    if value.isascii() and "\0" not in value:
        return value
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def json_safe(value: object) -> Any:
    """
    Leave out of a field's value what JSON cannot hold, and what no field holds: objects inside an object, and lists.

    A lone surrogate becomes a question mark.
    """
    if isinstance(value, str):
        return value if type(value) is str and value.isascii() else value.encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {json_safe(key): json_safe(_flat(inner)) for key, inner in value.items() if isinstance(key, str)}
    return _flat(value)


def named_texts(value: object, names: tuple[str, ...]) -> dict[str, str | None] | None:
    """Read the texts of an object, each by its name. One that is missing is None."""
    return {name: text(value.get(name)) for name in names} if isinstance(value, Mapping) else None


def plain_values(value: object) -> dict[str, Any] | str | None:
    """Read a text, or an object whose keys are open: its texts, numbers and booleans."""
    if not isinstance(value, Mapping):
        return text(value)
    plain = ((text(key), _plain(inner)) for key, inner in value.items())
    return dict([(key, inner) for key, inner in plain if key and inner is not None][:_ENTRIES_LIMIT])


def boolean(value: object) -> bool | None:
    """Read true or false."""
    return value if isinstance(value, bool) else None


def count(value: object) -> int | None:
    """Read a whole number of things, 0 or more. JSON writers may write 12 as 12.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= _COUNT_LIMIT else None  # a bool is no count


def number(value: object) -> float | None:
    """Read a finite number, also one written as text, as the hub writes decimals at times."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and (len(value) > _NUMBER_LIMIT or not value.isascii() or "_" in value):
        return None
    try:
        read = float(value)
    except (ValueError, OverflowError):
        return None
    return read if math.isfinite(read) else None


def moment(value: object) -> DateTime | None:
    """
    Read a time, in UTC.

    The hub writes ISO 8601, often without a zone: those are UTC. Python's own parser is strict and quick; pendulum's
    takes more than times (durations, intervals), and its conversions take 20 times as long as its constructor.
    """
    if not isinstance(value, str):
        return None
    import pendulum

    try:
        found = datetime.fromisoformat(value.strip())
        if found.tzinfo is not None:
            found = found.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
    date, time = (found.year, found.month, found.day), (found.hour, found.minute, found.second, found.microsecond)
    return pendulum.DateTime(*date, *time, tzinfo=pendulum.UTC)


def pack(found: list[Any]) -> bytes:
    """
    Write decoded values as one object.

    A triggerer keeps an evaluation for each of thousands of waits. As thirty objects each, they would take twice the
    memory.
    """
    return _codec()[0](found)


def unpack(packed: bytes) -> list[Any]:
    """Read what :func:`pack` has written. It decodes all of it, so do it once for several values."""
    return _codec()[1](packed)


@cache
def _codec() -> tuple[Callable[[list[Any]], bytes], Callable[[bytes], list[Any]]]:
    """Make what packs and unpacks."""
    import msgspec

    return msgspec.json.Encoder().encode, msgspec.json.Decoder(list).decode


def _plain(value: object) -> str | int | float | bool | None:
    """Read a value that is neither an object nor a list. A text stays one."""
    if isinstance(value, (bool, str)):
        return value if isinstance(value, bool) else text(value)
    return number(value)


def _flat(value: object) -> str | int | float | bool | None:
    return value if isinstance(value, (str, int, float, bool)) else None
