"""The runs of the demonstration, as data: which DAG, with which evaluations, and how each should end."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_oxen.testing import Answers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_oxen.testing import LocalHub

__all__ = ["Progress", "Run", "all_runs"]

#: How long an evaluation takes, in seconds. A gate polls each 10 s at first, so it sees the end a moment later.
_SECONDS = 9


@dataclass(frozen=True)
class Progress:
    """
    How far the evaluations of a run are.

    :param words: their statuses.
    :param rows: rows that were processed.
    :param total: all rows; 0 as long as no evaluation is known.
    :param seconds_left: how long it takes until all rows are processed; None where that is not known.
    """

    words: str
    rows: int
    total: int
    seconds_left: float | None

    @property
    def percent(self) -> int:
        """Share of the rows that were processed, rounded down."""
        return 100 * self.rows // self.total if self.total else 0


@dataclass
class Run:
    """
    One run of a DAG, and how it should end.

    :param name: what happens in it, in words; the id of the run, unless Airflow starts it itself.
    :param expected: the states in which the gate and the task that follows it should end. Of several gates: how many
        ended in which state. None for a DAG without a gate.
    :param then: the task that follows; the gate itself where none does.
    :param gate: the task, or the task group, that waits.
    :param ends: how the evaluations end that it waits for.
    :param params: the DAG's params that take their ids. One that takes a list has all of them.
    :param starts: the task that starts the evaluation; empty where it was started before.
    :param begun_by: what of Airflow starts the run; empty where the demonstration does.
    :param right: share of the answers that are right.
    :param kill: whether the process of the gate is killed while the evaluation runs.
    :param shows: what is looked up at the end: why the gate stayed closed, the mail that was sent, or what the task
        that follows returned.
    """

    name: str
    dag_id: str
    expected: tuple[str | None, str]
    then: str = "publish"
    gate: str = "gate"
    ends: tuple[str, ...] = ("completed",)
    params: tuple[str, ...] = ("evaluation_id",)
    starts: str = ""
    begun_by: Literal["", "schedule", "asset"] = ""
    right: float = 1.0
    kill: bool = False
    shows: Literal["", "reason", "mail", "result"] = ""
    #: What has been seen.
    run_id: str = ""
    state: str = "not started"
    states: dict[str, list[str]] = field(default_factory=dict)
    killed_pid: int | None = None
    start_requests: int = 0
    evaluation_ids: list[str] = field(default_factory=list)
    shown: str = ""
    _first_rows: tuple[float, int] | None = None

    @property
    def ended(self) -> bool:
        return self.state in ("success", "failed")

    @property
    def gate_state(self) -> str | None:
        """How many of the gates are in which state; None where there is none."""
        return None if self.expected[0] is None else self._count_states(self.gate)

    @property
    def then_state(self) -> str:
        return self._count_states(self.then)

    @property
    def problem(self) -> str | None:
        """What is not as expected; None if all is."""
        if not self.ended:
            return f"the run is {self.state}"
        if (self.gate_state, self.then_state) != self.expected:
            return f"expected {' and '.join(filter(None, self.expected))}"
        if self.starts and (self.start_requests, len(self.evaluation_ids)) != (1, 1):
            return f"{self.start_requests} requests started {len(self.evaluation_ids)}"
        if self.kill and self.killed_pid is None:
            return "no process was killed"
        missing = {"reason": "its log does not say why", "mail": "no mail came", "result": "no result"}
        return missing[self.shows] if self.shows and not self.shown else None

    def conf(self, hub: LocalHub) -> dict[str, Any]:
        """Choose the run's params. Evaluations that it waits for are added to the hub."""
        if self.starts:  # what an evaluation does that is started here is said by its model
            return {"model": f"{self.ends[0]}-{_SECONDS}s"}
        answers = Answers(right=self.right, wrong=1 - self.right)
        ids = self.evaluation_ids = [
            hub.add_evaluation(end=end, seconds=_SECONDS, answers=answers) for end in self.ends
        ]
        return dict(zip(self.params, ids, strict=True)) if len(self.params) == len(ids) else {self.params[0]: ids}

    def see(self, dag_runs: Sequence[Mapping[str, Any]], tasks: Sequence[Mapping[str, Any]]) -> None:
        """Take from Airflow's lists of runs and of tasks what belongs to this run."""
        mine = [
            run
            for run in dag_runs
            if run["dag_id"] == self.dag_id and (self.begun_by or run["dag_run_id"] == self.name)
        ]
        if not mine:
            return
        self.run_id = mine[0]["dag_run_id"]
        self.states = {}
        for task in tasks:
            if (task["dag_id"], task["dag_run_id"]) == (self.dag_id, self.run_id):
                self.states.setdefault(task["task_id"], []).append(task["state"] or "none")
        self.state = mine[0]["state"]

    def count_starts(self, hub: LocalHub) -> None:
        """Find what this run asked the hub to start. The name of an evaluation says which task and run started it."""
        if not self.starts or not self.run_id:
            return
        begin = f"{self.dag_id}.{self.starts} {self.run_id} "
        self.evaluation_ids = [started.id for started in list(hub.started) if started.body["name"].startswith(begin)]
        names = [json.loads(request.body)["name"] for request in list(hub.start_requests)]
        self.start_requests = sum(name.startswith(begin) for name in names)

    def progress(self, hub: LocalHub, now: float | None = None) -> Progress | None:
        """
        Look how far the evaluations are; None where the run waits for none.

        :param now: a moment on the monotonic clock; None: this one.
        """
        if self.expected[0] is None:
            return None
        now = time.monotonic() if now is None else now
        documents = [hub.status_of(evaluation_id) for evaluation_id in self.evaluation_ids]
        counts = Counter(document["status"] if document else "not polled yet" for document in documents)
        words = ", ".join(status if len(documents) == 1 else f"{count} {status}" for status, count in counts.items())
        rows = sum(document["progress"]["processed"] for document in documents if document)
        total = sum(document["progress"]["total"] for document in documents if document)
        left = None
        if set(counts) == {"running"} and rows:
            first_at, first_rows = self._first_rows = self._first_rows or (now, rows)
            if rows > first_rows:
                left = (total - rows) * (now - first_at) / (rows - first_rows)
        return Progress(words or "not started yet", rows, total, left)

    def _count_states(self, name: str) -> str:
        """Count the states of a task, of the instances of a mapped one, or of the tasks of a group."""
        states = [
            state
            for task_id, of_task in self.states.items()
            if task_id == name or task_id.startswith(f"{name}.")
            for state in of_task
        ]
        if len(states) == 1:
            return states[0]
        return ", ".join(f"{count} {state}" for state, count in sorted(Counter(states).items())) or "none"


def all_runs() -> list[Run]:
    """List the runs: at least one of each DAG of the examples, and one whose worker is killed."""
    opened, closed = ("success", "success"), ("failed", "upstream_failed")
    model = {"params": ("model",)}
    return [
        Run("completed", "example_oxen_gate", opened),
        Run("errored", "example_oxen_gate", closed, ends=("errored",)),
        Run("cancelled", "example_oxen_gate", closed, ends=("cancelled",)),
        Run("id-from-a-task", "example_oxen_gate_from_task", opened),
        Run("without-a-worker", "example_oxen_gate_without_worker", opened),
        Run(
            "three-at-once",
            "example_oxen_mapped_gate",
            ("3 success", "success"),
            then="compare",
            ends=("completed",) * 3,
            params=("evaluation_ids",),
        ),
        Run(
            "one-of-two-errored",
            "example_oxen_task_group",
            ("1 failed, 1 success", "upstream_failed"),
            gate="gates",
            ends=("completed", "errored"),
            params=("quality", "safety"),
        ),
        Run(
            "errored-keep-earlier",
            "example_oxen_branch",
            ("skipped", "success"),
            then="keep_earlier_results",
            ends=("errored",),
        ),
        Run("84-percent-review", "example_oxen_branch_on_accuracy", ("skipped", "success"), then="review", right=0.84),
        Run("84-percent-closed", "example_oxen_accuracy", closed, right=0.84, shows="reason"),
        Run("97-percent-open", "example_oxen_accuracy", opened, right=0.97),
        Run(
            "chart-of-the-97",
            "example_oxen_accuracy_chart",
            (None, "success"),
            then="chart",
            begun_by="asset",
            shows="result",
        ),
        Run("asset-updated", "example_oxen_asset", opened, then="gate"),
        Run("asset-consumed", "example_oxen_asset_consumer", (None, "success"), begun_by="asset", shows="result"),
        Run(
            "errored-send-mail",
            "example_oxen_alert",
            ("failed", "failed"),
            then="gate",
            ends=("errored",),
            shows="mail",
        ),
        Run("started", "example_oxen_start", opened, gate="label", starts="label", **model),
        Run("started-in-own-task", "example_oxen_start_and_gate", opened, starts="start", **model),
        Run(
            "started-daily",
            "example_oxen_scheduled",
            opened,
            gate="label",
            starts="label",
            begun_by="schedule",
            **model,
        ),
        Run("worker-killed", "demo_killed_worker", opened, gate="label", starts="label", kill=True, **model),
    ]
