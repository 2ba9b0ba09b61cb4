"""
``make fuzz``: feed the parser of responses and both transports with what no hub should send, for some minutes.

Invariants tested: whatever status code, headers and body come back, either an evaluation of the id that was asked for
comes out, whose values are strict JSON, or one of this project's own errors, which does not hold the key. Whatever
bytes come over a socket, each transport gives a body or one of those errors; and where both give one, it is the same.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from datetime import datetime, timezone

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from airflow_provider_oxen.calls import build_get_evaluation, build_get_user
from airflow_provider_oxen.config import parse_config
from airflow_provider_oxen.evaluations import EvaluationRef
from airflow_provider_oxen.exceptions import OxenRequestError, OxenTransientError, OxenUnknownEffectError
from airflow_provider_oxen.protocol import Response, parse_response
from airflow_provider_oxen.testing.scenario import Scenario
from tests.support.raw_cases import CASES, DIFFERENCES
from tests.support.raw_responses import TRANSPORTS, RawServer, make_config, outcome

KEY = "sk-fuzz-4711"
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
CONFIG = parse_config("oxen_default", host="hub.example", password=KEY)
GET = build_get_evaluation(EvaluationRef("ox", "r", "x"))
#: The same as a call that must not be repeated: its errors are others.
ONCE = replace(GET, method="POST", body={}, repeatable=False)
DOCUMENT = Scenario(seconds=0).document("x", NOW, NOW)
GOOD = json.dumps({"status": "success", "evaluation": DOCUMENT}).encode()

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from([KEY, "completed", "x", "2026-01-01T00:00:00", "9999-12-31T23:59:59-23:00", "\ud800", "\0"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=10,
)
altered = st.dictionaries(st.sampled_from(sorted(DOCUMENT)), values, max_size=6).map(lambda fields: DOCUMENT | fields)
envelopes = st.fixed_dictionaries(
    {},
    optional={
        "status": values,
        "evaluation": altered | values,
        "error": values,
        "status_message": values,
        "status_description": values,
        "user": values,
    },
)
mutated = st.builds(
    lambda cut, length, patch: GOOD[:cut] + patch + GOOD[cut + length :],
    st.integers(0, len(GOOD)),
    st.integers(0, 40),
    st.binary(max_size=12),
)
bodies = st.one_of(
    st.binary(max_size=400),
    mutated,
    (envelopes | values).map(lambda value: json.dumps(value).encode()),
    st.integers(1, 3_000).map(lambda depth: b"[" * depth),
)
headers = st.dictionaries(
    st.sampled_from(["retry-after", "date", "location", "content-type", "x-oxen-request-id"]),
    st.text(max_size=60) | st.sampled_from([KEY, "http://[", f"https://u:{KEY}@h:99999/{KEY}?{KEY}", "-1", "1e400"]),
)
responses = st.builds(
    Response, st.sampled_from([200] * 6 + [*range(100, 600, 7), 401, 403, 404, 408, 429]), headers, bodies
)


def check(response: Response) -> None:
    """Parse one response as that of each call."""
    for call in (GET, ONCE):
        try:
            evaluation = parse_response(CONFIG, call, response, now=NOW)
        except OxenRequestError as error:
            assert KEY not in f"{error} {error!r}"
            assert str(error).isprintable()
            assert call is ONCE or not isinstance(error, OxenUnknownEffectError)
        else:
            assert evaluation.id.lower() == "x"
            text = json.dumps(evaluation.to_dict(), allow_nan=False)
            assert "\\u0000" not in text
            assert KEY not in text
    try:
        assert KEY not in parse_response(CONFIG, build_get_user(), response, now=NOW)
    except OxenRequestError as error:
        assert KEY not in f"{error} {error!r}"


#: Raw responses of the tests, with some bytes replaced, put in, taken out or cut off.
raw_responses = st.builds(
    lambda raw, cut, length, patch: raw[: cut % (len(raw) + 1)] + patch + raw[cut % (len(raw) + 1) + length :],
    st.sampled_from([raw for raw, *_ in (*CASES.values(), *DIFFERENCES.values()) if len(raw) < 4_000]),
    st.integers(0, 4_000),
    st.integers(0, 12),
    st.binary(max_size=6)
    | st.sampled_from([b"\r\n", b"\r\n\r\n", b":", b"0\r\n\r\n", b"\0", b" ", b";", b"HTTP/1.1 "]),
)


def check_raw(raw: bytes) -> None:
    """Receive one raw response with both transports."""
    with RawServer(raw) as server:
        config = make_config(server.url, timeout=2)
        found = [outcome(name, config) for name in TRANSPORTS]  # any other exception ends the fuzzing
    bodies = [result for result in found if isinstance(result, bytes)]
    assert len(set(bodies)) < 2, (raw, found)
    if bodies and len(bodies) < len(found):  # one transport is stricter, and may not take that for a refusal
        error = next(result for result in found if not isinstance(result, bytes))
        assert issubclass(error, OxenTransientError), (raw, found)


def main() -> None:
    """Run for the seconds the command line gives, 180 if none."""
    limit = float(sys.argv[1]) if len(sys.argv) > 1 else 180.0
    began, examples = time.monotonic(), 0

    @settings(
        max_examples=2_000,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(responses)
    def fuzz(response: Response) -> None:
        nonlocal examples
        examples += 1
        check(response)

    received = 0

    @settings(
        max_examples=100,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(raw_responses)
    def fuzz_raw(raw: bytes) -> None:
        nonlocal received
        received += 1
        check_raw(raw)

    while time.monotonic() - began < limit:
        fuzz_raw()
        fuzz()
    print(
        f"{examples:,} responses parsed and {received:,} received by both transports in "
        f"{time.monotonic() - began:.0f} s; none but the project's own errors came out"
    )


if __name__ == "__main__":
    main()
