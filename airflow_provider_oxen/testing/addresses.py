"""What an address of the hub names. No server."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import unquote

__all__ = ["decode_segments", "is_missing"]


def decode_segments(path: str) -> list[str] | None:
    """
    Decode the segments of a path.

    :param path: path of the URL as it was sent, percent-encoded, with or without a query; without a slash at its start.
    :return: the segments; None if one of them can be no name: because it is empty, ``.`` or ``..``, or has a slash that
        is encoded as ``%2F``.
    """
    segments = [unquote(segment) for segment in path.partition("?")[0].split("/")]
    return None if any(segment in ("", ".", "..") or "/" in segment for segment in segments) else segments


def is_missing(missing: Collection[str], *names: str) -> bool:
    """
    Check an address against those that do not exist.

    :param missing: for example ``ox/r``, ``ox/r/main`` and ``ox/r/main/data/a.csv``. What is below one is missing, too.
    :param names: namespace, repository, and perhaps branch and path.
    """
    address = "/".join(names)
    return any(address == name or address.startswith(f"{name}/") for name in (name.strip("/") for name in missing))
