"""
``make demo``: run the example DAGs in a real Airflow, with an evaluation for each way to end.

Two of its evaluations are started by the operator. The worker's process of one of these tasks is killed on the way, and
the hub counts how many evaluations were started all the same. The last gate judges the answers: its evaluation
completes, but 84 % of them are right where 95 % are needed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from airflow_provider_oxen.testing import Answers, LocalHub
from demo.standalone import AirflowStandalone

if TYPE_CHECKING:
    from types import FrameType

_ROOT = Path(__file__).resolve().parent.parent
_HOME = _ROOT / ".demo"
#: How long all gates may take after Airflow has started, in seconds: many times what they do on a quiet machine.
_RUN_LIMIT_SECONDS = 600.0
_COLOURS = {"success": "green", "failed": "red", "upstream_failed": "yellow", "deferred": "magenta", "running": "cyan"}


@dataclass
class Gate:
    """
    One gate of the demonstration: a run of a DAG, and the states that its tasks should end in.

    :param task_id: the task that waits.
    :param starts: whether this task starts its evaluation.
    :param kill: whether its process is killed while the evaluation runs.
    :param right: share of the answers that are right.
    """

    dag_id: str
    downstream: str
    ends: list[str]
    expected: tuple[str, str]
    task_id: str = "gate"
    starts: bool = False
    kill: bool = False
    right: float = 1.0
    run_id: str = ""
    killed_pid: int | None = None
    start_requests: int = 0
    evaluation_ids: list[str] = field(default_factory=list)
    states: dict[str, list[str]] = field(default_factory=dict)
    run_state: str = "queued"
    #: Why the gate stayed closed, as the task's log says it; None where that was not looked up.
    reason: str | None = None

    @property
    def name(self) -> str:
        return self.dag_id.removeprefix("example_oxen_").removeprefix("demo_")

    @property
    def ended(self) -> bool:
        return self.run_state in ("success", "failed")

    @property
    def outcome(self) -> tuple[str, str]:
        return self.shown(self.task_id), self.shown(self.downstream)

    @property
    def problem(self) -> str | None:
        """What is not as expected; None if all is."""
        if self.outcome != self.expected:
            return f"expected {' and '.join(self.expected)}"
        if self.starts and (self.start_requests, len(self.evaluation_ids)) != (1, 1):
            return f"{self.start_requests} requests started {len(self.evaluation_ids)}"
        if self.right < 1 and not self.reason:
            return "its log does not say why"
        return "no process was killed" if self.kill and self.killed_pid is None else None

    @property
    def ends_shown(self) -> str:
        """How the evaluations end, and how good their answers are where that matters."""
        ends = ", ".join(end if count == 1 else f"{count} {end}" for end, count in Counter(self.ends).items())
        return ends if self.right == 1 else f"{ends}, {self.right:.0%} right"

    def shown(self, task_id: str) -> str:
        """Describe the state of a task; for a mapped task, how many of its instances are in which state."""
        counts = Counter(self.states.get(task_id, []))
        if len(counts) == 1 and counts.total() == 1:
            return next(iter(counts))
        return ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"


def _gates() -> list[Gate]:
    return [
        Gate("example_oxen_gate", "publish", ["completed"], ("success", "success")),
        Gate("example_oxen_gate", "publish", ["errored"], ("failed", "upstream_failed")),
        Gate("example_oxen_gate", "publish", ["cancelled"], ("failed", "upstream_failed")),
        Gate("example_oxen_gate_from_task", "publish", ["completed"], ("success", "success")),
        Gate("example_oxen_mapped_gate", "compare", ["completed"] * 3, ("3 success", "success")),
        Gate("example_oxen_start", "publish", ["completed"], ("success", "success"), "label", starts=True),
        Gate("demo_killed_worker", "publish", ["completed"], ("success", "success"), "label", starts=True, kill=True),
        Gate("example_oxen_accuracy", "publish", ["completed"], ("failed", "upstream_failed"), right=0.84),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="keep Airflow running afterwards, until Ctrl-C")
    keep = parser.parse_args().keep

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    console = Console()
    shutil.rmtree(_HOME, ignore_errors=True)
    began = time.monotonic()
    try:
        with LocalHub() as hub:
            airflow = AirflowStandalone(_HOME, dags=_link_dags(), env={"AIRFLOW_CONN_OXEN_DEFAULT": hub.connection_uri})
            with ExitStack() as stack:
                with console.status("Starting Airflow: scheduler, DAG processor, triggerer and API server ..."):
                    stack.enter_context(airflow)
                console.print(f"Airflow runs at {airflow.url}, a local Oxen hub at {hub.url}.", soft_wrap=True)
                gates = _run(console, airflow, hub)
                _report(console, gates)
                if keep:
                    name, password = airflow.login
                    console.print(
                        f"Airflow stays up at {airflow.url} (user {name}, password {password}). Ctrl-C ends it.",
                        soft_wrap=True,
                        highlight=False,
                    )
                    with suppress(KeyboardInterrupt):
                        while True:
                            signal.pause()
    except KeyboardInterrupt:
        console.print("Interrupted. All processes have been stopped.")
        return 130
    good = all(gate.problem is None for gate in gates)
    console.print(f"Took {time.monotonic() - began:.0f} s. Airflow's logs are in {_HOME.relative_to(_ROOT)}/logs.")
    return 0 if good else 1


def _link_dags() -> Path:
    """Make a DAGs folder with the examples and the demonstration's own DAG."""
    dags = _HOME / "dags"
    dags.mkdir(parents=True)
    for name in ("example_dags", "demo/dags"):
        (dags / name.partition("/")[0]).symlink_to(_ROOT / name, target_is_directory=True)
    return dags


def _run(console: Console, airflow: AirflowStandalone, hub: LocalHub) -> list[Gate]:
    """Start a run for each gate, and show their progress until all have ended."""
    gates = _gates()
    airflow.wait_for_dags({gate.dag_id for gate in gates})
    for number, gate in enumerate(gates):
        gate.run_id = f"demo-{number + 1}"
        airflow.trigger(gate.dag_id, gate.run_id, _conf(gate, hub))
    deadline = time.monotonic() + _RUN_LIMIT_SECONDS
    with Live(_progress(gates, hub), console=console, refresh_per_second=4, transient=True) as live:
        while not all(gate.ended for gate in gates) and time.monotonic() < deadline:
            for gate in gates:
                if not gate.ended:
                    _refresh(airflow, gate)
                if gate.starts:
                    _count_starts(gate, hub)
                if gate.kill and gate.killed_pid is None:
                    _kill(airflow, hub, gate)
            live.update(_progress(gates, hub))
            time.sleep(0.5)
    for gate in gates:
        if gate.right < 1:
            log = airflow.task_log(gate.dag_id, gate.run_id, gate.task_id)
            found = re.search(r"Condition not met: .*?(?=; for instance|; evaluation completed)", log)
            gate.reason = None if found is None else found[0]
    return gates


def _conf(gate: Gate, hub: LocalHub) -> dict[str, Any]:
    """Choose the parameters of a run. An evaluation that the run waits for is added to the hub."""
    if gate.starts:  # what an evaluation does that is started here is said by its model
        return {"model": f"{gate.ends[0]}-18s"}
    ids = gate.evaluation_ids = [
        hub.add_evaluation(end=end, seconds=12 + 3 * i, answers=Answers(right=gate.right, wrong=1 - gate.right))
        for i, end in enumerate(gate.ends)
    ]
    return {"evaluation_ids": ids} if len(ids) > 1 else {"evaluation_id": ids[0]}


def _count_starts(gate: Gate, hub: LocalHub) -> None:
    """Find what a run asked the hub to start. The name of an evaluation says which task and run it belongs to."""
    begin = f"{gate.dag_id}.{gate.task_id} {gate.run_id} "
    gate.evaluation_ids = [started.id for started in list(hub.started) if started.body["name"].startswith(begin)]
    names = [json.loads(request.body)["name"] for request in list(hub.start_requests)]
    gate.start_requests = sum(name.startswith(begin) for name in names)


def _kill(airflow: AirflowStandalone, hub: LocalHub, gate: Gate) -> None:
    """Kill the process of a task on its worker. Its first poll of the evaluation shows that it has stored the id."""
    if not any(hub.requests_for(evaluation_id) for evaluation_id in gate.evaluation_ids):
        return
    for instance in airflow.task_instances(gate.dag_id, gate.run_id):
        if instance["task_id"] == gate.task_id and instance["state"] == "running" and instance["pid"]:
            with suppress(ProcessLookupError):
                os.kill(instance["pid"], signal.SIGKILL)
                gate.killed_pid = instance["pid"]


def _refresh(airflow: AirflowStandalone, gate: Gate) -> None:
    state = airflow.run_state(gate.dag_id, gate.run_id)
    gate.states = {}
    for instance in airflow.task_instances(gate.dag_id, gate.run_id):
        gate.states.setdefault(instance["task_id"], []).append(instance["state"] or "none")
    gate.run_state = state  # set last: once the run has ended, the states of its tasks are final


def _progress(gates: list[Gate], hub: LocalHub) -> Table:
    table = Table("Gate", "Evaluation", "Rows", "Gate task", "Downstream", title="Waiting without a worker")
    for gate in gates:
        documents = [hub.status_of(evaluation_id) for evaluation_id in gate.evaluation_ids]
        done = sum(document["progress"]["processed"] for document in documents if document)
        rows = sum(document["progress"]["total"] for document in documents if document)
        statuses = Counter(document["status"] if document else "no request yet" for document in documents)
        words = ", ".join(status if count == 1 else f"{count} {status}" for status, count in statuses.items())
        bar = ProgressBar(total=rows or 1, completed=done, width=20)
        table.add_row(gate.name, words, bar, _state(gate.shown(gate.task_id)), _state(gate.shown(gate.downstream)))
    return table


def _report(console: Console, gates: list[Gate]) -> None:
    table = Table(
        "Gate", "Evaluation", "Started", "Gate task", "Downstream", "As expected", title="How each gate ended"
    )
    for gate in gates:
        wanted = Text("yes", "green") if gate.problem is None else Text(f"no: {gate.problem}", "red")
        count = len(gate.evaluation_ids)
        started = ("once" if count == 1 else f"{count} times") if gate.starts else "before"
        table.add_row(gate.name, gate.ends_shown, started, _state(gate.outcome[0]), _state(gate.outcome[1]), wanted)
    console.print(table)
    for gate in gates:
        if gate.killed_pid is not None and gate.problem is None:
            console.print(
                f"{gate.name}: process {gate.killed_pid} of the task {gate.task_id} was killed with SIGKILL while its "
                f"evaluation ran. The next attempt waited for the same evaluation. "
                f"Requests to start one that the hub counted: {gate.start_requests}.",
                highlight=False,
            )
        if gate.reason is not None and gate.problem is None:
            console.print(
                f"{gate.name}: the evaluation completed, but the gate stays closed. {gate.reason}.", highlight=False
            )


def _state(state: str) -> Text:
    return Text(state, _COLOURS.get(state.rpartition(" ")[2], ""))


if __name__ == "__main__":
    sys.exit(main())
