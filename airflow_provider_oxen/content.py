"""
What both transports do with the headers and the content of a response, so that they cannot differ in it.

Neither library decompresses: each has other encodings, other names for them and other limits, which also depend on
what else is installed. The limits on headers are ours for the same reason; each library has wider ones behind them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence, Sized
from typing import Any

from airflow_provider_oxen.exceptions import OxenInvalidResponseError
from airflow_provider_oxen.protocol import MAX_BODY_BYTES, Call

__all__ = [
    "LIBRARY_HEADER_BYTES",
    "MAX_HEADERS",
    "MAX_HEADER_BYTES",
    "check_headers",
    "check_size",
    "decode_content",
    "describe_long_header",
    "describe_many_headers",
]

#: Most headers of a response. http.client refuses more, and that limit of its own belongs to the whole process.
MAX_HEADERS = 99
#: Longest header, name and value. Proxies and servers allow 8 to 16 KiB for all headers, a few of them 32.
MAX_HEADER_BYTES = 32 * 1024
#: What the libraries allow at least: http.client's own limit, which aiohttp is given as well.
LIBRARY_HEADER_BYTES = 64 * 1024

#: zlib's word for gzip.
_GZIP = 31
#: Members of one gzip body after the first. Each costs a copy of what follows it.
_MAX_MEMBERS = 16
#: Names of encodings are shorter than this, and keys that are redacted are not.
_SHOWN_ENCODING = 8


def check_headers(call: Call[Any], headers: Sequence[tuple[Sized, Sized]], transfer_encoding: str | None) -> None:
    """
    Check the headers of a response against both limits, and that the body comes as such or in chunks.

    :param headers: name and value of each.
    :raises OxenInvalidResponseError: there are too many, or one is too long.
    """
    for name, value in headers:
        if len(name) + len(value) > MAX_HEADER_BYTES:
            raise OxenInvalidResponseError(describe_long_header(), request=str(call))
    if len(headers) > MAX_HEADERS:
        raise OxenInvalidResponseError(describe_many_headers(), request=str(call))
    if transfer_encoding is not None and transfer_encoding.strip().lower() != "chunked":
        problem = "the response has an unsupported transfer encoding; only 'chunked' is supported"
        raise OxenInvalidResponseError(problem, request=str(call))


def describe_long_header() -> str:
    """Say that a header is too long."""
    return f"a header of the response is longer than {MAX_HEADER_BYTES // 1024} KiB, which is the limit"


def describe_many_headers() -> str:
    """Say that there are too many headers."""
    return f"the response has more than {MAX_HEADERS} headers, which is the limit"


def check_size(call: Call[Any], size: int) -> None:
    """Check a body's size: as sent, and after decompression."""
    if size > MAX_BODY_BYTES:
        raise OxenInvalidResponseError(
            f"the response is larger than {MAX_BODY_BYTES // 2**20} MiB, the limit for a response of the hub",
            request=str(call),
        )


def decode_content(call: Call[Any], status_code: int, encoding: str | None, body: bytes) -> bytes:
    """
    Decompress a body.

    :param encoding: the header ``Content-Encoding``.
    :return: the content. Empty where an error response cannot be decompressed: its status code says enough.
    :raises OxenInvalidResponseError: it cannot be decompressed, or is too large.
    """
    name = (encoding or "").strip().lower()
    if not body or name in ("", "identity"):
        return body
    try:
        content = _DECODERS[name](body)
    except (KeyError, zlib.error) as error:
        if status_code != 200:
            return b""
        shown = name if len(name) < _SHOWN_ENCODING and name.isalnum() else "of another name"  # it may hold the key
        problem = (
            f"the response has a content encoding that was not asked for ({shown}); gzip and deflate were"
            if isinstance(error, KeyError)
            else f"the response is not the {shown} that its header says it is"
        )
        raise OxenInvalidResponseError(problem, request=str(call)) from None
    check_size(call, len(content))
    return content


def _gunzip(body: bytes) -> bytes:
    """Decompress one member or several. What follows the last is ignored."""
    content, body = _inflate(body, _GZIP, MAX_BODY_BYTES + 1)
    for _ in range(_MAX_MEMBERS):
        if body[:2] != b"\x1f\x8b" or len(content) > MAX_BODY_BYTES:
            break
        more, body = _inflate(body, _GZIP, MAX_BODY_BYTES + 1 - len(content))
        content += more
    return content


def _undeflate(body: bytes) -> bytes:
    """Decompress what the standard calls deflate, and what some servers take it for: the same without a header."""
    try:
        return _inflate(body, zlib.MAX_WBITS, MAX_BODY_BYTES + 1)[0]
    except zlib.error:
        return _inflate(body, -zlib.MAX_WBITS, MAX_BODY_BYTES + 1)[0]


def _inflate(body: bytes, wbits: int, limit: int) -> tuple[bytes, bytes]:
    """Decompress up to a number of bytes; return what follows, too."""
    decoder = zlib.decompressobj(wbits)
    content = decoder.decompress(body, limit)
    if not decoder.eof and len(content) < limit:
        raise zlib.error("cut off")
    return content, decoder.unused_data


_DECODERS: dict[str, Callable[[bytes], bytes]] = {"gzip": _gunzip, "x-gzip": _gunzip, "deflate": _undeflate}
