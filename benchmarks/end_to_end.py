"""
From the end of an evaluation to the start of the task behind the gate, in a real Airflow, compared with the peers.

Run ``python -m benchmarks.end_to_end``. One Airflow runs the DAGs of ``benchmarks/dags``; evaluations come from the
local hub, dbt Cloud's job runs from an emulated endpoint, all over TLS. A round starts one gate of each way to wait, in
an order that rotates from round to round, and a moment apart, so that they do not end together.

*Delay* is from the evaluation's end, by the server's clock, to the first line of the task behind the gate. It has two
parts: *noticing*, until the server was polled again, and *handing over*, which is Airflow's own. *Worker processes* are
those Airflow started for the gate, by its event log: a deferred task needs one to begin and one to end.
"""

from __future__ import annotations

import json
import ssl
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from airflow_provider_oxen.testing import LocalHub
from benchmarks.dbt_cloud import DbtCloud
from benchmarks.section import Report, Target, command_line, spread
from demo.standalone import AirflowStandalone

__all__ = ["WAYS", "Gate", "run"]

#: The ways to wait, by the id of their DAG.
WAYS = {
    "oxen_deferred": "oxen, deferrable",
    "oxen_without_worker": "oxen, without a worker",
    "dbt_cloud_deferred": "dbt Cloud, deferrable",
    "http_rescheduled": "HttpSensor, mode=reschedule",
    "http_deferrable": "HttpSensor, deferrable (pokes)",
}
_DAGS = Path(__file__).parent / "dags"
_POKE_INTERVAL = 5.0
#: How long a gate may take beyond its evaluation, in seconds, before the section gives up.
_PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Gate:
    """
    What was seen of one gate; times in seconds.

    :param way: the id of its DAG.
    :param evaluation_seconds: how long its evaluation took.
    :param delay: from the evaluation's end to the first line of the task behind the gate.
    :param noticing: from the evaluation's end to the poll that saw it.
    :param handing_over: from that poll on.
    :param workers: worker processes started for it.
    :param polls: requests that the server got for it.
    :param attempts: 1, or more where Airflow failed it in between and it was retried.
    """

    way: str
    evaluation_seconds: float
    delay: float
    noticing: float
    handing_over: float
    workers: int
    polls: int
    attempts: int


def run(*, short: bool, report: Report) -> dict[str, Any]:
    """
    Run the gates.

    :param short: one gate of each way.
    :param report: called with what is being done.
    :return: ``ways``: by id of the DAG, its ``name``, ``delay``, ``noticing`` and ``handing_over`` (medians and
        quartiles, in seconds), ``workers`` and ``polls`` a gate; ``gates``: each as :class:`Gate` has it.
    """
    rounds = 1 if short else 6
    with ExitStack() as stack:
        report("starting Airflow")
        lab = _Lab(stack)
        report("warming it up")
        lab.warm_up()
        gates: list[Gate] = []
        for number in range(rounds):
            report(f"round {number + 1} of {rounds}: a gate of each way to wait")
            # The evaluations end at other points of the five seconds between two polls in each round.
            seconds = 3.0 if short else 10.0 + _POKE_INTERVAL * (number + 0.5) / rounds
            gates += lab.run_round(number, seconds, apart=0.5 if short else 1.5)
    ways = {way: _sum_up(name, [gate for gate in gates if gate.way == way]) for way, name in WAYS.items()}
    target = Target(
        "worker processes for an open gate without a worker", 0, ways["oxen_without_worker"]["workers"]["most"]
    )
    return {
        "poke_interval": _POKE_INTERVAL,
        "gates_of_each_way": rounds,
        "ways": ways,
        "gates": [asdict(gate) for gate in gates],
        "targets": [target.plain()],
    }


class _Lab:
    """One Airflow, one hub and one emulated dbt Cloud."""

    def __init__(self, stack: ExitStack) -> None:
        import trustme

        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oxen-bench-")))
        authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(tls)
        ca_file = str(folder / "ca.pem")
        authority.cert_pem.write_to_path(ca_file)
        self._hub = stack.enter_context(LocalHub(tls=tls))
        self._dbt = stack.enter_context(DbtCloud(tls))
        connections = {
            "OXEN_DEFAULT": {"conn_type": "oxen", "host": self._hub.url, "password": self._hub.api_key}
            | {"extra": {"verify": ca_file}},
            "HUB": {"conn_type": "http", "schema": "https", "host": "127.0.0.1", "port": self._hub.port}
            | {"extra": {"Authorization": f"Bearer {self._hub.api_key}"}},
            "DBT_CLOUD_DEFAULT": {"conn_type": "dbt_cloud", "host": f"127.0.0.1:{self._dbt.port}"}
            | {"password": "an-emulated-token"},
        }
        env = {f"AIRFLOW_CONN_{name}": json.dumps(connection) for name, connection in connections.items()}
        # Where requests and OpenSSL find certificate authorities; nothing else here uses TLS.
        env |= {"REQUESTS_CA_BUNDLE": ca_file, "SSL_CERT_FILE": ca_file}
        self._airflow = stack.enter_context(AirflowStandalone(folder / "airflow", dags=_DAGS, env=env))
        self._airflow.wait_for_dags({*WAYS, "warm_up"})

    def warm_up(self) -> None:
        """
        Let Airflow do once what it does slowly the first time.

        Each of its workers imports what tasks need, and the triggerer builds an API server of its own for what triggers
        ask Airflow for, which takes it some seconds.
        """
        for dag_id in ("warm_up", "oxen_without_worker"):
            self._airflow.trigger(dag_id, "warm-up", {"id": "completed-1s-warm-up"})
        for dag_id in ("warm_up", "oxen_without_worker"):
            state = self._airflow.wait_for_run(dag_id, "warm-up")
            if state != "success":
                raise RuntimeError(f"what warms Airflow up ended as {state}")

    def run_round(self, number: int, seconds: float, *, apart: float) -> list[Gate]:
        """Run one gate of each way, started so many seconds apart."""
        ways = list(WAYS)
        turned = [ways[(i + number) % len(ways)] for i in range(len(ways))]
        run_id, ids = f"round-{number + 1}", {}
        for way in turned:
            ids[way] = str(number + 1) if way.startswith("dbt") else f"completed-{seconds:.3f}s-{way}-{number + 1}"
            self._dbt.add_run(ids[way], round(seconds, 3))
            self._airflow.trigger(way, run_id, {"id": ids[way]})
            time.sleep(apart)
        for way in turned:
            state = self._airflow.wait_for_run(way, run_id, limit_seconds=seconds + _PATIENCE)
            if state != "success":
                raise RuntimeError(f"a gate of {way} ended as {state}")
        return [self._examine(way, run_id, ids[way], round(seconds, 3)) for way in turned]

    def _examine(self, way: str, run_id: str, job_id: str, seconds: float) -> Gate:
        if way.startswith("dbt"):
            polled_at = self._dbt.polled_at[job_id]
        else:
            polled_at = [request.at for request in self._hub.requests if request.path.endswith(f"/{job_id}")]
        ended_at = polled_at[0] + seconds
        seen_at = polled_at[-1]
        # Servers here use the steady clock, tasks the time of day.
        began_at = float(self._airflow.xcom(way, run_id, "after")) - (time.time() - time.monotonic())
        gate = next(task for task in self._airflow.task_instances(way, run_id) if task["task_id"] == "gate")
        starts = self._airflow.get("/eventLogs", dag_id=way, run_id=run_id, task_id="gate", event="running", limit=100)
        return Gate(
            way=way,
            evaluation_seconds=seconds,
            delay=round(began_at - ended_at, 3),
            noticing=round(seen_at - ended_at, 3),
            handing_over=round(began_at - seen_at, 3),
            workers=starts["total_entries"],
            polls=len(polled_at),
            attempts=max(gate["try_number"], 1),
        )


def _sum_up(name: str, gates: list[Gate]) -> dict[str, Any]:
    measured = ("delay", "noticing", "handing_over", "workers", "polls", "attempts")
    return {"name": name, **{what: spread([getattr(gate, what) for gate in gates]) for what in measured}}


def _table(results: dict[str, Any], say: Callable[[str], None]) -> None:
    say(
        f"{'seconds, medians':34}{'delay (quartiles)':>22}{'noticing':>10}{'handing over':>14}"
        f"{'workers':>9}{'polls':>7}"
    )
    for way in results["ways"].values():
        delay = "{median:.2f} ({low:.2f} to {high:.2f})".format(**way["delay"])
        noticing, over, workers, polls = (way[w]["median"] for w in ("noticing", "handing_over", "workers", "polls"))
        say(f"{way['name']:34}{delay:>22}{noticing:>10.2f}{over:>14.2f}{workers:>9g}{polls:>7g}")


if __name__ == "__main__":
    command_line(run, _table, description=__doc__)
