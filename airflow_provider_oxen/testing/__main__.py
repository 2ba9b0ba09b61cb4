"""Run the local hub from a shell: ``python -m airflow_provider_oxen.testing``."""

from __future__ import annotations

import argparse
import math
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack

from airflow_provider_oxen.testing.hub import LocalHub

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a hub until the process gets SIGINT or SIGTERM.

    :param arguments: arguments of the command; None: those of this process.
    :return: exit code.
    """
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_oxen.testing",
        description="Run a local Oxen hub, to try and to test DAGs. An id such as completed-20s, errored-5s or "
        "cancelled-10s-again is an evaluation that ends this way, so many seconds after the first request for it. As "
        "the model of a request that starts an evaluation, it says the same of that evaluation. The hub has a page for "
        "each repository, such as /local-hub/ox/r, and tasks link to the pages of their evaluations.",
    )
    parser.add_argument("--port", type=int, default=0, help="TCP port on 127.0.0.1 (default: any free one)")
    parser.add_argument(
        "--api-key", default="local-hub-key", help="API key that requests must have (default: %(default)s)"
    )
    parser.add_argument(
        "--evaluation",
        action="append",
        type=_parse_evaluation,
        default=[],
        metavar="END[:SECONDS]",
        help="add an evaluation with a new id, which is printed; END is completed, errored or cancelled, SECONDS the "
        "time from the first request to the end (default: 10). May be repeated",
    )
    options = parser.parse_args(arguments)

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        try:
            hub = stack.enter_context(LocalHub(port=options.port, api_key=options.api_key, pages=True))
        except (OSError, OverflowError) as error:  # OverflowError: no port has such a number
            parser.error(f"port {options.port} cannot be used ({getattr(error, 'strerror', error)})")
        print(f"Oxen hub at {hub.url}")
        print(f"AIRFLOW_CONN_OXEN_DEFAULT={shlex.quote(hub.connection_json)}")
        for end, seconds in options.evaluation:
            print(f"{end} after {seconds:g} s: {hub.add_evaluation(end=end, seconds=seconds)}")
        sys.stdout.flush()
        stop.wait()
    return 0


def _parse_evaluation(text: str) -> tuple[str, float]:
    end, _, seconds = text.partition(":")
    if end not in ("completed", "errored", "cancelled"):
        raise argparse.ArgumentTypeError(f"{end!r} is not one of completed, errored, cancelled")
    try:
        number = float(seconds or 10)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{seconds!r} is not a number of seconds")
    return end, number


if __name__ == "__main__":
    sys.exit(main())
