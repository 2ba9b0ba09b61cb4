"""
What may be shown of what the hub sends: never the key, and never more than one printable line.

Redaction works on decoded texts and on what is shown, never on bytes or names that are still to be parsed: a short
key may be part of them by chance.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any

__all__ = ["may_hold", "one_line", "redact"]

#: Longest text of the hub's shown in an error or a log, in characters.
_MAX_SHOWN = 500
#: Shortest key that is redacted, in characters. A shorter one is a placeholder, for which a gateway puts the real key
#: in; ids, paths and words may hold it by chance. Airflow's own masking leaves out short secrets, too.
_SHORTEST_SECRET = 8


def may_hold(body: bytes, secret: str) -> bool:
    """
    Check whether the texts of a JSON body have to be searched for the key.

    They have to where the key is in the bytes, or where any text has JSON's escapes or is percent-encoded.
    """
    return b"\\" in body or b"%" in body or secret.encode() in body


def redact(value: Any, secret: str, *, names: Collection[str] = ()) -> Any:
    """
    Replace the key by ``***`` in a decoded text, or in all texts of a decoded object or list.

    A hub or proxy that echoes the key must not carry it into a log or an XCom. Any of its characters may be
    percent-encoded, as in a redirect's address, or escaped, as in JSON that is shown as it is.

    :param names: the names that an object is read by. They stay, and all other names are searched as well.
    """
    if len(secret) < _SHORTEST_SECRET:
        return value
    if isinstance(value, str):
        return _find(secret).sub("***", value)
    if isinstance(value, dict):
        return {
            name if name in names else redact(name, secret): redact(inner, secret, names=names)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [redact(inner, secret, names=names) for inner in value]
    return value


@lru_cache(maxsize=32)
def _find(secret: str) -> re.Pattern[str]:
    """Compile what finds a key, however its characters are written."""
    written = []
    for c in secret:
        percent = "".join(f"%{byte:02x}" for byte in c.encode(errors="replace"))
        written.append(rf"(?:\\?{re.escape(c)}|(?i:{percent}|\\u{ord(c):04x}))")
    return re.compile("".join(written))


def one_line(text: str, limit: int = _MAX_SHOWN) -> str:
    """
    Make a text of the hub's fit for one line of a log: no control characters, no surrogates, not too long.

    :param limit: most characters of the line.
    """
    line = text[: 2 * limit]
    if not line.isprintable():
        line = "".join(c if c.isprintable() else " " for c in line)
    line = " ".join(line.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
