"""Downloads over real sockets: whole or not at all, whatever happens on the way."""

from __future__ import annotations

import csv
import errno
import gzip
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import namedtuple
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_oxen import downloads, retries, streaming
from airflow_provider_oxen.airflow_names import AirflowTaskTimeout
from airflow_provider_oxen.evaluations import Evaluation
from airflow_provider_oxen.exceptions import (
    OxenAuthenticationError,
    OxenBadRequestError,
    OxenConfigError,
    OxenFileTooLargeError,
    OxenInvalidResponseError,
    OxenNoResultsError,
    OxenNotFoundError,
    OxenRateLimitError,
    OxenServerError,
    OxenUnreachableError,
)
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.testing import (
    Delay,
    Disconnect,
    Endless,
    Fault,
    LocalHub,
    Meanwhile,
    Respond,
    Trickle,
    WrongLength,
)
from tests.support.raw_responses import KEY, RawServer
from tests.support.sockets import serve_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: More than a block, and no whole number of blocks.
CONTENT = os.urandom(200_001)
PATH = "data/intents.parquet"
HTML = (b"<html>Log in</html>", {"Content-Type": "text/html"})
BUSY = Respond(429, headers={"Retry-After": "5"})
NAMES = ("ox", "r", "main", PATH)


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the pauses between two tries take no time, and collect them."""
    naps: list[float] = []
    monkeypatch.setattr(retries, "time", SimpleNamespace(monotonic=lambda: sum(naps), sleep=naps.append))
    return naps


@pytest.fixture(autouse=True)
def _no_other_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAW", "")


@pytest.fixture
def impatient(set_connection: Callable[..., None]) -> None:
    """Let the connection have a timeout of a second."""
    set_connection(extra={"timeout": 1})


@pytest.fixture
def to(tmp_path: Path) -> Path:
    """Where to download to: a file that is there already."""
    file = tmp_path / "intents.parquet"
    file.write_bytes(b"old")
    return file


def _add(hub: LocalHub, content: bytes = CONTENT, **named: Any) -> str:
    return hub.add_file("ox", "r", PATH, content, **named)


def _evaluation(**fields: Any) -> Evaluation:
    document = {"id": "e-1", "status": "completed", "namespace": "ox", "repo_name": "r", "target_path": PATH}
    return Evaluation.from_dict({**document, "target_branch": "main", "started_at": "2000-01-01T00:00:00", **fields})


#: After the start of each evaluation here.
LATER = "2026-11-01T10:00:00Z"


def _meta(**entry: Any) -> Respond:
    return Respond(200, json.dumps({"status": "success", "entry": entry}).encode())


def _requests(hub: LocalHub, endpoint: str = "file") -> list[str]:
    return [request.path for request in hub.requests if f"/{endpoint}/" in request.path]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_is_downloaded(oxen_hub: LocalHub, to: Path) -> None:
    """A file has the hub's bytes, replaces what was there, and nothing else is left in the directory."""
    _add(oxen_hub)

    assert OxenHook().download_file("ox\n", "r", "main", PATH, str(to)) == to

    assert to.read_bytes() == CONTENT
    assert _names(to.parent) == [to.name]
    assert _requests(oxen_hub) == [f"/api/repos/ox/r/file/main/{PATH}"]
    assert oxen_hub.requests[-1].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("content", [b"", b"a", CONTENT[: 64 * 1024]])
def test_file_of_any_size_is_downloaded(oxen_hub: LocalHub, to: Path, content: bytes) -> None:
    """An empty file is one, too, and so is one of a single block."""
    _add(oxen_hub, content)

    assert OxenHook().download_file(*NAMES, to).read_bytes() == content


def test_file_has_the_permissions_of_a_new_file(oxen_hub: LocalHub, tmp_path: Path) -> None:
    """Who may read the file is what the process's umask says, as for any file."""
    _add(oxen_hub)
    (tmp_path / "other").touch()

    file = OxenHook().download_file(*NAMES, tmp_path / "new")

    assert file.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_metadata_of_a_file(oxen_hub: LocalHub) -> None:
    """The hub's size, commit and rows of a file are returned."""
    commit = oxen_hub.add_file("ox", "r", "a.csv", b"id\n1\n2\n")

    meta = OxenHook().get_file_meta("ox", "r", "main", "a.csv")

    assert (meta.size, meta.latest_commit, meta.rows) == (7, commit, 2)


#: What passes: the fault, and the error that the log names.
PASSING = {
    "closed before the response": (Disconnect("before"), "no connection to the hub"),
    "reset before the response": (Disconnect("before", reset=True), "no connection to the hub"),
    "cut off": (Disconnect("middle"), "cut off"),
    "reset": (Disconnect("middle", reset=True), "the response was cut off|no connection to the hub"),
    "longer than its length": (WrongLength(-5), "200,001"),
    "shorter than its length": (WrongLength(5), "200,006|cut off"),
    "busy": (BUSY, "429"),
    "500": (Respond(500), "500"),
    "503 with HTML": (Respond(503, *HTML), "503"),
    "HTML": (Respond(200, *HTML), "not JSON"),
    "an error inside a 200": (
        Respond(200, b'{"status": "error"}', {"Content-Type": "application/json"}), "status is 'error'"
    ),
    "404 with HTML": (Respond(404, *HTML), "not from the hub"),
}  # fmt: skip
#: What is too slow: the fault, and the problem that the log names.
SLOW = {"no response": (Delay(5), "within 1 s"), "a trickle": (Trickle(0.05), "too slowly")}


@pytest.mark.parametrize("fault", PASSING)
def test_results_come_whole_after_a_fault_that_passes(
    oxen_hub: LocalHub, to: Path, naps: list[float], logged: Callable[[], str], fault: str
) -> None:
    """What did not come whole is begun again: the file is whole, and the log says why it took two tries."""
    effect, problem = PASSING[fault]

    _check_passing(oxen_hub, to, effect)

    assert len(naps) == 1
    text = logged()
    assert f"Could not download {PATH} of ox/r at " in text
    assert any(each in text for each in problem.split("|"))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", SLOW)
def test_results_come_whole_after_a_response_that_is_too_slow(
    oxen_hub: LocalHub, to: Path, naps: list[float], logged: Callable[[], str], fault: str
) -> None:
    """What does not come in time is begun again as well."""
    effect, problem = SLOW[fault]

    _check_passing(oxen_hub, to, effect)

    assert naps  # on a busy machine, more is too slow
    assert problem in logged()


def _check_passing(hub: LocalHub, to: Path, effect: Any) -> None:
    commit = _add(hub)
    hub.file_faults = [Fault(effect, count=1)]

    found = OxenHook().download_results(_evaluation(closing_commit={"id": commit}), to.parent)

    assert to.read_bytes() == CONTENT
    assert (found.file, found.path, found.version, found.size) == (to, PATH, commit, len(CONTENT))
    assert _names(to.parent) == [to.name]


#: What does not pass: the fault, and the class of the error.
LASTING = {
    "cut off": (Disconnect("middle"), OxenInvalidResponseError),
    "shorter than its length": (WrongLength(5), OxenInvalidResponseError),
    "longer than its length": (WrongLength(-5), OxenInvalidResponseError),
    "no length, endless": (Endless(), OxenInvalidResponseError),
    "busy": (BUSY, OxenRateLimitError),
    "500": (Respond(500), OxenServerError),
    "HTML": (Respond(200, *HTML), OxenInvalidResponseError),
}


@pytest.mark.parametrize("fault", LASTING)
def test_results_that_never_come_whole_leave_the_file_as_it_was(
    oxen_hub: LocalHub, to: Path, naps: list[float], fault: str
) -> None:
    """After the window, the error is the last one, and what was under the name before is still there."""
    effect, error = LASTING[fault]
    _add(oxen_hub)
    oxen_hub.file_faults = [Fault(effect)]

    with pytest.raises(error):
        OxenHook().download_results(_evaluation(), to.parent, retry_window=timedelta(seconds=9))

    assert len(_requests(oxen_hub)) == len(naps) + 1 >= 2
    assert to.read_bytes() == b"old"
    assert _names(to.parent) == [to.name]


def test_pause_that_the_hub_asks_for_is_kept(oxen_hub: LocalHub, to: Path, naps: list[float]) -> None:
    """A busy hub gets the pause that it asks for, for the file and for what describes it."""
    _add(oxen_hub)
    oxen_hub.file_faults = oxen_hub.meta_faults = [Fault(BUSY, count=2)]

    OxenHook().download_results(_evaluation(), to.parent)

    assert to.read_bytes() == CONTENT
    assert len(naps) == 4
    assert min(naps) >= 5


def test_pause_beyond_the_window_ends_the_download(oxen_hub: LocalHub, to: Path, naps: list[float]) -> None:
    """Where the hub asks for a longer pause than the window allows, there is none."""
    _add(oxen_hub)
    oxen_hub.file_faults = [Fault(BUSY)]

    with pytest.raises(OxenRateLimitError):
        OxenHook().download_file(*NAMES, to, retry_window=4)

    assert naps == []


def test_window_begins_with_the_first_failure(
    oxen_hub: LocalHub, to: Path, naps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download that took long before its connection broke is begun again."""
    _add(oxen_hub)
    late = SimpleNamespace(monotonic=lambda: 10_000 + sum(naps), sleep=naps.append)
    effect = Meanwhile(lambda: monkeypatch.setattr(retries, "time", late))
    oxen_hub.meta_faults = [Fault(effect)]
    oxen_hub.file_faults = [Fault(Disconnect("middle"), count=1)]

    OxenHook().download_results(_evaluation(), to.parent)

    assert to.read_bytes() == CONTENT


@pytest.mark.usefixtures("impatient")
def test_trickle_ends_with_the_timeout(oxen_hub: LocalHub, to: Path) -> None:
    """64 KiB have to come within the connection's timeout, whatever comes of them before."""
    _add(oxen_hub)
    oxen_hub.file_faults = [Fault(Trickle(0.01))]
    began = time.monotonic()

    with pytest.raises(OxenUnreachableError, match=r"not 64 KiB more within 1 s .*extra field 'timeout'"):
        OxenHook().download_file(*NAMES, to, retry_window=0)

    assert 0.9 <= time.monotonic() - began < 10
    assert to.read_bytes() == b"old"


def test_slow_file_whose_blocks_come_in_time_is_downloaded(to: Path) -> None:
    """A file may take longer than the timeout, which is that of a block."""
    blocks = [b"%x\r\n" % 65_536 + b"x" * 65_536 + b"\r\n" for _ in range(6)]

    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for block in blocks:
            time.sleep(0.5)
            connection.sendall(block)
        connection.sendall(b"0\r\n\r\n")
        connection.close()

    with serve_each(serve) as port:
        _connect(port, timeout=2)
        OxenHook("raw").download_file(*NAMES, to, retry_window=0)

    assert to.read_bytes() == b"x" * 6 * 65_536


def test_trickle_between_two_blocks_ends_with_the_timeout(to: Path) -> None:
    """A line between two chunks that comes byte by byte is a trickle, too."""
    is_over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            while not is_over.wait(0.05):
                connection.sendall(b"0")

    with serve_each(serve) as port:
        _connect(port, timeout=1)
        began = time.monotonic()
        with pytest.raises(OxenUnreachableError, match="too slowly"):
            OxenHook("raw").download_file(*NAMES, to, retry_window=0)
        took = time.monotonic() - began
        is_over.set()

    assert took < 10


def _connect(port: int, timeout: float = 10) -> None:
    """Define the connection ``raw``. The fixture ``_no_other_connection`` removes it."""
    fields = {"conn_type": "oxen", "host": f"http://127.0.0.1:{port}", "password": KEY, "extra": {"timeout": timeout}}
    os.environ["AIRFLOW_CONN_RAW"] = json.dumps(fields)


OK = b"HTTP/1.1 200 OK\r\n"
#: Raw responses, and the bytes that the file has or the problem.
RAW: dict[str, tuple[bytes, bytes | str]] = {
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde"),
    "chunks, cut off": (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nd", "cut off"),
    "chunks, cut off between two": (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "cut off"),
    "a length": (OK + b"Content-Length: 3\r\n\r\nabc", b"abc"),
    "a length, and an error's words": (OK + b'Content-Length: 19\r\n\r\n{"status": "error"}', b'{"status": "error"}'),
    "HTML of a commit": (OK + b"Content-Type: text/html\r\nOxen-Revision-Id: c1\r\nContent-Length: 1\r\n\r\na", b"a"),
    "more than its length": (OK + b"Content-Length: 3\r\n\r\nabcdef", b"abc"),
    "less than its length": (OK + b"Content-Length: 3\r\n\r\nab", "cut off"),
    "neither length nor chunks": (OK + b"\r\nabc", "does not say how long it is"),
    "compressed": (
        OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(gzip.compress(b"a")) + gzip.compress(b"a"),
        "compressed, which was not asked for",
    ),
    "an odd status code": (b"HTTP/1.1 206 Some\r\nContent-Length: 3\r\n\r\nabc", "206"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9\r\n", "garbled"),
    "an endless error": (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + b"x" * 2**23, "larger than 4 MiB"),
}


@pytest.mark.parametrize("name", RAW)
def test_raw_responses(to: Path, name: str) -> None:
    """Each raw response is the file or an error; half a file is none."""
    response, expected = RAW[name]
    with RawServer(response) as server:
        _connect(server.port)
        if isinstance(expected, bytes):
            OxenHook("raw").download_file(*NAMES, to, retry_window=0)
            assert to.read_bytes() == expected
        else:
            with pytest.raises(OxenInvalidResponseError, match=expected) as caught:
                OxenHook("raw").download_file(*NAMES, to, retry_window=0)
            assert KEY not in str(caught.value)
            assert to.read_bytes() == b"old"
    assert _names(to.parent) == [to.name]


@pytest.mark.parametrize("path", ["page.html", "a.json"])
def test_file_that_is_a_page_or_json_is_downloaded(oxen_hub: LocalHub, tmp_path: Path, path: str) -> None:
    """HTML and JSON from the hub are files like others."""
    oxen_hub.add_file("ox", "r", path, b'{"status": "error"}')

    file = OxenHook().download_file("ox", "r", "main", path, tmp_path / "file")

    assert file.read_bytes() == b'{"status": "error"}'


def test_file_without_an_end_is_stopped_by_its_limit(oxen_hub: LocalHub, to: Path, naps: list[float]) -> None:
    """What has more bytes than allowed is refused, once, and nothing of it is left."""
    _add(oxen_hub)
    oxen_hub.file_faults = [Fault(Endless())]

    with pytest.raises(OxenFileTooLargeError, match="more than 1,000,000 bytes, the limit max_bytes"):
        OxenHook().download_file(*NAMES, to, max_bytes=1_000_000)

    assert naps == []
    assert _names(to.parent) == [to.name]
    _wait_until(lambda: not _downloads())


def test_thread_that_has_no_room_ends_with_its_download(
    oxen_hub: LocalHub, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download may end while its thread waits for room for the next block. That thread ends, too."""
    is_full = threading.Event()

    class Room(threading.Semaphore):
        def acquire(self, *args: Any, **named: Any) -> bool:
            if super().acquire(blocking=False):
                return True
            is_full.set()
            return super().acquire(*args, **named)

    def begin(*_: Any) -> None:
        assert is_full.wait(15)
        raise KeyboardInterrupt

    monkeypatch.setattr(streaming.threading, "Semaphore", Room)
    monkeypatch.setattr(downloads, "_whole_or_nothing", begin)
    _add(oxen_hub)
    oxen_hub.file_faults = [Fault(Endless())]

    with pytest.raises(KeyboardInterrupt):
        OxenHook().download_file(*NAMES, to)

    _wait_until(lambda: not _downloads())


def _downloads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "oxen-download"]


@pytest.mark.parametrize(("max_bytes", "error"), [(10**9, OxenFileTooLargeError), (None, OSError)])
def test_length_that_is_too_large_is_refused_before_a_byte_comes(
    to: Path, max_bytes: int | None, error: type[Exception]
) -> None:
    """What the response says of its length is enough: neither limit nor disk has room for it."""
    is_over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.recv(65_536)
            connection.sendall(OK + b"Content-Length: 999999999999999\r\n\r\n")
            is_over.wait(20)

    with serve_each(serve) as port:
        _connect(port)
        with pytest.raises(error, match=r"more than 1,000,000,000 bytes|has 999,999,999,999,999 bytes, and only"):
            OxenHook("raw").download_file(*NAMES, to, max_bytes=max_bytes)
        is_over.set()

    assert to.read_bytes() == b"old"


@pytest.mark.parametrize(("max_bytes", "is_refused"), [(len(CONTENT), False), (len(CONTENT) - 1, True), (0, True)])
def test_limit_counts_by_the_byte(oxen_hub: LocalHub, to: Path, max_bytes: int, *, is_refused: bool) -> None:
    """A file of as many bytes as allowed is downloaded, and one of a byte more is refused."""
    _add(oxen_hub)
    try:
        OxenHook().download_file(*NAMES, to, max_bytes=max_bytes)
    except OxenFileTooLargeError:
        assert is_refused
    else:
        assert not is_refused


@pytest.mark.parametrize("max_bytes", [-1, 1.5, "10", True])
def test_limit_that_is_none_is_refused(oxen_hub: LocalHub, to: Path, max_bytes: Any) -> None:
    """A limit that is no number of bytes is refused before anything is sent."""
    with pytest.raises(OxenConfigError, match="argument 'max_bytes'"):
        OxenHook().download_file(*NAMES, to, max_bytes=max_bytes)

    assert oxen_hub.requests == []


def test_redirect_is_refused(oxen_hub: LocalHub, to: Path, naps: list[float]) -> None:
    """A redirect, to a storage for instance, is not followed: the key goes nowhere else."""
    _add(oxen_hub)
    with RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc") as elsewhere:
        headers = {"Location": f"{elsewhere.url}/bucket/file?signature=1"}
        oxen_hub.file_faults = [Fault(Respond(302, headers=headers))]

        with pytest.raises(
            OxenBadRequestError, match=f"a redirect to {elsewhere.url}/bucket/file.*API key is sent.*serve files itself"
        ) as caught:
            OxenHook().download_file(*NAMES, to)

        assert elsewhere.requests == []
    assert "connection's host" not in str(caught.value)
    assert naps == []
    assert to.read_bytes() == b"old"


def test_file_that_is_missing_is_not_found(oxen_hub: LocalHub, to: Path, naps: list[float]) -> None:
    """A path that the hub does not know is an error at once, with what to check."""
    _add(oxen_hub)

    with pytest.raises(OxenNotFoundError, match=r"404: not found\. Check namespace, repo_name, version and path"):
        OxenHook().download_file("ox", "r", "main", "data/other.parquet", to)

    assert naps == []
    assert to.read_bytes() == b"old"


def test_rotated_key_is_looked_up_again(oxen_hub: LocalHub, to: Path, set_connection: Callable[..., None]) -> None:
    """Where the key was rotated between two requests, the file comes with the new one."""
    _add(oxen_hub)

    def rotate() -> None:
        oxen_hub.api_key = "rotated-key"
        set_connection()

    oxen_hub.meta_faults = [Fault(Meanwhile(rotate))]

    OxenHook().download_results(_evaluation(), to.parent)

    assert to.read_bytes() == CONTENT
    assert len(_requests(oxen_hub)) == 2


def test_refused_key_that_did_not_change_is_refused(oxen_hub: LocalHub, to: Path, naps: list[float]) -> None:
    """A key that the hub refuses, and that is still the connection's, is an error after one request."""
    _add(oxen_hub)
    oxen_hub.api_key = "another"

    with pytest.raises(OxenAuthenticationError):
        OxenHook().download_file(*NAMES, to)

    assert len(oxen_hub.requests) == 1
    assert naps == []


def test_disk_that_is_too_small_is_seen_before(
    oxen_hub: LocalHub, to: Path, naps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file for which the disk has too little room is refused before any of it is written."""
    _add(oxen_hub)
    usage = namedtuple("usage", "total used free")  # noqa: PYI024  # as shutil's
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6, 1_000))

    with pytest.raises(OSError, match=r"has 200,001 bytes, and only 1,000 are free") as caught:
        OxenHook().download_file(*NAMES, to)

    assert caught.value.errno == errno.ENOSPC
    assert naps == []
    assert _names(to.parent) == [to.name]


def test_write_that_fails_leaves_nothing(oxen_hub: LocalHub, to: Path, naps: list[float]) -> None:
    """A disk that takes no more ends the download with its own error, which is no fault of the hub's."""
    _add(oxen_hub)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            OxenHook().download_file(*NAMES, to)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert naps == []
    assert to.read_bytes() == b"old"
    assert _names(to.parent) == [to.name]


def test_target_that_is_no_place_for_a_file_is_refused(oxen_hub: LocalHub, tmp_path: Path) -> None:
    """A directory, and a file in none, are refused before anything is asked for."""
    with pytest.raises(IsADirectoryError):
        OxenHook().download_file(*NAMES, tmp_path)
    with pytest.raises(FileNotFoundError):
        OxenHook().download_file(*NAMES, tmp_path / "none" / "file")
    with pytest.raises(FileNotFoundError):
        OxenHook().download_results(_evaluation(), tmp_path / "none")

    assert oxen_hub.requests == []


def test_commit_that_the_evaluation_names_is_read(oxen_hub: LocalHub, to: Path) -> None:
    """The results are those of the closing commit, although the branch has moved on."""
    commit = _add(oxen_hub)
    _add(oxen_hub, b"another")

    found = OxenHook().download_results(_evaluation(closing_commit={"id": commit}), to.parent)

    assert (to.read_bytes(), found.version) == (CONTENT, commit)


def test_commit_that_the_branch_had_is_read(oxen_hub: LocalHub, to: Path) -> None:
    """Where only the branch is known, the commit is named first and then read, although another comes meanwhile."""
    commit = _add(oxen_hub)
    oxen_hub.meta_faults = [Fault(Meanwhile(lambda: _add(oxen_hub, b"another")))]

    found = OxenHook().download_results(_evaluation(), to.parent)

    assert (to.read_bytes(), found.version, found.size) == (CONTENT, commit, len(CONTENT))
    assert _requests(oxen_hub) == [f"/api/repos/ox/r/file/{commit}/{PATH}"]


def test_commit_that_was_read_is_that_of_the_response(oxen_hub: LocalHub, to: Path) -> None:
    """Where nothing names the commit before, it is what the response with the file says."""
    _add(oxen_hub)
    oxen_hub.meta_faults = [Fault(_meta(size=len(CONTENT), latest_commit={"timestamp": LATER}))]
    commit = _add(oxen_hub, b"another")

    found = OxenHook().download_results(_evaluation(), to.parent)

    assert (to.read_bytes(), found.version) == (b"another", commit)


def test_results_of_no_known_commit_are_refused(oxen_hub: LocalHub, to: Path, naps: list[float]) -> None:
    """Where nothing says which commit was read, the file is not taken for the results."""
    oxen_hub.meta_faults = [Fault(_meta(size=3, latest_commit={"timestamp": LATER}))]
    oxen_hub.file_faults = [Fault(Respond(200, b"abc", {"Content-Type": "text/csv"}))]

    with pytest.raises(OxenInvalidResponseError, match="which commit the file is of"):
        OxenHook().download_results(_evaluation(), to.parent, retry_window=0)

    assert naps == []
    assert to.read_bytes() == b"old"


def test_results_are_those_of_an_xcom(oxen_hub: LocalHub, to: Path) -> None:
    """What a sensor returned is enough for a later task."""
    _add(oxen_hub)
    xcom = json.loads(json.dumps(_evaluation().to_dict()))

    assert OxenHook().download_results(xcom, str(to.parent)).file.read_bytes() == CONTENT


def test_evaluation_that_the_hook_got_names_its_repository(oxen_hub: LocalHub) -> None:
    """An evaluation says whose it is, without a word of the hub's about it."""
    evaluation = OxenHook().get_evaluation("ox", "r\n", oxen_hub.add_evaluation(seconds=0))

    assert (evaluation.namespace, evaluation.repo_name) == ("ox", "r")


@pytest.mark.parametrize("fields", [{}, {"closing_commit": None}], ids=["commit named", "branch named"])
def test_answers_of_an_evaluation_are_downloaded(oxen_hub: LocalHub, tmp_path: Path, fields: dict[str, Any]) -> None:
    """What the hub commits when an evaluation completes is what is downloaded."""
    fields = {"target_path": "out/intents.csv", "target_branch": "eval/first", **fields}
    evaluation_id = oxen_hub.add_evaluation(seconds=0, rows=3, answers=lambda row: f"<{row['label']}>", fields=fields)

    found = OxenHook().download_results(OxenHook().get_evaluation("ox", "r", evaluation_id), tmp_path)

    rows = list(csv.DictReader(found.file.read_text().splitlines()))
    assert found.file == tmp_path / "intents.csv"
    assert [row["intent"] for row in rows] == [f"<{row['label']}>" for row in rows]
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"status": "running"}, "has not completed"),
        ({"target_branch": None}, r"was started without auto_commit=True.*\(evaluation e-1 of ox/r\)"),
        ({"target_path": None}, "does not say which file"),
    ],
)
def test_results_that_are_not_there_say_why(oxen_hub: LocalHub, to: Path, fields: dict[str, Any], problem: str) -> None:
    """Without results to read, the error says why, and nothing is asked."""
    with pytest.raises(OxenNoResultsError, match=problem):
        OxenHook().download_results(_evaluation(**fields), to.parent)

    assert oxen_hub.requests == []


def test_results_that_are_gone_say_what_to_check(oxen_hub: LocalHub, to: Path) -> None:
    """Where the branch has no such file, the error says what may be the reason."""
    with pytest.raises(OxenNotFoundError, match=r"auto_commit=True, and that branch 'main' still has its results"):
        OxenHook().download_results(_evaluation(), to.parent)

    assert _requests(oxen_hub) == []


def test_file_of_an_earlier_run_is_not_taken_for_the_results(oxen_hub: LocalHub, to: Path) -> None:
    """A file that is older than the evaluation does not hold its results."""
    _add(oxen_hub)

    with pytest.raises(OxenNoResultsError, match="last changed before the evaluation began"):
        OxenHook().download_results(_evaluation(started_at="2100-01-01T00:00:00"), to.parent)

    assert _requests(oxen_hub) == []


@pytest.mark.parametrize(
    ("fields", "entry", "unknown"),
    [
        ({}, {"size": 3, "latest_commit": {"id": "c1"}}, "when the file was last changed"),
        ({}, {"size": 3, "latest_commit": "c1"}, "when the file was last changed"),
        ({"started_at": None}, {"size": 3, "latest_commit": {"id": "c1", "timestamp": LATER}}, "when it began"),
    ],
    ids=["no time of the commit", "an id alone", "no start"],
)
@pytest.mark.parametrize("commit", [None, {"id": ""}], ids=["no commit", "an empty id"])
def test_file_that_may_be_of_an_earlier_run_is_refused(
    oxen_hub: LocalHub, to: Path, fields: dict[str, Any], entry: dict[str, Any], unknown: str, commit: Any
) -> None:
    """Where no commit is named and a time is missing, the file is not taken for the results."""
    _add(oxen_hub)
    oxen_hub.meta_faults = [Fault(_meta(**entry))]

    with pytest.raises(OxenNoResultsError, match=f"may hold the results of an earlier run: .*{unknown}"):
        OxenHook().download_results(_evaluation(closing_commit=commit, **fields), to.parent)

    assert _requests(oxen_hub) == []
    assert to.read_bytes() == b"old"


def test_evaluation_of_no_known_repository_is_refused(oxen_hub: LocalHub, to: Path) -> None:
    """An evaluation that was stored by an older version does not say where to look."""
    with pytest.raises(OxenConfigError, match="does not name its repository"):
        OxenHook().download_results(_evaluation(repo_name=None), to.parent)

    assert oxen_hub.requests == []


def test_path_that_leads_out_of_the_directory_is_refused(oxen_hub: LocalHub, tmp_path: Path) -> None:
    """A path of the hub's cannot make the file appear elsewhere."""
    with pytest.raises(
        OxenNoResultsError, match=r"the hub says that the results are in 'data/\.\.' at 'main', which is a path"
    ):
        OxenHook().download_results(_evaluation(target_path="data/.."), tmp_path)

    assert oxen_hub.requests == []


@pytest.mark.parametrize(
    ("faults", "first", "second"),
    [
        ([], "0.1 of 0.3 MB (50%), 0.0 MB/s", "0.3 of 0.3 MB (100%), 0.0 MB/s"),
        ([Fault(WrongLength(None))], "0.1 MB, 0.0 MB/s", "0.3 MB, 0.0 MB/s"),
    ],
    ids=["with a length", "in chunks"],
)
def test_log_says_how_far_a_long_download_is(
    oxen_hub: LocalHub,
    to: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], str],
    faults: list[Fault],
    first: str,
    second: str,
) -> None:
    """A line about every ten seconds says how much has come, and how quickly."""
    _add(oxen_hub, b"x" * 4 * 65_536)
    oxen_hub.file_faults = faults
    seconds = iter(range(0, 1_000, 6))
    monkeypatch.setattr(downloads, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))

    OxenHook().download_file(*NAMES, to)

    lines = [line for line in logged().splitlines() if "Download" in line]
    assert [line[line.index("Download") :].split(" [")[0] for line in lines] == [
        f"Downloading {PATH} of ox/r at main: {first}",
        f"Downloading {PATH} of ox/r at main: {second}",
        f"Downloaded {PATH} of ox/r at main: 262,144 bytes in 30 s",
    ]


@pytest.fixture
def half() -> Iterator[None]:
    """Let the connection ``raw`` be that of a hub that sends the first half of a file, and then nothing."""
    is_over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.recv(65_536)
            connection.sendall(OK + b"Content-Length: 524288\r\n\r\n" + b"x" * 262_144)
            is_over.wait(20)

    with serve_each(serve) as port:
        _connect(port, timeout=3)
        yield
        is_over.set()


def _is_half_written(folder: Path) -> bool:
    """Find that part of the half is in the file. The rest may be in Python's buffer, of 128 KiB from 3.14 on."""
    return [path.stat().st_size >= 131_072 for path in folder.glob(".*")] == [True]


def _wait_until(holds: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


@pytest.mark.usefixtures("half")
@pytest.mark.parametrize("error", [KeyboardInterrupt, AirflowTaskTimeout])
def test_interruption_leaves_nothing(to: Path, error: type[BaseException]) -> None:
    """Ctrl-C and ``execution_timeout`` end a download at once, and nothing of it is left."""

    def interrupt() -> None:
        _wait_until(lambda: _is_half_written(to.parent))
        interrupted_at.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGUSR1)  # not the alarm signal, which ends tests that take too long

    def stop(*_: object) -> None:
        raise error

    interrupted_at: list[float] = []
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(error):
            OxenHook("raw").download_file(*NAMES, to)
        assert time.monotonic() - interrupted_at[0] < 1
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)

    assert to.read_bytes() == b"old"
    assert _names(to.parent) == [to.name]
    _wait_until(lambda: not _downloads())


@pytest.mark.usefixtures("half")
def test_process_that_is_killed_leaves_no_half_file(to: Path) -> None:
    """After a kill, what was under the name is still there, whole."""
    program = (
        "import sys; from airflow_provider_oxen.hooks.oxen import OxenHook;"
        f"OxenHook('raw').download_file('ox', 'r', 'main', {PATH!r}, sys.argv[1])"
    )
    process = subprocess.Popen([sys.executable, "-c", program, to])
    try:
        _wait_until(lambda: _is_half_written(to.parent))
    finally:
        process.kill()
        process.wait()

    assert to.read_bytes() == b"old"


def test_memory_does_not_grow_with_the_file(oxen_hub: LocalHub, tmp_path: Path) -> None:
    """A file of 64 MB is downloaded within a few megabytes of memory."""
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(64 * 2**20)
    oxen_hub.add_file("ox", "r", PATH, source)
    OxenHook().download_file("ox", "r", "main", PATH, tmp_path / "warm-up")  # imports what it needs
    tracemalloc.start()
    try:
        OxenHook().download_file("ox", "r", "main", PATH, tmp_path / "file")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (tmp_path / "file").stat().st_size == 64 * 2**20
    assert peak < 8 * 2**20
