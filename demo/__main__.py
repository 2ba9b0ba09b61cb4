"""``make demo``: the example gates in a real Airflow, for evaluations that end in each possible way."""

from __future__ import annotations

import argparse
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

from airflow_provider_oxen.testing import LocalHub
from demo.standalone import AirflowStandalone

if TYPE_CHECKING:
    from types import FrameType

_ROOT = Path(__file__).resolve().parent.parent
_HOME = _ROOT / ".demo"
#: How long the gates may take once Airflow is up, in seconds.
_RUN_LIMIT_SECONDS = 150.0
_COLOURS = {"success": "green", "failed": "red", "upstream_failed": "yellow", "deferred": "magenta", "running": "cyan"}


@dataclass
class Gate:
    """One gate of the demonstration: a run of an example DAG, and how it should end."""

    dag_id: str
    downstream: str
    ends: list[str]
    expected: tuple[str, str]
    run_id: str = ""
    evaluation_ids: list[str] = field(default_factory=list)
    states: dict[str, list[str]] = field(default_factory=dict)
    run_state: str = "queued"

    @property
    def name(self) -> str:
        return self.dag_id.removeprefix("example_oxen_")

    @property
    def ended(self) -> bool:
        return self.run_state in ("success", "failed")

    @property
    def outcome(self) -> tuple[str, str]:
        return self.shown("gate"), self.shown(self.downstream)

    def shown(self, task_id: str) -> str:
        """The state of a task; of a mapped one, the states of its instances."""
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
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave Airflow up afterwards, until Ctrl-C")
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
            airflow = AirflowStandalone(
                _HOME, dags=_ROOT / "example_dags", env={"AIRFLOW_CONN_OXEN_DEFAULT": hub.connection_uri}
            )
            with ExitStack() as stack:
                with console.status("Starting Airflow: scheduler, DAG processor, triggerer and API server ..."):
                    stack.enter_context(airflow)
                console.print(f"Airflow is up at {airflow.url}, a local Oxen hub at {hub.url}.", soft_wrap=True)
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
        console.print("Interrupted; everything that was started has been stopped.")
        return 130
    good = all(gate.outcome == gate.expected for gate in gates)
    console.print(f"Took {time.monotonic() - began:.0f} s. Airflow's logs are in {_HOME.relative_to(_ROOT)}/logs.")
    return 0 if good else 1


def _run(console: Console, airflow: AirflowStandalone, hub: LocalHub) -> list[Gate]:
    """Start a run for each gate and show how they come along, until all have ended."""
    gates = _gates()
    airflow.wait_for_dags({gate.dag_id for gate in gates})
    for number, gate in enumerate(gates):
        gate.evaluation_ids = [hub.add_evaluation(end=end, seconds=12 + 3 * i) for i, end in enumerate(gate.ends)]  # type: ignore[arg-type]
        gate.run_id = f"demo-{number + 1}"
        ids: Any = gate.evaluation_ids
        mapped = len(ids) > 1
        conf = {"evaluation_ids": ids} if mapped else {"evaluation_id": ids[0]}
        airflow.trigger(gate.dag_id, gate.run_id, conf)
    deadline = time.monotonic() + _RUN_LIMIT_SECONDS
    with Live(_progress(gates, hub), console=console, refresh_per_second=4, transient=True) as live:
        while not all(gate.ended for gate in gates) and time.monotonic() < deadline:
            for gate in gates:
                if not gate.ended:
                    _refresh(airflow, gate)
            live.update(_progress(gates, hub))
            time.sleep(0.5)
    return gates


def _refresh(airflow: AirflowStandalone, gate: Gate) -> None:
    state = airflow.run_state(gate.dag_id, gate.run_id)
    gate.states = {}
    for instance in airflow.task_instances(gate.dag_id, gate.run_id):
        gate.states.setdefault(instance["task_id"], []).append(instance["state"] or "none")
    gate.run_state = state  # last, so that the states are those after the end


def _progress(gates: list[Gate], hub: LocalHub) -> Table:
    table = Table("Gate", "Evaluation", "Rows", "Gate task", "Downstream", title="Waiting without a worker")
    for gate in gates:
        documents = [hub.status_of(evaluation_id) for evaluation_id in gate.evaluation_ids]
        done = sum(document["progress"]["processed"] for document in documents if document)
        rows = sum(document["progress"]["total"] for document in documents if document)
        statuses = Counter(document["status"] if document else "not asked for yet" for document in documents)
        words = ", ".join(status if count == 1 else f"{count} {status}" for status, count in statuses.items())
        bar = ProgressBar(total=rows or 1, completed=done, width=20)
        table.add_row(gate.name, words, bar, _state(gate.shown("gate")), _state(gate.shown(gate.downstream)))
    return table


def _report(console: Console, gates: list[Gate]) -> None:
    table = Table(
        "Gate", "Evaluation", "Gate task", "Downstream", "As it should", title="How each gate of example_dags ended"
    )
    for gate in gates:
        good = gate.outcome == gate.expected
        wanted = Text("yes", "green") if good else Text(f"no: {' and '.join(gate.expected)} expected", "red")
        ends = ", ".join(end if n == 1 else f"{n} {end}" for end, n in Counter(gate.ends).items())
        table.add_row(gate.name, ends, _state(gate.outcome[0]), _state(gate.outcome[1]), wanted)
    console.print(table)


def _state(state: str) -> Text:
    return Text(state, _COLOURS.get(state.rpartition(" ")[2], ""))


if __name__ == "__main__":
    sys.exit(main())
