"""Raw responses, and what comes out of each: the value, or the class of the error."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

from airflow_provider_oxen.exceptions import (
    OxenInvalidResponseError,
    OxenRateLimitError,
    OxenServerError,
    OxenUnreachableError,
)

BODY = b'{"ok": 1}'
INVALID, UNREACHABLE = OxenInvalidResponseError, OxenUnreachableError


def head(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"".join(line + b"\r\n" for line in (status, *lines)) + b"\r\n"


def ok(*lines: bytes, body: bytes = BODY, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """Write a response with the length of its body."""
    return head(b"Content-Length: %d" % len(body), *lines, status=status) + body


def chunked(data: bytes, *lines: bytes) -> bytes:
    return head(b"Transfer-Encoding: chunked", *lines) + data


def encoded(name: bytes, body: bytes) -> bytes:
    return ok(b"Content-Encoding: " + name, body=body)


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def numbered(count: int) -> list[bytes]:
    return [b"X-%d: 1" % number for number in range(count)]


EARLY_HINTS = head(b"Link: </style.css>; rel=preload", status=b"HTTP/1.1 103 Early Hints")
PACKED = gzip.compress(BODY)

#: Raw response, and what comes out of it with either transport.
CASES: dict[str, tuple[bytes, Any]] = {
    # Before the response
    "100 before": (head(status=b"HTTP/1.1 100 Continue") + ok(), BODY),
    "102 before": (head(status=b"HTTP/1.1 102 Processing") + ok(), BODY),
    "103 before": (EARLY_HINTS + ok(), BODY),
    "103 three times": (EARLY_HINTS * 3 + ok(), BODY),
    "103 with a length": (ok(status=b"HTTP/1.1 103 Early Hints", body=b"") + ok(), BODY),
    "103 and no more": (EARLY_HINTS, UNREACHABLE),
    "103 before an error": (EARLY_HINTS + ok(status=b"HTTP/1.1 503 No"), OxenServerError),
    "101": (head(b"Upgrade: x", b"Connection: upgrade", status=b"HTTP/1.1 101 Switching") + ok(), INVALID),
    "empty lines before": (b"\r\n\r\n" + ok(), BODY),
    "space before": (b" " + ok(), INVALID),
    # Large heads
    "header of 9,000 bytes": (ok(b"X: " + b"x" * 9_000), BODY),
    "header of 32 KiB": (ok(b"X: " + b"x" * (32 * 1024 - 1)), BODY),
    "header of 32 KiB and a byte": (ok(b"X: " + b"x" * (32 * 1024)), INVALID),
    "header of 70,000 bytes": (ok(b"X: " + b"x" * 70_000), INVALID),
    "99 headers": (ok(*numbered(98)), BODY),
    "100 headers": (ok(*numbered(99)), INVALID),
    "200 headers": (ok(*numbered(199)), INVALID),
    "99 headers of one name": (ok(*[b"Set-Cookie: a=b"] * 98), BODY),
    "270 KB of headers": (ok(*(line + b"x" * 3_000 for line in numbered(90))), BODY),
    "reason of 9,000 bytes": (ok(status=b"HTTP/1.1 200 " + b"x" * 9_000), BODY),
    "reason of 70,000 bytes": (ok(status=b"HTTP/1.1 200 " + b"x" * 70_000), INVALID),
    # Encodings
    "gzip": (encoded(b"gzip", PACKED), BODY),
    "x-gzip": (encoded(b"x-gzip", PACKED), BODY),
    "GZIP": (encoded(b"GZIP", PACKED), BODY),
    "gzip in two members": (encoded(b"gzip", gzip.compress(BODY[:4]) + gzip.compress(BODY[4:])), BODY),
    "gzip in 4,000 members": (encoded(b"gzip", gzip.compress(b"") * 4_000 + PACKED), b""),
    "gzip and zeros": (encoded(b"gzip", PACKED + b"\0\0\0"), BODY),
    "gzip and other bytes": (encoded(b"gzip", PACKED + b"more"), BODY),
    "gzip cut off": (encoded(b"gzip", PACKED[:-9]), INVALID),
    "gzip that is none": (encoded(b"gzip", BODY), INVALID),
    "gzip of nothing": (encoded(b"gzip", b""), b""),
    "gzip in chunks": (chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(PACKED), PACKED), b"Content-Encoding: gzip"), BODY),
    "deflate": (encoded(b"deflate", zlib.compress(BODY)), BODY),
    "deflate without a header": (encoded(b"deflate", raw_deflate(BODY)), BODY),
    "deflate that is none": (encoded(b"deflate", b"\xff" * 20), INVALID),
    "identity": (encoded(b"identity", BODY), BODY),
    "an encoding without a name": (encoded(b"", BODY), BODY),
    "br": (encoded(b"br", b"\x0b\x04\x80abc"), INVALID),
    "zstd": (encoded(b"zstd", b"\x28\xb5\x2f\xfd"), INVALID),
    "two encodings": (encoded(b"gzip, gzip", gzip.compress(PACKED)), INVALID),
    "the encoding twice": (ok(*[b"Content-Encoding: gzip"] * 2, body=PACKED), BODY),
    "an error in br": (ok(b"Content-Encoding: br", status=b"HTTP/1.1 401 No"), INVALID),
    "an error in broken gzip": (ok(b"Content-Encoding: gzip", status=b"HTTP/1.1 429 No"), OxenRateLimitError),
    # Chunks
    "chunks": (chunked(b"9\r\n" + BODY + b"\r\n0\r\n\r\n"), BODY),
    "a chunk for each byte": (chunked(b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"), BODY),
    "chunk extension": (chunked(b"9;a=b\r\n" + BODY + b"\r\n0;x\r\n\r\n"), BODY),
    "chunk size with zeros": (chunked(b"0009\r\n" + BODY + b"\r\n000\r\n\r\n"), BODY),
    "chunk size with a space": (chunked(b"9 \r\n" + BODY + b"\r\n0\r\n\r\n"), BODY),
    "chunk trailer": (chunked(b"9\r\n" + BODY + b"\r\n0\r\nX-Trailer: 1\r\n\r\n"), BODY),
    "Chunked": (head(b"Transfer-Encoding: Chunked") + b"9\r\n" + BODY + b"\r\n0\r\n\r\n", BODY),
    "chunks in HTTP/1.0": (head(b"Transfer-Encoding: chunked", status=b"HTTP/1.0 200 OK") + b"0\r\n\r\n", b""),
    **{
        f"chunk size {size!r}": (chunked(size + b"\r\n" + BODY + b"\r\n0\r\n\r\n"), INVALID)
        for size in (b"zz", b"-9", b"+9", b"0x9", b"0_9", b"", b"4", b"f" * 16, b"f" * 40)
    },
    "chunks with line feeds": (chunked(b"9\n" + BODY + b"\n0\n\n"), INVALID),
    "no last chunk": (chunked(b"9\r\n" + BODY + b"\r\n"), INVALID),
    "last chunk cut off": (chunked(b"9\r\n" + BODY + b"\r\n0\r\n"), INVALID),
    "chunk cut off": (chunked(b"9\r\n" + BODY[:4]), INVALID),
    "chunk longer than its size": (chunked(b"9\r\n" + BODY + b"0\r\n\r\n"), INVALID),
    "trailers without end": (chunked(b"9\r\n" + BODY + b"\r\n0\r\n" + b"X: 1\r\n" * 200 + b"\r\n"), INVALID),
    "chunks and a length": (chunked(b"9\r\n" + BODY + b"\r\n0\r\n\r\n", b"Content-Length: 9"), INVALID),
    "transfer encoding gzip": (head(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", INVALID),
    "transfer encoding identity": (ok(b"Transfer-Encoding: identity"), INVALID),
    "transfer encoding twice": (head(b"Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n", INVALID),
    # Lengths
    "no length": (head() + BODY, BODY),
    "no length in HTTP/1.0": (head(status=b"HTTP/1.0 200 OK") + BODY, BODY),
    "length 0": (ok(body=b""), b""),
    "length too long": (head(b"Content-Length: 40") + BODY, INVALID),
    "length of 5 MB": (head(b"Content-Length: 5000000") + BODY, INVALID),
    "length twice": (ok(b"Content-Length: 9"), INVALID),
    **{
        f"length {length[:8]!r}": (head(b"Content-Length: " + length) + BODY, INVALID)
        for length in (b"", b"9, 9", b"+9", b"-1", b"abc", b"0_9", b"9" * 30, b"9" * 5_000)
    },
    # Heads
    "HTTP/1.0": (ok(status=b"HTTP/1.0 200 OK"), BODY),
    "no reason": (ok(status=b"HTTP/1.1 200"), BODY),
    "line feeds alone": (ok().replace(b"\r\n", b"\n"), BODY),
    "carriage returns alone": (ok().replace(b"\r\n", b"\r"), INVALID),
    "folded header": (ok(b"X: a\r\n b"), BODY),
    "header without a value": (ok(b"X:"), BODY),
    "header in UTF-8": (ok("X: ü".encode()), BODY),
    "header in Latin-1": (ok(b"X: \xfc"), BODY),
    "multipart": (ok(b"Content-Type: multipart/mixed; boundary=x"), BODY),
    "addresses that are none": (ok(b"Link: <http://[>; rel=next", b"Content-Location: http://["), BODY),
    "Retry-After twice": (ok(*[b"Retry-After: 5"] * 2, status=b"HTTP/1.1 429 No"), OxenRateLimitError),
    "204 without a body": (head(status=b"HTTP/1.1 204 No Content"), INVALID),
    "999": (ok(status=b"HTTP/1.1 999 x"), OxenServerError),
    **{
        f"status line {line!r}": (ok(status=line), INVALID)
        for line in (
            b"HTTP/1 200 OK",
            b"HTTP/1.2 200 OK",
            b"http/1.1 200 OK",
            b"ICY 200 OK",
            b"HTTP/1.1 99 x",
            b"HTTP/1.1 1000 x",
            b"HTTP/1.1 abc x",
            b"HTTP/1.1 +20 x",
            b"HTTP/1.1\t200\tOK",
            b"HTTP/1.1  200 OK",
        )
    },
    **{
        f"header {line!r}": (ok(line), INVALID)
        for line in (b"no colon", b"X : a", b": a", b"X(y): a", b"X\xe4: a", b"X: a\0b", b"X: a\rb")
    },
    # No HTTP
    "nothing": (b"", UNREACHABLE),
    "TLS": (b"\x16\x03\x01\x02\x00" * 10, INVALID),
    "HTML": (b"<html>hello</html>\r\n\r\n", INVALID),
    "SMTP": (b"220 mail ready\r\n", INVALID),
    "HTTP/2": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\0" * 18, INVALID),
    "a byte order mark": (b"\xef\xbb\xbf" + ok(), INVALID),
}

#: What differs, and stays: raw response, with requests, with aiohttp. docs/reliability.md names each.
DIFFERENCES: dict[str, tuple[bytes, Any, Any]] = {
    "bytes after the body": (ok() + b"more", BODY, INVALID),
    "chunk extension of 70,000 bytes": (chunked(b"9;" + b"a" * 70_000 + b"\r\n%b\r\n0\r\n\r\n" % BODY), INVALID, BODY),
    "space after the name Content-Length": (head(b"Content-Length : 9") + BODY, INVALID, BODY),
}
