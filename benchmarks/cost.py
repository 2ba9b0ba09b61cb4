"""
What a wait costs: CPU a poll, memory and connections, compared with a bare loop and with Airflow's own providers.

Run ``python -m benchmarks.cost`` from the repository's root, with dbt Cloud's provider and the HTTP provider
installed. Everything is on this machine: a server in one process (see :mod:`benchmarks.answering`), and one process
that waits for each subject (see :mod:`benchmarks.waiting`), idle except in its turn. A round measures one subject after
the other, so that what disturbs the machine disturbs all alike.

*CPU a poll* is the waiting process's own time, user and system, over a steady stretch, by the polls that the server
counted in it. *CPU a whole wait* is that of a wait of eight polls, from its start to its end. *Memory a wait* is what
the process's resident memory grows by from the first 50 waits to all of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import answering, waiting
from benchmarks.section import Target, command_line

__all__ = ["measure_cpu", "measure_memory", "measure_whole_waits", "run", "sum_up"]

_WAITS = 400
_PEERS = ("dbt", "http")
#: Over TLS, a peer needs most of a core for 400 polls a second, so there are half as many.
_INTERVALS = {"plain": 1.0, "tls": 2.0}


def run(*, short: bool, report: Callable[[str], None]) -> dict[str, Any]:
    """
    Measure.

    :param short: only check that it still runs; its numbers mean little.
    :param report: called with a line on the progress.
    :return: plain JSON: ``cpu`` (by way, then subject: milliseconds a poll of each round, median, least and most,
        connections opened), ``whole_waits`` (by subject: milliseconds a wait of each round, and the median),
        ``ratios``, ``memory`` (by subject: bytes a wait, and the resident memory at each step) and ``targets``.
    """
    waits = 60 if short else _WAITS
    cpu = measure_cpu(waits=waits, short=short, report=report)
    whole = measure_whole_waits(waits=waits, short=short, report=report)
    return sum_up(cpu, whole, measure_memory(short=short, report=report), waits=waits)


def measure_cpu(
    *, waits: int = _WAITS, short: bool, report: Callable[[str], None]
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Measure CPU a poll: by way and subject, what each round gave."""
    rounds, seconds = (1, 0.5) if short else (3, 3.0)
    cpu: dict[str, dict[str, list[dict[str, float]]]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oxen-bench-")))
        cert = _make_certificate(folder)
        servers = {
            "plain": stack.enter_context(answering.running(core=1)),
            "tls": stack.enter_context(answering.running(cert=cert, core=1)),
        }
        waiters = {
            name: stack.enter_context(waiting.running(core=None if short else 0, SSL_CERT_FILE=str(cert)))
            for name in waiting.SUBJECTS
            if name != "oxen_moving"
        }
        waiters["oxen_moving"] = waiters["oxen"]
        for number in range(rounds):
            for way, server in servers.items():
                interval = 0.3 if short else _INTERVALS[way]
                for name in waiting.SUBJECTS:
                    if way == "tls" and name == "oxen_moving":
                        continue
                    measured = _measure_cpu(
                        server, waiters[name], subject=name, waits=waits, interval=interval, seconds=seconds
                    )
                    cpu.setdefault(way, {}).setdefault(name, []).append(measured)
                    report(
                        f"round {number + 1} of {rounds}, {way}: {name} {measured['ms_a_poll']:.3f} ms a poll, "
                        f"{measured['connections']} connections for {measured['polls_in_all']} polls"
                    )
    return cpu


def measure_whole_waits(
    *, waits: int = _WAITS, short: bool, report: Callable[[str], None]
) -> dict[str, list[dict[str, float]]]:
    """Measure CPU a whole wait: by subject, what each round gave."""
    rounds = 1 if short else 5
    measured: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        server = stack.enter_context(answering.running(core=1))
        waiters = {
            name: stack.enter_context(waiting.running(core=None if short else 0))
            for name in waiting.SUBJECTS
            if name != "oxen_moving"
        }
        for number in range(rounds):
            for name, waiter in waiters.items():
                before = server.counts()["polls"]
                used = waiter.send(
                    "whole",
                    subject=name,
                    url=server.url,
                    waits=waits,
                    interval=0.3 if short else _INTERVALS["plain"],
                    first=number * (waits + 1),
                )
                # One wait comes before those that are measured.
                polls = (server.counts()["polls"] - before) / (waits + 1)
                if polls != answering.SHORT_POLLS:
                    raise RuntimeError(f"{name} polled {polls} times a wait, and not {answering.SHORT_POLLS} times")
                ms = 1_000 * used["cpu_seconds"] / waits
                measured.setdefault(name, []).append({"ms_a_wait": ms})
                report(f"round {number + 1} of {rounds}, whole waits: {name} {ms:.2f} ms a wait")
    return measured


def measure_memory(*, short: bool, report: Callable[[str], None]) -> dict[str, Any]:
    """Measure memory a wait: by subject."""
    memory: dict[str, Any] = {}
    with ExitStack() as stack:
        server = stack.enter_context(answering.running(core=1))
        # A process each, in which nothing was freed that could be used again.
        waiters = {name: stack.enter_context(waiting.running()) for name in waiting.SUBJECTS}
        for name, waiter in waiters.items():
            resident = waiter.send(
                "memory",
                subject=name,
                url=server.url,
                steps=[100, 150] if short else [1_000, 2_000],
                interval=0.4 if short else 3.0,
            )
            memory[name] = {"resident": resident, "bytes_a_wait": _slope(resident)}
            report(f"memory: {name} {memory[name]['bytes_a_wait'] / 1000:.1f} KB a wait")
    return memory


def _measure_cpu(
    server: answering.Server, waiter: waiting.Waiter, *, subject: str, waits: int, interval: float, seconds: float
) -> dict[str, float]:
    before = server.counts()
    waiter.send("cpu", subject=subject, url=server.url, waits=waits, interval=interval, seconds=seconds)
    begin = server.counts()
    used = waiter.read()
    end = server.counts()
    polls = end["polls"] - begin["polls"]
    return {
        "ms_a_poll": 1_000 * used["cpu_seconds"] / polls,
        "polls": polls,
        "polls_a_second": polls / used["wall_seconds"],
        "busy": used["cpu_seconds"] / used["wall_seconds"],
        "connections": end["connections"] - before["connections"],
        "polls_in_all": end["polls"] - before["polls"],
    }


def sum_up(
    cpu: dict[str, Any], whole: dict[str, Any], memory: dict[str, Any], *, waits: int = _WAITS
) -> dict[str, Any]:
    """Make of all three what :func:`run` returns."""
    summary: dict[str, Any] = {}
    for way, subjects in cpu.items():
        for name, measured in subjects.items():
            values = [one["ms_a_poll"] for one in measured]
            summary.setdefault(way, {})[name] = {
                "ms_a_poll": values,
                "median": median(values),
                "least": min(values),
                "most": max(values),
                "connections": [one["connections"] for one in measured],
                "polls": [one["polls_in_all"] for one in measured],
            }
    ratios: dict[str, Any] = {}
    for way, subjects in summary.items():
        for name in [name for name in subjects if name.startswith("oxen")]:
            of_subjects = {other: found["ms_a_poll"] for other, found in subjects.items()}
            ratios |= _compare(f"{way}: {name}", name, of_subjects)
    whole_waits = {name: [one["ms_a_wait"] for one in found] for name, found in whole.items()}
    ratios |= _compare("whole waits: oxen", "oxen", whole_waits)
    ours, dbt = memory["oxen"]["bytes_a_wait"], memory["dbt"]["bytes_a_wait"]
    targets = [
        Target("CPU a poll, as a multiple of a bare loop's", 0.6, ratios["plain: oxen / bare"]["median"]),
        Target("CPU a poll, as a multiple of the cheaper peer's", 0.2, ratios["plain: oxen / cheaper_peer"]["median"]),
        Target(
            "CPU a poll over TLS, as a multiple of the cheaper peer's",
            0.25,
            ratios["tls: oxen / cheaper_peer"]["median"],
        ),
        Target(
            "CPU a wait of eight polls, as a multiple of a bare loop's",
            0.9,
            ratios["whole waits: oxen / bare"]["median"],
        ),
        Target(
            "CPU a wait of eight polls, as a multiple of the cheaper peer's",
            0.25,
            ratios["whole waits: oxen / cheaper_peer"]["median"],
        ),
        Target("memory a wait, KB", 12.0, ours / 1_000),
        Target("memory a wait, as a multiple of dbt Cloud's", 1.0, ours / dbt),
        Target(
            "connections for all waits",
            20,
            max(number for way in summary.values() for number in way["oxen"]["connections"]),
        ),
    ]
    return {
        "waits": waits,
        "rounds": len(cpu["plain"]["oxen"]),
        "intervals": _INTERVALS,
        "cpu": summary,
        "whole_waits": {name: {"ms_a_wait": each, "median": median(each)} for name, each in whole_waits.items()},
        "ratios": ratios,
        "memory": memory,
        "targets": [target.plain() for target in targets],
    }


def _compare(title: str, ours: str, each: dict[str, list[float]]) -> dict[str, Any]:
    """Compare what was measured, round by round: what slows one subject slows its neighbours."""
    ratios = {}
    for title_of_others, others in (("bare", ("bare",)), ("cheaper_peer", _PEERS)):
        found = [own / min(each[other][number] for other in others) for number, own in enumerate(each[ours])]
        ratios[f"{title} / {title_of_others}"] = {
            "each": found,
            "median": median(found),
            "least": min(found),
            "most": max(found),
        }
    return ratios


def _slope(resident: list[list[int]]) -> float:
    """Bytes a wait, from the first step to the last."""
    (first, low), (last, high) = resident[0], resident[-1]
    return (high - low) / (last - first)


def _make_certificate(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1 that is its own authority, with its key in the same file."""
    import ipaddress
    from datetime import datetime, timedelta, timezone

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(tz=timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def _table(results: dict[str, Any], line: Callable[[str], None]) -> None:
    for way, subjects in results["cpu"].items():
        for name, found in subjects.items():
            line(f"{way:6} {name:12} {found['median']:.3f} ms ({found['least']:.3f} to {found['most']:.3f})")
    for name, found in results["whole_waits"].items():
        line(f"whole waits {name:8} {found['median']:.2f} ms a wait of {answering.SHORT_POLLS} polls")
    for name, found in results["ratios"].items():
        line(f"{name:32} {found['median']:.3f} ({found['least']:.3f} to {found['most']:.3f})")
    for name, found in results["memory"].items():
        line(f"memory {name:12} {found['bytes_a_wait'] / 1000:.1f} KB a wait")


if __name__ == "__main__":
    command_line(run, _table, description=__doc__)
