"""
``make demo``: run all example DAGs in a real Airflow, with an evaluation for each way to end.

The worker's process of one task that starts an evaluation is killed on the way, and the hub counts how many evaluations
were started all the same. Two gates judge the answers: the evaluation completes, but 84 % of them are right where 95 %
are needed. A mail server on this machine gets the mail of the example that sends one.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from rich.console import Console

from airflow_provider_oxen.testing import LocalHub
from demo.airflow import DemoAirflow
from demo.mail import MailServer, text_of
from demo.runs import Run, all_runs
from demo.screen import Screen, ends_table, progress_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_ROOT = Path(__file__).resolve().parent.parent
_HOME = _ROOT / ".demo"
_LOGS = f"{_HOME.name}/logs"
#: How long nothing at all may happen, in seconds, while runs have not ended: many times what a busy machine needs.
_STILL_LIMIT_SECONDS = 240.0
#: Time between two looks at Airflow, in seconds. Each costs its API server about a tenth of one.
_LOOK_SECONDS = 1.0
#: How often what a run shows is looked for.
_LOOK_UPS = 5
#: What a person can run in another shell while Airflow is up.
_TRIGGER = (
    f"AIRFLOW_HOME={_HOME} {Path(sys.executable).parent}/airflow dags trigger example_oxen_gate "
    """--conf '{"evaluation_id": "completed-60s"}'"""
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="keep Airflow running afterwards, until Ctrl-C")
    keep = parser.parse_args().keep

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        for ignored in signals:  # a second one would disturb what the first one stops
            signal.signal(ignored, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in signals:
        signal.signal(number, interrupt)
    console = Console()
    screen = Screen(console)
    shutil.rmtree(_HOME, ignore_errors=True)
    try:
        with ExitStack() as stack:
            hub, mails = stack.enter_context(LocalHub(pages=True)), stack.enter_context(MailServer())
            with screen:
                airflow = _start(screen, stack, hub, mails)
                runs = _run(screen, airflow, hub)
                _look_up(airflow, mails, runs)
            _report(console, runs)
            if keep:
                name, password = airflow.login
                _say(console, f"Airflow stays up at {airflow.url} (user {name}, password {password}). Ctrl-C ends it.")
                _say(console, f"Try next, in another shell: {_TRIGGER}")
                _say(
                    console,
                    f"Watch it at {airflow.url}/dags/example_oxen_gate: it waits for a minute without a worker.",
                )
                with suppress(KeyboardInterrupt):
                    while True:
                        signal.pause()
            screen.step("Stopping Airflow.")
    except KeyboardInterrupt:
        _say(console, "Interrupted. All processes have been stopped.")
        return 130
    except RuntimeError as error:
        _say(console, f"{error}\nAll processes have been stopped.")
        return 1
    _say(console, f"Took {screen.seconds:.0f} s. The logs of the tasks are in {_LOGS}, those of Airflow beside it.")
    if not keep:
        _say(console, f"Try next: make demo KEEP=1, which leaves Airflow up. Then, in another shell: {_TRIGGER}")
    return 0 if all(run.problem is None for run in runs) else 1


def _start(screen: Screen, stack: ExitStack, hub: LocalHub, mails: MailServer) -> DemoAirflow:
    """Start Airflow. Its address and login are shown before."""
    env = {"AIRFLOW_CONN_OXEN_DEFAULT": hub.connection_uri, "AIRFLOW_CONN_SMTP_DEFAULT": mails.connection_uri}
    airflow = DemoAirflow(_HOME, dags=_link_dags(), env=env, screen=screen)
    name, password = airflow.login
    screen.step(f"Airflow: {airflow.url} (user {name}, password {password}), as soon as its API server runs.")
    screen.step(f"A local Oxen hub runs at {hub.url}. Logs go to {_LOGS}.")
    screen.step("All of it takes less than a minute on two quiet cores, and longer on a busy machine.")
    return stack.enter_context(airflow)


def _link_dags() -> Path:
    """Make a DAGs folder with the examples and the demonstration's own DAG."""
    dags = _HOME / "dags"
    dags.mkdir(parents=True)
    for name in ("example_dags", "demo/dags"):
        (dags / name.partition("/")[0]).symlink_to(_ROOT / name, target_is_directory=True)
    return dags


def _run(screen: Screen, airflow: DemoAirflow, hub: LocalHub) -> list[Run]:
    """Begin all runs, and follow them until they have ended or nothing moves any more."""
    runs = all_runs()
    waiting = list(runs)
    screen.step("Waiting until Airflow has parsed the DAGs.")
    changed_at, before = time.monotonic(), ""
    while not all(run.ended for run in runs):
        if airflow.ended:
            raise RuntimeError(f"Airflow has ended. {airflow.ends_of_logs(airflow.ended)}")
        with _patience():
            if waiting:
                _begin(screen, airflow, hub, waiting)
            _look(screen, airflow, hub, runs)
        known, ended = sum(bool(run.run_id) for run in runs), sum(run.ended for run in runs)
        screen.follow(
            f"Of {len(runs)} runs, {known} have begun and {ended} have ended.", lambda: progress_table(runs, hub)
        )
        now = str([(run.state, run.states) for run in runs])
        if now != before:
            changed_at, before = time.monotonic(), now
        if time.monotonic() - changed_at > _STILL_LIMIT_SECONDS:
            screen.step(f"Nothing has moved for {_STILL_LIMIT_SECONDS:.0f} s.")
            break
        time.sleep(_LOOK_SECONDS)
    return runs


@contextmanager
def _patience() -> Iterator[None]:
    """Let a request fail that Airflow is too busy for: what was asked is asked again a moment later."""
    try:
        yield
    except (requests.ConnectionError, requests.Timeout):
        return
    except requests.HTTPError as error:
        if error.response.status_code < requests.codes.server_error:
            raise


def _begin(screen: Screen, airflow: DemoAirflow, hub: LocalHub, waiting: list[Run]) -> None:
    """Begin the runs whose DAG is parsed. One that the schedule begins needs its DAG unpaused."""
    if errors := airflow.get("/importErrors")["import_errors"]:
        raise RuntimeError(f"A DAG cannot be imported. {errors[0]['stack_trace']}")
    parsed = {dag["dag_id"] for dag in airflow.get("/dags", limit=100)["dags"]}
    for run in [run for run in waiting if run.dag_id in parsed]:
        if run.begun_by == "schedule":
            airflow.patch(f"/dags/{run.dag_id}", {"is_paused": False})
        elif not run.begun_by:
            try:
                airflow.trigger(run.dag_id, run.name, run.conf(hub))
            except requests.HTTPError as error:
                if error.response.status_code != requests.codes.conflict:  # its response was lost
                    raise
        waiting.remove(run)
    if not waiting:
        screen.step("All DAGs are parsed, and their runs begin, with evaluations that take some seconds each.")


def _look(screen: Screen, airflow: DemoAirflow, hub: LocalHub, runs: list[Run]) -> None:
    """Look at all runs, with two requests. Kill what is to be killed."""
    # In this order: once a run has ended, the states of its tasks are final.
    dag_runs = airflow.get("/dags/~/dagRuns", limit=100)["dag_runs"]
    tasks = airflow.get("/dags/~/dagRuns/~/taskInstances", limit=100)["task_instances"]
    for run in runs:
        had_ended = run.ended
        run.see(dag_runs, tasks)
        run.count_starts(hub)
        if run.kill and run.killed_pid is None:
            _kill(hub, run, tasks)
        if run.ended and not had_ended and not screen.console.is_terminal:
            gate = f"{run.gate} {run.gate_state}, " if run.gate_state and run.gate != run.then else ""
            screen.step(f"{run.name} ({run.dag_id}): {gate}{run.then} {run.then_state}")


def _kill(hub: LocalHub, run: Run, tasks: list[dict[str, Any]]) -> None:
    """Kill the process of a task on its worker. Its first poll of the evaluation shows that it has stored the id."""
    if not any(hub.requests_for(evaluation_id) for evaluation_id in run.evaluation_ids):
        return
    for task in tasks:
        mine = (task["dag_id"], task["dag_run_id"], task["task_id"]) == (run.dag_id, run.run_id, run.gate)
        if mine and task["state"] == "running" and task["pid"]:
            with suppress(ProcessLookupError):
                os.kill(task["pid"], signal.SIGKILL)
                run.killed_pid = task["pid"]


def _look_up(airflow: DemoAirflow, mails: MailServer, runs: list[Run]) -> None:
    """Find what runs show at their end. Logs may come a little late."""
    for run in [run for run in runs if run.shows and run.ended]:
        for _ in range(_LOOK_UPS):
            with _patience():
                run.shown = _find_shown(airflow, mails, run)
            if run.shown:
                break
            time.sleep(_LOOK_SECONDS)


def _find_shown(airflow: DemoAirflow, mails: MailServer, run: Run) -> str:
    if run.shows == "reason":
        log = airflow.task_log(run.dag_id, run.run_id, run.gate)
        found = re.search(r"Condition not met: .*?(?=; for instance|; evaluation completed)", log)
        return f"{found[0]}." if found else ""
    if run.shows == "mail":
        return "".join(f"{mail['subject']}: {text_of(mail)}" for mail in mails.mails[:1])
    return "; ".join(map(_point, airflow.xcom(run.dag_id, run.run_id, run.then) or []))


def _point(value: str | dict[str, Any]) -> str:
    """Show what a task read from the event of an asset: a text, or the share that was measured."""
    return value if isinstance(value, str) else f"{value['condition']}: {value['share']:.0%}"


def _report(console: Console, runs: list[Run]) -> None:
    console.print()
    console.print(ends_table(runs))
    console.print()
    leads = {
        "reason": "the evaluation completed, but the gate stays closed. ",
        "mail": "a mail was sent. ",
        "result": "begun by the update of the asset, whose event says: ",
    }
    for run in runs:
        if run.problem is not None:
            _say(console, f"{run.name} is not as expected: {run.problem}.")
        if run.shown:
            _say(console, f"{run.name}: {leads[run.shows]}{run.shown}")
        if run.killed_pid is not None:
            _say(
                console,
                f"{run.name}: process {run.killed_pid} of the task {run.gate} was killed with SIGKILL while its "
                f"evaluation ran. The next attempt waited for the same evaluation. "
                f"Requests to start one that the hub counted: {run.start_requests}.",
            )


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    sys.exit(main())
