"""
The table of faults, row by row: what each does to a wait in the triggerer, over real sockets.

``docs/reliability.md`` has the same table; each of its rows names the test that shows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import ssl
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_oxen import pause as pause_module
from airflow_provider_oxen import pool as pool_module
from airflow_provider_oxen import wait as wait_module
from airflow_provider_oxen.hooks import oxen as hook_module
from airflow_provider_oxen.testing import Alter, Delay, Disconnect, Fault, LocalHub, Respond, Trickle
from airflow_provider_oxen.triggers import oxen as trigger_module
from tests.support.triggers import make_trigger, run_trigger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HTML = (b"<html>Bad gateway</html>", {"Content-Type": "text/html"})


class LongText(str):
    """A text whose repr is short, so that Hypothesis can print the faults of a test that fails."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"LongText({self[:1]!r} * {len(self)})"


TOO_LONG = LongText("x" * 4 * 2**20)


#: Faults that pass: what happens, to how many requests, and the class of error that the log names.
TRANSIENT = {
    "closed before the response": (Disconnect("before"), 2, "OxenUnreachableError"),  # aiohttp itself sends it twice
    "reset before the response": (Disconnect("before", reset=True), 2, "OxenUnreachableError"),
    "closed mid-response": (Disconnect("middle"), 1, "OxenInvalidResponseError"),
    "reset mid-response": (Disconnect("middle", reset=True), 1, "OxenInvalidResponseError"),
    "timeout": (Delay(5), 1, "OxenUnreachableError"),
    "a response that trickles": (Trickle(0.05), 1, "OxenUnreachableError"),
    "500": (Respond(500), 1, "OxenServerError"),
    "503 with HTML from a proxy": (Respond(503, *HTML), 1, "OxenServerError"),
    "408": (Respond(408), 1, "OxenServerError"),
    "200 with HTML": (Respond(200, *HTML), 1, "OxenInvalidResponseError"),
    "truncated JSON": (Respond(200, b'{"status": "success", "evaluation": {"id": "'), 1, "OxenInvalidResponseError"),
    "200 with status error": (Respond(200, b'{"status": "error", "status_message": "oops"}'), 1, "OxenServerError"),
    "another evaluation": (Alter(evaluation={"id": "another", "status": "completed"}), 1, "OxenInvalidResponseError"),
    "a response larger than 4 MiB": (Alter(envelope={"more": TOO_LONG}), 1, "OxenInvalidResponseError"),
}


@pytest.mark.parametrize("fault", TRANSIENT)
async def test_fault_that_passes_does_not_end_a_wait(
    oxen_hub: LocalHub, set_connection: Callable[..., None], logged: Callable[[], str], fault: str
) -> None:
    """The wait goes on, with one line of log that names the failure, and ends as it would have without it."""
    set_connection(extra={"timeout": 0.4})
    what, count, error = TRANSIENT[fault]
    evaluation_id = oxen_hub.add_evaluation(seconds=0, faults=(Fault(what, count=count),))

    event = await run_trigger(make_trigger(evaluation_id))

    assert event["outcome"] == "completed"
    text = logged()
    assert text.count(", next in ") == 1
    assert f"; poll 1 failed ({error}), next in " in text


@pytest.mark.parametrize("fault", TRANSIENT)
async def test_fault_that_lasts_ends_a_wait_so_that_it_may_be_retried(
    oxen_hub: LocalHub, set_connection: Callable[..., None], fault: str
) -> None:
    """Beyond ``retry_window`` the wait ends as unreachable, with the last cause, after more than one request."""
    set_connection(extra={"timeout": 0.1})
    evaluation_id = oxen_hub.add_evaluation(seconds=0, faults=(Fault(TRANSIENT[fault][0]),))

    event = await run_trigger(make_trigger(evaluation_id, retry_window=0.5))

    assert event["outcome"] == "unreachable"
    assert "/evaluations/" in event["error"]
    assert oxen_hub.requests_for(evaluation_id) > 1


async def test_hub_that_is_down_is_waited_for(oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are refused while a hub is down; once it is up again at its address, the wait goes on."""
    with LocalHub() as first:
        monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", first.connection_json)
        port = first.port
        task = asyncio.create_task(run_trigger(make_trigger(first.add_evaluation("x", seconds=60))))
        while not first.requests:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    with LocalHub(port=port) as second:
        second.add_evaluation("x", seconds=0)
        event = await task

    assert event["outcome"] == "completed"
    assert oxen_hub.requests == []


async def test_name_that_does_not_resolve_is_transient(
    oxen_hub: LocalHub, set_connection: Callable[..., None], logged: Callable[[], str]
) -> None:
    """DNS that fails is waited out, within ``retry_window``."""
    set_connection(host="https://no-such-hub.invalid")

    event = await run_trigger(make_trigger("any", retry_window=0.3))

    assert event["outcome"] == "unreachable"
    assert "; poll 1 failed (OxenUnreachableError), next in " in logged()
    assert oxen_hub.requests == []


async def test_idle_connection_that_was_closed_costs_nothing(oxen_hub: LocalHub, logged: Callable[[], str]) -> None:
    """A pooled connection that the hub closed between two polls is replaced, and no failure is logged."""
    closed = Fault(Disconnect("after"))
    evaluation_id = oxen_hub.add_evaluation(seconds=1, faults=(closed,))

    event = await run_trigger(make_trigger(evaluation_id, poke_interval=0.2, max_wait=0.2))

    assert event["outcome"] == "completed"
    assert oxen_hub.connections_opened >= 3
    assert "failed" not in logged()


@pytest.mark.parametrize("retry_after", ["seconds", "date", "none"])
async def test_rate_limit_pauses_all_waits_that_share(
    oxen_hub: LocalHub, retry_after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a 429 no request is sent before its time; then the waits come back one after the other."""
    pause = 2.0
    headers = {
        "seconds": {"Retry-After": "2"},
        "date": {"Retry-After": format_datetime(datetime.now(tz=timezone.utc) + timedelta(seconds=3), usegmt=True)},
        "none": {},
    }[retry_after]
    monkeypatch.setattr(pause_module, "FIRST_PAUSE_SECONDS", pause)
    ids = [oxen_hub.add_evaluation(seconds=0) for _ in range(30)]
    limited = oxen_hub.add_evaluation(seconds=0, faults=(Fault(Respond(429, headers=headers), count=1),))

    first = asyncio.create_task(run_trigger(make_trigger(limited, poke_interval=0.5, max_wait=1)))
    while not oxen_hub.requests:
        await asyncio.sleep(0.005)
    limited_at = oxen_hub.requests[0].at
    await asyncio.sleep(0.05)
    events = await asyncio.gather(
        first, *(run_trigger(make_trigger(name, poke_interval=0.5, max_wait=1)) for name in ids)
    )

    assert {event["outcome"] for event in events} == {"completed"}
    came_back = sorted(request.at - limited_at for request in oxen_hub.requests[1:])
    assert len(came_back) == 31
    assert came_back[0] > pause - 0.3  # the date has whole seconds
    assert came_back[-1] - came_back[0] > 0.2
    assert max(later - earlier for earlier, later in itertools.pairwise(came_back)) < 1


async def test_rotated_key_is_taken_up(oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is refused after it worked is looked up again; where it changed, the wait goes on."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0.8)
    task = asyncio.create_task(run_trigger(make_trigger(evaluation_id)))
    while oxen_hub.requests_for(evaluation_id) < 2:
        await asyncio.sleep(0.01)
    monkeypatch.setenv(
        "AIRFLOW_CONN_OXEN_DEFAULT", json.dumps({"conn_type": "oxen", "host": oxen_hub.url, "password": "new-key"})
    )
    oxen_hub.api_key = "new-key"

    assert (await task)["outcome"] == "completed"


async def test_key_that_is_refused_and_unchanged_ends_the_wait(oxen_hub: LocalHub) -> None:
    """A key that is refused after it worked, and is still the connection's, ends the wait at once."""
    evaluation_id = oxen_hub.add_evaluation(seconds=60)
    task = asyncio.create_task(run_trigger(make_trigger(evaluation_id)))
    while oxen_hub.requests_for(evaluation_id) < 2:
        await asyncio.sleep(0.01)
    oxen_hub.api_key = "revoked"

    assert (await task)["outcome"] == "refused"


@pytest.mark.parametrize("first", [1, 3])
@pytest.mark.parametrize(
    ("status_code", "named"),
    [(400, "repo_name"), (401, "password"), (402, "credits"), (403, "password"), (404, "evaluation_id")],
)
async def test_refusal_ends_the_wait_at_once(
    oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch, status_code: int, named: str, first: int
) -> None:
    """A refusal, at first or after it worked, ends the wait with that response and names what to check."""
    monkeypatch.setattr(wait_module, "NOT_FOUND_SECONDS", 0.0)
    evaluation_id = oxen_hub.add_evaluation(seconds=60, faults=(Fault(Respond(status_code), first=first),))

    event = await run_trigger(make_trigger(evaluation_id))

    assert event["outcome"] == "refused"
    assert str(status_code) in event["error"]
    assert named in event["error"]
    assert oxen_hub.requests_for(evaluation_id) == first


async def test_redirect_to_plain_http_is_not_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A redirect from https to http ends the wait; the key goes nowhere, and the error says where it pointed."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    with LocalHub(tls=context) as hub, LocalHub() as plain:
        connection = json.loads(hub.connection_json) | {"extra": {"verify": str(tmp_path / "ca.pem")}}
        monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", json.dumps(connection))
        redirect = Respond(301, headers={"Location": f"{plain.url}/api/elsewhere"})
        event = await run_trigger(make_trigger(hub.add_evaluation(faults=(Fault(redirect),))))

        assert event["outcome"] == "refused"
        assert f"{plain.url}/api/elsewhere" in event["error"]
        assert plain.requests == []


@pytest.mark.parametrize("begun_by", ["a worker", "the triggerer"])
@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
async def test_setting_the_clock_moves_no_deadline(
    oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch, jump: float, begun_by: str
) -> None:
    """The machine's clock may jump while a wait runs: it ends neither early nor late."""
    limit = {"deadline": time.time() + 1} if begun_by == "a worker" else {"timeout": 1}
    evaluation_id = oxen_hub.add_evaluation(seconds=60)
    began = time.monotonic()
    task = asyncio.create_task(run_trigger(make_trigger(evaluation_id, **limit)))
    while oxen_hub.requests_for(evaluation_id) < 2:
        await asyncio.sleep(0.01)
    really = time.time
    monkeypatch.setattr(trigger_module.time, "time", lambda: really() + jump)

    assert (await task)["outcome"] == "timeout"
    assert 0.9 < time.monotonic() - began < 5


@pytest.mark.parametrize("of", ["verify", "the machine"])
async def test_ca_file_that_is_replaced_is_taken_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, of: str) -> None:
    """The hub gets a certificate of another CA, and the file that ``verify`` or the machine names is replaced."""
    monkeypatch.setattr(pool_module, "MAX_LOOKUP_AGE_SECONDS", 0.2)
    path = tmp_path / "ca.pem"

    def renew() -> ssl.SSLContext:
        ca, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("127.0.0.1").configure_cert(context)
        ca.cert_pem.write_to_path(str(path))
        return context

    with LocalHub(tls=renew()) as hub:
        extra = {"verify": str(path)} if of == "verify" else {}
        if of != "verify":
            monkeypatch.setenv("SSL_CERT_FILE", str(path))
        monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", json.dumps(json.loads(hub.connection_json) | {"extra": extra}))
        evaluation_id, port = hub.add_evaluation(seconds=60), hub.port
        task = asyncio.create_task(run_trigger(make_trigger(evaluation_id)))
        while hub.requests_for(evaluation_id) < 2:
            await asyncio.sleep(0.01)
    with LocalHub(port=port, tls=renew()) as hub:
        hub.add_evaluation(evaluation_id, seconds=0)

        assert (await task)["outcome"] == "completed"


async def test_connection_lookup_that_fails_for_a_while_is_waited_out(
    oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], str]
) -> None:
    """A look-up of the connection that fails does not end a wait, and the text of its error is not logged."""
    failures = iter([RuntimeError("password=hunter2"), RuntimeError("password=hunter2")])
    look_up = hook_module.get_async_connection

    async def fail_first(conn_id: str, **named: Any) -> Any:
        for failure in failures:
            raise failure
        return await look_up(conn_id, **named)

    monkeypatch.setattr(hook_module, "get_async_connection", fail_first)

    event = await run_trigger(make_trigger(oxen_hub.add_evaluation(seconds=0)))

    assert event["outcome"] == "completed"
    text = logged()
    assert text.count("could not look up connection 'oxen_default' (RuntimeError)") == 2
    assert "hunter2" not in text


async def test_connection_that_is_missing_for_a_while_is_waited_for(
    oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], str]
) -> None:
    """Airflow says "not defined" where a secrets backend does not respond: such a moment does not end a wait."""
    monkeypatch.delenv("AIRFLOW_CONN_OXEN_DEFAULT")
    task = asyncio.create_task(run_trigger(make_trigger(oxen_hub.add_evaluation(seconds=0))))
    await asyncio.sleep(0.3)
    assert not task.done()
    monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", oxen_hub.connection_json)

    assert (await task)["outcome"] == "completed"
    text = logged()
    assert "; poll 1 failed (OxenConfigError), next in " in text
    assert "connection 'oxen_default', field 'conn_id': there is no such connection" in text


async def test_connection_that_stays_missing_ends_the_wait_so_that_it_may_be_retried(oxen_hub: LocalHub) -> None:
    """A connection that is not found for longer than ``retry_window`` is the last cause, and is named."""
    event = await run_trigger(make_trigger("any", oxen_conn_id="nowhere", retry_window=0.3))

    assert event["outcome"] == "unreachable"
    assert "connection 'nowhere'" in event["error"]
    assert oxen_hub.requests == []


def _respond_with(document: Any) -> Respond:
    return Respond(200, json.dumps(document).encode())


def _alter(fields: dict[str, Any]) -> Alter:
    return Alter(evaluation=fields)


#: Anything that a hub, or something in front of it, may do with one request. What makes them has a name: Hypothesis
#: parses the source of a lambda at each example, and before CPython 3.11.8 ``ast.parse`` fails (SystemError) if a
#: traceback is formatted meanwhile.
responses = st.one_of(
    st.sampled_from([what for what, _, _ in TRANSIENT.values() if not isinstance(what, (Delay, Trickle))]),
    st.builds(Respond, st.sampled_from([200, 201, 204, 404, 418, 500]), st.binary(max_size=200)),
    st.builds(
        _respond_with,
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["x", "completed"]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["evaluation", "status", "id", "progress", "error"]), inner, max_size=4
                )
            ),
            max_leaves=12,
        ),
    ),
    st.builds(
        _alter,
        st.dictionaries(
            st.sampled_from(["id", "status", "progress", "started_at", "error_message", "model"]),
            st.none() | st.integers() | st.text(max_size=8) | st.sampled_from(["errored", "completed"]),
        ),
    ),
)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.lists(responses, max_size=6), st.sampled_from(["running", "completed", "errored", "cancelled"]))
def test_gate_opens_only_on_a_completion_of_that_very_evaluation(
    oxen_hub: LocalHub, faults: list[Any], end: str
) -> None:
    """
    Whatever the hub sends, valid, faulty or hostile, one event comes out; it says completed only if the last response
    was a well-formed completion of the evaluation that was asked for.
    """
    wanted = tuple(Fault(what, first=number, count=1) for number, what in enumerate(faults, start=1))
    seconds, ends = (3600, "completed") if end == "running" else (0, end)
    oxen_hub.add_evaluation("x", end=ends, seconds=seconds, faults=wanted)
    trigger = make_trigger("x", poke_interval=0.001, max_wait=0.002, deadline=time.time() + 0.25, retry_window=None)

    event = asyncio.run(run_trigger(trigger))

    last = oxen_hub.requests_for("x")
    response = faults[last - 1] if last <= len(faults) else None
    if event["outcome"] == "completed":
        assert event["evaluation"]["id"].lower() == "x"
        assert (response is None and end == "completed") or _completes(response, "x", end)
    elif response is None and end != "running":
        assert event["outcome"] == end


def _completes(what: Any, evaluation_id: str, end: str) -> bool:
    """Check whether an altered response still is a completion of the evaluation."""
    if isinstance(what, Respond):
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            document = json.loads(what.body)["evaluation"]
            return what.status_code == 200 and (document["id"].lower(), document["status"]) == (
                evaluation_id,
                "completed",
            )
    if isinstance(what, Alter):
        fields = {"id": evaluation_id, "status": end, **what.evaluation}
        return (fields["id"].lower(), fields["status"]) == (evaluation_id, "completed")
    return False
