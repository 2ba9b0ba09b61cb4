"""
Send one call, and hand on the body of its response as it comes.

How this works:

1. A thread of its own reads the response, on a connection of its own, and puts blocks into a queue of a few. So memory
   does not grow with the body, and the thread that waits can be interrupted at any time: by Airflow's
   ``execution_timeout``, by Ctrl-C, or by an error of its own. What is read from then on is thrown away.
2. The headers, and then each block, have to arrive within the connection's ``timeout``. So a trickle ends.
3. The body is asked for as it is, not compressed, so that its bytes can be counted against its length. Without a
   length, it has to come in chunks, which have an end.
4. Any other response is read as that of any call, and raises what ``protocol`` makes of it.
"""

from __future__ import annotations

import mimetypes
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

from airflow_provider_oxen.content import check_size, decode_content
from airflow_provider_oxen.exceptions import OxenInvalidResponseError, OxenUnreachableError
from airflow_provider_oxen.protocol import Call, Response, build_headers, parse_response
from airflow_provider_oxen.transport import read_headers, sync_session
from airflow_provider_oxen.transport_errors import is_of_requests, requests_table, translate

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    import requests

    from airflow_provider_oxen.config import ClientConfig

__all__ = ["BLOCK_BYTES", "Received", "receive"]

#: Bytes of a block, but of the last.
BLOCK_BYTES = 64 * 1024
#: Blocks that may wait to be taken.
_MAX_WAITING = 16
#: How much longer the reading thread waits than the one that takes the blocks, in seconds: the error is that one's.
_LATER_SECONDS = 1.0
#: The hub's header of a file. A page from something in front of the hub has none.
_REVISION = "oxen-revision-id"

T = TypeVar("T")


class Received(NamedTuple):
    """
    A response whose body is still to come.

    :param length: bytes of the body; None where the response does not say.
    :param revision: the commit that the hub read; None where it does not say.
    :param blocks: the body. Raises an ``OxenTransientError`` where it does not come in time, or not whole.
    """

    length: int | None
    revision: str | None
    blocks: Iterator[bytes]


def receive(config: ClientConfig, call: Call[NoReturn], consume: Callable[[Received], T]) -> T:
    """
    Send a call, and hand its response to a function.

    :param consume: takes the body, on this thread. What it raises is raised here, and nothing is read any more.
    :return: what ``consume`` returns.
    :raises OxenRequestError: no usable response came; where it was another than 200, ``consume`` was not called.
    """
    with _Reader(config, call) as reader:
        status_code, headers = reader.head()
        if status_code != 200 or _is_foreign(call, headers):
            body = bytearray()
            for block in reader.blocks(headers):
                body += block
                check_size(call, len(body))
            content = decode_content(call, status_code, headers.get("content-encoding"), bytes(body))
            response = Response(status_code, headers, content)
            parse_response(config, call, response, now=datetime.now(tz=timezone.utc))
        _check_body(call, headers)
        return consume(Received(_length(headers), headers.get(_REVISION), reader.blocks(headers)))


class _Reader:
    """Reads one response on a thread of its own."""

    def __init__(self, config: ClientConfig, call: Call[Any]) -> None:
        self._config = config
        self._call = call
        self._room = threading.Semaphore(_MAX_WAITING)
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._was_left = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._run, name="oxen-download", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._was_left = True
        self._room.release()

    def head(self) -> tuple[int, Mapping[str, str]]:
        """Wait for status code and headers."""
        status_code, headers = self._take()
        return status_code, headers

    def blocks(self, headers: Mapping[str, str]) -> Iterator[bytes]:
        """Wait for each block of the body, and check at the end that it is whole."""
        length, received = _length(headers), 0
        while block := self._take(f"{BLOCK_BYTES // 1024} KiB more"):
            received += len(block)
            yield block
        if length is not None and received != length:
            raise OxenInvalidResponseError(
                f"the response was cut off: {received:,} of {length:,} bytes came", request=str(self._call)
            )

    def _take(self, awaited: str | None = None) -> Any:
        try:
            item = self._items.get(timeout=self._config.timeout_seconds)
        except queue.Empty:
            raise self._too_slow(awaited) from None
        self._room.release()
        if isinstance(item, BaseException):
            raise self._translate(item) from None
        return item

    def _too_slow(self, awaited: str | None) -> BaseException:
        if awaited is None:
            return self._translate(TimeoutError())
        return OxenUnreachableError(
            f"the response came too slowly: not {awaited} within {self._config.timeout_seconds:g} s "
            f"({self._config.base_url}); the connection's extra field 'timeout' sets this limit",
            request=str(self._call),
        )

    def _translate(self, error: BaseException) -> BaseException:
        if is_of_requests(error):
            return translate(error, requests_table(), self._call, self._config, None)
        return error

    def _run(self) -> None:
        try:
            with sync_session(self._config) as session, self._send(session) as response:
                headers = read_headers(self._call, response.raw.headers)
                self._put((response.status_code, headers))
                while not self._was_left and (block := self._read_block(response)):
                    self._put(block)
            self._put(b"")
        except BaseException as error:  # noqa: BLE001  # raised on the thread that waits
            self._put(error)

    def _send(self, session: requests.Session) -> requests.Response:
        return session.request(
            self._call.method,
            self._config.base_url + self._call.path,
            headers=build_headers(self._config) | {"Accept": "*/*", "Accept-Encoding": "identity"},
            timeout=self._config.timeout_seconds + _LATER_SECONDS,
            allow_redirects=False,
            stream=True,
        )

    def _read_block(self, response: requests.Response) -> bytes:
        block = bytearray()
        # read1 returns what has come: a thread that is no longer waited for notices it between two drops.
        while not self._was_left and len(block) < BLOCK_BYTES:
            drop = response.raw.read1(BLOCK_BYTES - len(block), decode_content=False)
            if not drop:
                break
            block += drop
        return bytes(block)

    def _put(self, item: object) -> None:
        if self._was_left:  # no more room is made: leaving did so once, for what was waiting then
            return
        self._room.acquire()
        if not self._was_left:
            self._items.put(item)


def _length(headers: Mapping[str, str]) -> int | None:
    """Read the length. http.client has refused one that is no number; in chunks, it does not count."""
    length = headers.get("content-length")
    return None if length is None or "transfer-encoding" in headers else int(length)


def _is_foreign(call: Call[Any], headers: Mapping[str, str]) -> bool:
    """Say whether a page or an error came instead of the file: HTML or JSON that the path does not promise."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_page = kind in ("text/html", "application/json") and kind != mimetypes.guess_type(call.path)[0]
    return is_page and _REVISION not in headers


def _check_body(call: Call[Any], headers: Mapping[str, str]) -> None:
    problem = None
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        problem = "the response is compressed, which was not asked for"
    elif "content-length" not in headers and "transfer-encoding" not in headers:
        problem = "the response does not say how long it is, so that it could be cut off unnoticed"
    if problem is not None:
        raise OxenInvalidResponseError(problem, request=str(call))
