"""What ``make demo`` shows and starts, without an Airflow: ``tests/system/test_demo.py`` runs it as a whole."""

from __future__ import annotations

import configparser
import io
import re
import smtplib
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from rich.console import Console

from demo import __main__ as demo
from demo.airflow import DemoAirflow
from demo.mail import MailServer, text_of
from demo.runs import Run, all_runs
from demo.screen import Screen, ends_table, progress_table

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]


class Hub:
    """A hub with one document for each evaluation."""

    def __init__(self, **rows: int) -> None:
        self.rows = rows

    def status_of(self, evaluation_id: str) -> dict[str, Any] | None:
        if evaluation_id not in self.rows:
            return None
        processed = self.rows[evaluation_id]
        status = "completed" if processed == 1_000 else "running"
        return {"status": status, "progress": {"processed": processed, "total": 1_000}}


def printed(renderable: Any, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


# The runs


def test_each_example_runs() -> None:
    """A new example has a run, too."""
    files = [*(ROOT / "example_dags").glob("*.py"), *(ROOT / "demo/dags").glob("*.py")]
    dag_ids = {dag_id for file in files for dag_id in re.findall(r"^def (\w+)\(", file.read_text(), re.MULTILINE)}

    assert {run.dag_id for run in all_runs()} == dag_ids


def test_ids_of_runs_are_words_that_airflow_takes() -> None:
    """Each run has an id of its own that says what happens in it."""
    names = [run.name for run in all_runs()]

    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) and re.search("[a-z]{4}", name) for name in names)


def test_progress_says_rows_percent_and_time_left() -> None:
    """The time left follows from the rows of the seconds before."""
    hub, run = Hub(), Run("completed", "example_oxen_gate", ("success", "success"), evaluation_ids=["a"])
    assert run.progress(hub, now=0.0).words == "not polled yet"
    hub.rows["a"] = 100
    assert run.progress(hub, now=10.0).seconds_left is None
    hub.rows["a"] = 400

    progress = run.progress(hub, now=13.0)

    assert (progress.words, progress.rows, progress.total) == ("running", 400, 1_000)
    assert (progress.percent, progress.seconds_left) == (40, 6.0)
    hub.rows["a"] = 1_000
    assert run.progress(hub, now=20.0).seconds_left is None


def test_run_is_seen_by_its_id_or_by_its_dag() -> None:
    """What Airflow begins itself has an id that only Airflow knows."""
    own = Run("errored", "one", ("failed", "upstream_failed"))
    by_asset = Run("chart", "two", (None, "success"), then="chart", begun_by="asset")
    dag_runs = [
        {"dag_id": "one", "dag_run_id": "by-hand", "state": "success"},
        {"dag_id": "one", "dag_run_id": "errored", "state": "failed"},
        {"dag_id": "two", "dag_run_id": "asset_triggered__1", "state": "running"},
    ]
    tasks = [
        {"dag_id": "one", "dag_run_id": "by-hand", "task_id": "gate", "state": "success"},
        {"dag_id": "one", "dag_run_id": "errored", "task_id": "gate", "state": "failed"},
        {"dag_id": "one", "dag_run_id": "errored", "task_id": "publish", "state": "upstream_failed"},
        {"dag_id": "two", "dag_run_id": "asset_triggered__1", "task_id": "chart", "state": None},
    ]

    for run in (own, by_asset):
        run.see(dag_runs, tasks)

    assert (own.state, own.gate_state, own.then_state, own.problem) == ("failed", "failed", "upstream_failed", None)
    assert (by_asset.run_id, by_asset.state, by_asset.then_state) == ("asset_triggered__1", "running", "none")
    assert by_asset.problem == "the run is running"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, None),
        ({"states": {"gate": ["success"], "publish": ["failed"]}}, "expected success and success"),
        ({"starts": "gate", "start_requests": 2, "evaluation_ids": ["a"]}, "2 requests started 1"),
        ({"kill": True}, "no process was killed"),
        ({"shows": "mail"}, "no mail came"),
        ({"shows": "mail", "shown": "a mail"}, None),
    ],
)
def test_what_is_not_as_expected_is_a_problem(fields: dict[str, Any], problem: str | None) -> None:
    """It is in the last column, and the demonstration fails."""
    states = {"gate": ["success"], "publish": ["success"]}
    run = Run("completed", "example_oxen_gate", ("success", "success"), state="success", **{"states": states, **fields})

    assert run.problem == problem


# What is shown


def test_table_has_numbers_and_fits_on_a_terminal() -> None:
    """With the longest texts, no line is longer than 80 columns; only the states of several gates may be cut."""
    runs = all_runs()
    hub = Hub(a=100)
    for run in runs:
        run.evaluation_ids = ["a"] * max(1, len(run.ends))
        run.states = {run.then: ["upstream_failed"], run.gate: ["deferred"] * len(run.ends)}
        run.progress(hub, now=time.monotonic() - 6)
    hub.rows["a"] = 400
    group = next(run for run in runs if run.gate == "gates")
    group.states = {"gates.quality": ["running"], "gates.safety": ["deferred"]}

    table = printed(progress_table(runs, hub))

    assert len(table.splitlines()) == len(runs) + 1
    assert max(map(len, table.splitlines())) <= 80
    assert [line.split()[0] for line in table.splitlines() if "…" in line] == [group.name]
    row = next(line for line in table.splitlines() if line.startswith("three-at-once"))
    assert re.search(r"1,200/3,000 +40 % +\d+ s 3 deferred", row), row


def test_report_fits_on_a_terminal() -> None:
    """No id of a run and no name of a DAG is cut, and each run has its verdict."""
    runs = all_runs()
    for run in runs:
        run.state, run.states = "success", {run.then: ["success"], run.gate: ["success"] * len(run.ends)}

    table = printed(ends_table(runs))

    assert max(map(len, table.splitlines())) <= 80
    assert "…" not in table
    for run in runs:
        assert re.search(rf"^{run.name} +{run.dag_id.removeprefix('example_oxen_')} .*(yes|no) *$", table, re.MULTILINE)


def test_report_says_what_was_expected() -> None:
    """A run that ended otherwise is marked, and a sentence says why."""
    console = Console(file=io.StringIO(), width=80)
    run = Run("errored", "example_oxen_gate", ("failed", "upstream_failed"), ends=("errored",), state="success")

    demo._report(console, [run])  # noqa: SLF001

    assert "errored is not as expected: expected failed and upstream_failed." in console.file.getvalue()


def test_piped_steps_have_the_seconds() -> None:
    """Where there is no terminal, each step is a line; after a while without one, a line says how far it is."""
    file, now = io.StringIO(), [100.0]
    with Screen(Console(file=file, width=80), clock=lambda: now[0]) as screen:
        screen.step("Starting.")
        now[0] += 14
        screen.follow("1 of 9 runs have ended.", lambda: "table")
        now[0] += 2
        screen.follow("2 of 9 runs have ended.", lambda: "table")

    assert file.getvalue().splitlines() == ["[  0 s] Starting.", "[ 16 s] 2 of 9 runs have ended."]


def test_terminal_shows_table_and_seconds() -> None:
    """On a terminal, what is under way is below the steps."""
    file = io.StringIO()
    with Screen(Console(file=file, width=80, force_terminal=True), clock=lambda: 7.0) as screen:
        screen.step("Starting.")
        screen.follow("1 of 9 runs have ended.", lambda: "the table")
        screen._live.refresh()  # noqa: SLF001

    assert "[  0 s] Starting." in file.getvalue()
    assert re.search(r"the table\s+\S+ .*0 s  1 of 9 runs have ended\.", file.getvalue())


# What is started


class Prepared(DemoAirflow):
    """An Airflow whose commands are one line of Python."""

    program = "import sqlite3; sqlite3.connect('airflow.db').execute('CREATE TABLE made (n)')"

    def start(self, name: str) -> None:
        assert name == "migrate", "all else starts with the database in place"
        self.started.append(name)
        self._processes[name] = subprocess.Popen([sys.executable, "-c", self.program], cwd=self.home)

    started: list[str]


def prepare(folder: Path, name: str) -> Prepared:
    screen = Screen(Console(file=io.StringIO(), width=80))
    airflow = Prepared(folder / name, dags=folder, env={}, screen=screen, kept=folder / "kept.db")
    airflow.started = []
    return airflow


def steps(airflow: Prepared) -> str:
    return airflow._screen.console.file.getvalue()  # noqa: SLF001


def tables(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as database:
        return [name for (name,) in database.execute("SELECT name FROM sqlite_master")]


def test_login_is_known_before_airflow_starts(tmp_path: Path) -> None:
    """It is in the file where Airflow would write it, and no other user can read it."""
    airflow = prepare(tmp_path, "home")

    name, password = airflow.login

    assert name == "admin"
    assert len(password) >= 8
    assert (airflow.home / "simple_auth_manager_passwords.json.generated").stat().st_mode & 0o077 == 0
    assert password != prepare(tmp_path, "other").login[1]


def test_another_shell_finds_airflow_by_its_folder(tmp_path: Path) -> None:
    """The configuration has what the processes get as variables, and secrets that all of them share."""
    airflow = prepare(tmp_path, "home")
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(airflow.home / "airflow.cfg")

    assert settings["database"]["sql_alchemy_conn"] == f"sqlite:///{tmp_path}/home/airflow.db"
    assert settings["core"]["dags_folder"] == str(tmp_path)
    assert settings["api"]["base_url"] == airflow.url
    assert all((settings["core"]["fernet_key"], settings["api"]["secret_key"], settings["api_auth"]["jwt_secret"]))


def test_database_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second Airflow gets a copy of the empty database, and nothing is run before it starts."""
    monkeypatch.setattr("demo.standalone.AirflowStandalone.__enter__", lambda airflow: airflow)
    first, second = prepare(tmp_path, "first"), prepare(tmp_path, "second")

    with first, second:
        assert (first.started, second.started) == (["migrate"], [])
        assert tables(second.home / "airflow.db") == ["made"]

    assert "Making Airflow's database. Only the first time." in steps(first)
    assert "database" not in steps(second)


def test_database_that_was_not_made_is_not_kept(tmp_path: Path) -> None:
    """The error shows what Airflow wrote, and the next time the database is made again."""
    airflow = prepare(tmp_path, "home")
    airflow.program = "raise SystemExit(1)"
    (airflow.home / "migrate.log").write_text("no space left")

    with pytest.raises(RuntimeError, match=r"could not be made(?s:.*)no space left"), airflow:
        raise AssertionError("started")

    assert not (tmp_path / "kept.db").exists()


# The runs in Airflow


def http_error(status_code: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status_code
    return requests.HTTPError(str(status_code), response=response)


class Airflow:
    """An Airflow that does one thing at each look, and whose responses may be lost."""

    ended = ()
    error: Exception = requests.ReadTimeout("a busy machine")

    def __init__(self, *, lost: int = 0, ends: bool = True) -> None:
        self.lost, self.ends = lost, ends
        self.begun: dict[str, tuple[str, dict[str, Any]]] = {}
        self.unpaused: list[str] = []

    def get(self, path: str, **params: Any) -> Any:  # noqa: ARG002
        if self.lost:
            self.lost -= 1
            raise self.error
        state = "success" if self.ends else "running"
        named = [{"dag_id": dag, "dag_run_id": run, "state": state} for run, (dag, _) in self.begun.items()]
        return {
            "/importErrors": {"import_errors": []},
            "/dags": {"dags": [{"dag_id": "example_oxen_gate"}]},
            "/dags/~/dagRuns/~/taskInstances": {"task_instances": []},
            "/dags/~/dagRuns": {"dag_runs": named},
        }[path]

    def trigger(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        if run_id in self.begun:
            raise http_error(409)
        self.begun[run_id] = (dag_id, conf)
        if self.lost:
            self.lost -= 1
            raise requests.ReadTimeout("begun, but the response is lost")

    def patch(self, path: str, body: dict[str, Any]) -> None:
        assert body == {"is_paused": False}
        self.unpaused.append(path)


class RunHub:
    started = start_requests = ()

    def add_evaluation(self, **scenario: Any) -> str:  # noqa: ARG002
        return "an-id"

    def requests_for(self, evaluation_id: str) -> int:  # noqa: ARG002
        return 0


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    """A screen that writes into a text, and one run of one DAG."""
    monkeypatch.setattr(demo, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(demo, "all_runs", lambda: [Run("completed", "example_oxen_gate", ("success", "success"))])
    with Screen(Console(file=io.StringIO(), width=80)) as screen:
        yield screen


@pytest.mark.parametrize("error", [requests.ReadTimeout("a busy machine"), http_error(500)], ids=repr)
def test_busy_airflow_is_asked_again(error: Exception, screen: Screen) -> None:
    """A response that does not come in time does not end it, nor does a database that is locked."""
    airflow = Airflow(lost=4)
    airflow.error = error

    (run,) = demo._run(screen, airflow, RunHub())  # noqa: SLF001

    assert run.ended
    assert airflow.begun == {"completed": ("example_oxen_gate", {"evaluation_id": "an-id"})}


def test_request_that_airflow_refuses_is_an_error(screen: Screen) -> None:
    """Asking again cannot help."""
    airflow = Airflow(lost=1)
    airflow.error = http_error(403)

    with pytest.raises(requests.HTTPError, match="403"):
        demo._run(screen, airflow, RunHub())  # noqa: SLF001


def test_lost_response_to_a_start_is_no_second_start(screen: Screen) -> None:
    """Airflow knows the id of the run, and refuses it the second time."""
    airflow = Airflow()
    get = airflow.get

    def get_then_lose(path: str, **params: Any) -> Any:
        if path == "/dags" and not airflow.begun:
            airflow.lost = 1
            return {"dags": [{"dag_id": "example_oxen_gate"}]}
        return get(path, **params)

    airflow.get = get_then_lose

    (run,) = demo._run(screen, airflow, RunHub())  # noqa: SLF001

    assert run.ended
    assert len(airflow.begun) == 1


def test_states_of_tasks_are_those_at_the_end_of_the_run(screen: Screen) -> None:
    """A run that ends between two requests is not reported with a task that runs."""
    airflow, at_end = Airflow(), {"dag_id": "example_oxen_gate", "dag_run_id": "completed", "state": "success"}
    get, state = airflow.get, "running"

    def get_at_the_end(path: str, **params: Any) -> Any:
        nonlocal state
        if not path.startswith("/dags/~"):
            return get(path, **params)
        before, state = state, "success"
        tasks = [{**at_end, "task_id": task, "state": before} for task in ("gate", "publish")]
        return {"dag_runs": [{**at_end, "state": before}], "task_instances": tasks}

    airflow.get = get_at_the_end  # type: ignore[method-assign]

    (run,) = demo._run(screen, airflow, RunHub())  # noqa: SLF001

    assert run.problem is None


def test_schedule_begins_its_run_itself(screen: Screen) -> None:
    """The demonstration only unpauses that DAG."""
    run = Run("started-daily", "example_oxen_gate", ("success", "success"), begun_by="schedule", state="success")
    airflow = Airflow()

    demo._begin(screen, airflow, RunHub(), [run])  # noqa: SLF001

    assert airflow.unpaused == ["/dags/example_oxen_gate"]
    assert airflow.begun == {}


def test_wait_for_runs_is_bounded(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing moves any more, the report says so of each run."""
    monkeypatch.setattr(demo, "_STILL_LIMIT_SECONDS", 0.1)

    (run,) = demo._run(screen, Airflow(ends=False), RunHub())  # noqa: SLF001

    assert run.problem == "the run is running"


def test_airflow_that_ends_is_not_waited_for(screen: Screen) -> None:
    """The error has the end of its log."""
    airflow = Airflow()
    airflow.ended = ("scheduler",)
    airflow.ends_of_logs = lambda names: f"The end of {names[0]}.log: out of memory"

    with pytest.raises(RuntimeError, match=r"scheduler.log: out of memory"):
        demo._run(screen, airflow, RunHub())  # noqa: SLF001


def test_mail_is_kept() -> None:
    """A mail that is sent over SMTP can be read as text."""
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = "gate stayed closed", "a@example.com", "b@example.com"
    mail.set_content("<p>errored: no &lt;credits&gt;</p>\n.\n<p>Its error</p>", subtype="html")

    with MailServer() as server:
        port = re.search(r":(\d+)\?", server.connection_uri)[1]
        with smtplib.SMTP("127.0.0.1", int(port), timeout=10) as client:
            client.send_message(mail)
        (got,) = server.mails

    assert got["Subject"] == "gate stayed closed"
    assert text_of(got) == "errored: no <credits> . Its error"
