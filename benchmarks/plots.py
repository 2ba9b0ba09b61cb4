"""
Draw what the benchmarks measured, as SVG. Needs the dependency group ``bench``.

Run ``python -m benchmarks.plots`` to draw the documentation's plots again, from ``benchmarks/results.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.policies import FIXED_INTERVALS, SHIPPED
from benchmarks.traces import DURATIONS

__all__ = ["connections", "cpu", "draw_all", "end_to_end", "frontier", "memory", "parsing", "scale"]

#: Lines and text. In the file it becomes the colour that goes with the page: dark on white, light on black.
_INK = "#000001"
_STYLE = "svg {color: #1f2328} @media (prefers-color-scheme: dark) {svg {color: #d1d7e0}}"
#: What is drawn with it.
_DRAWN_WITH_INK = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
#: A part that is explained beside the others has its colour, but paler.
_PALE = 0.45
#: One colour for each subject, in all plots. Each is read on white and on black.
_OURS, _BARE, _DBT, _HTTP, _OTHER = "tab:red", "0.55", "tab:blue", "tab:purple", "0.75"
_SUBJECTS = {
    "bare": ("bare loop, one shared session", _BARE),
    "oxen": ("this provider", _OURS),
    "dbt": ("dbt Cloud's trigger", _DBT),
    "http": ("HttpEventTrigger", _HTTP),
}


def draw_all(sections: Mapping[str, Any], folder: Path) -> list[Path]:
    """
    Draw all that was measured.

    :param sections: results by section; what is not there is not drawn.
    :param folder: where to write.
    :return: the files written.
    """
    plots: list[tuple[str, str, Callable[[Any, str], None]]] = [
        ("poll_schedule", "poll-schedule.svg", lambda found, path: frontier(found["policies"], path)),
        ("cost", "cpu-a-poll.svg", cpu),
        ("cost", "connections.svg", connections),
        ("cost", "memory-a-wait.svg", memory),
        ("scale", "scale.svg", scale),
        ("parsing", "dag-parsing.svg", parsing),
        ("end_to_end", "end-to-end.svg", end_to_end),
    ]
    written = []
    for section, name, draw in plots:
        if section in sections:
            draw(sections[section], str(folder / name))
            written.append(folder / name)
    return written


@contextmanager
def _figure(path: str, rows: int = 1, columns: int = 1, **named: Any) -> Iterator[tuple[Any, Any]]:
    """Make a figure and write it: the same numbers give the same file, text stays text, the page's colour is behind."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": Path(path).stem, "svg.fonttype": "none", "font.size": 10})
    mpl.rcParams.update(dict.fromkeys(_DRAWN_WITH_INK, _INK))
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(rows, columns, layout="constrained", **named)
    try:
        yield figure, panels
        figure.savefig(path, metadata={"Date": None}, transparent=True)
    finally:
        plt.close(figure)
    text = Path(path).read_text(encoding="utf-8").replace(_INK, "currentColor")
    text = text.replace("</style>", f" {_STYLE}</style>", 1)
    # Matplotlib leaves blanks at the ends of lines.
    Path(path).write_text("".join(f"{line.rstrip()}\n" for line in text.splitlines()), encoding="utf-8")


def _tidy(panel: Any) -> None:
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)


def _bars(
    panel: Any,
    names: Sequence[str],
    values: Sequence[float],
    colours: Sequence[str],
    *,
    labels: Sequence[str],
    errors: Sequence[tuple[float, float]] | None = None,
) -> None:
    """Draw lying bars, the first on top, each with its value as a label."""
    places = range(len(names))
    ends = [high for _, high in errors] if errors else list(values)
    panel.barh(places, values, color=colours, height=0.62)
    if errors:
        below = [max(value - low, 0.0) for value, (low, _) in zip(values, errors, strict=True)]
        above = [max(high - value, 0.0) for value, (_, high) in zip(values, errors, strict=True)]
        panel.errorbar(values, places, xerr=[below, above], fmt="none", ecolor=_INK, elinewidth=1, capsize=3)
    for place, end, label in zip(places, ends, labels, strict=True):
        panel.annotate(label, (end, place), xytext=(6, 0), textcoords="offset points", va="center")
    panel.set_yticks(places, names)
    panel.invert_yaxis()
    panel.tick_params(axis="y", length=0)
    _tidy(panel)


def cpu(results: Mapping[str, Any], path: str) -> None:
    """
    Draw the CPU time of a poll, over plain HTTP and over TLS.

    :param results: what :mod:`benchmarks.cost` gives.
    :param path: file to write.
    """
    titles = {"plain": "HTTP", "tls": "HTTPS"}
    with _figure(path, 1, 2, figsize=(10, 2.9), sharey=True, sharex=True) as (figure, panels):
        for panel, (way, title) in zip(panels, titles.items(), strict=True):
            found = {name: results["cpu"][way][name] for name in _SUBJECTS}
            most = max(one["most"] for one in found.values())
            _bars(
                panel,
                [_SUBJECTS[name][0] for name in found],
                [one["median"] for one in found.values()],
                [_SUBJECTS[name][1] for name in found],
                labels=[f"{one['median']:.2f}" for one in found.values()],
                errors=[(one["least"], one["most"]) for one in found.values()],
            )
            panel.set(title=title, xlabel="milliseconds of CPU a poll")
            panel.set_xlim(0, max(most * 1.2, panel.get_xlim()[1]))
        panels[1].invert_yaxis()  # shared with the first, and turned twice
        rounds = " and ".join(str(n) for n in sorted({len(results["cpu"][way]["oxen"]["ms_a_poll"]) for way in titles}))
        of = f"{results['waits']} waits; median, least and most of {rounds} rounds"
        figure.suptitle(f"CPU time of one poll, {of}")


def connections(results: Mapping[str, Any], path: str) -> None:
    """
    Draw the TCP connections that were opened, beside the polls that were made.

    :param results: what :mod:`benchmarks.cost` gives.
    :param path: file to write.
    """
    from statistics import median

    with _figure(path, figsize=(8, 2.7)) as (_, panel):
        found = {name: results["cpu"]["plain"][name] for name in _SUBJECTS}
        opened = [median(one["connections"]) for one in found.values()]
        polls = [median(one["polls"]) for one in found.values()]
        _bars(
            panel,
            [_SUBJECTS[name][0] for name in found],
            opened,
            [_SUBJECTS[name][1] for name in found],
            labels=[f"{n:,.0f} for {all_:,.0f} polls" for n, all_ in zip(opened, polls, strict=True)],
        )
        panel.set(
            title=f"TCP connections opened by {results['waits']} waits",
            xlabel="connections (logarithmic)",
            xscale="log",
            xlim=(1, max(opened) * 12),
        )
        panel.xaxis.set_major_formatter("{x:,.0f}")


def memory(results: Mapping[str, Any], path: str) -> None:
    """
    Draw what memory grows by with the number of waits.

    :param results: what :mod:`benchmarks.cost` gives.
    :param path: file to write.
    """
    with _figure(path, figsize=(8, 4)) as (_, panel):
        for name, (label, colour) in _SUBJECTS.items():
            found = results["memory"][name]
            (first, low), *_ = found["resident"]
            waits = [count for count, _ in found["resident"]]
            grown = [(size - low) / 1e6 for _, size in found["resident"]]
            panel.plot(
                waits, grown, "o-", color=colour, label=f"{label}: {found['bytes_a_wait'] / 1_000:.1f} KB a wait"
            )
        panel.set(
            title="Resident memory of one process",
            xlabel="waits",
            ylabel=f"MB more than with {first} waits",
            xlim=(0, None),
            ylim=(0, None),
        )
        panel.legend(frameon=False)
        panel.grid(color=_INK, alpha=0.15)
        _tidy(panel)


def parsing(results: Mapping[str, Any], path: str) -> None:
    """
    Draw what importing a sensor takes.

    :param results: what :mod:`benchmarks.parsing` gives.
    :param path: file to write.
    """
    colours = {"oxen": _OURS, "dbt Cloud": _DBT, "HTTP": _HTTP}
    sensors = results["sensors"]
    with _figure(path, figsize=(8, 3.2)) as (_, panel):
        _bars(
            panel,
            ["this provider" if name == "oxen" else name for name in sensors],
            [found["ms"]["median"] for found in sensors.values()],
            [colours.get(name, _OTHER) for name in sensors],
            labels=[f"{found['ms']['median']:.1f} ms, {found['modules']} modules" for found in sensors.values()],
            errors=[(found["ms"]["low"], found["ms"]["high"]) for found in sensors.values()],
        )
        panel.set(
            title=f"Importing a sensor after airflow.sdk; median and quartiles of {results['rounds']} runs",
            xlabel="milliseconds (logarithmic)",
            xscale="log",
            xlim=(0.5, max(found["ms"]["high"] for found in sensors.values()) * 25),
        )
        panel.xaxis.set_major_formatter("{x:g}")


def end_to_end(results: Mapping[str, Any], path: str) -> None:
    """
    Draw the time from an evaluation's end to the next task's start: first until it was seen, then Airflow's own.

    :param results: what :mod:`benchmarks.end_to_end` gives.
    :param path: file to write.
    """
    from matplotlib.patches import Patch

    ways = results["ways"]
    colours = [_OURS if way.startswith("oxen") else _DBT if way.startswith("dbt") else _HTTP for way in ways]
    delays = [way["delay"]["median"] for way in ways.values()]
    handing = [way["handing_over"]["median"] for way in ways.values()]
    words = []
    for way in ways.values():
        workers = way["workers"]["median"]
        words.append(f"{way['delay']['median']:.1f} s, {workers:g} worker process{'' if workers == 1 else 'es'}")
    with _figure(path, figsize=(9, 3.7)) as (figure, panel):
        _bars(
            panel,
            [way["name"] for way in ways.values()],
            delays,
            [(colour, _PALE) for colour in colours],
            labels=words,
            errors=[(way["delay"]["low"], way["delay"]["high"]) for way in ways.values()],
        )
        until_seen = [delay - over for delay, over in zip(delays, handing, strict=True)]
        panel.barh(range(len(ways)), handing, left=until_seen, color=colours, height=0.62)
        figure.suptitle(
            "From the evaluation's end to the start of the next task, a poll every "
            f"{results['poke_interval']:g} s\nmedian and quartiles of {results['gates_of_each_way']} gates each",
            fontsize=10,
        )
        panel.set(xlabel="seconds", xlim=(0, max(way["delay"]["high"] for way in ways.values()) * 1.45))
        parts = [Patch(facecolor="0.55", alpha=_PALE), Patch(facecolor="0.55")]
        labels = ["until the next poll", "Airflow's handing over"]
        figure.legend(parts, labels, loc="outside lower center", ncols=2, frameon=False)


def scale(results: Mapping[str, Any], path: str) -> None:
    """
    Draw how one process keeps up with more and more waits.

    :param results: what :mod:`benchmarks.scale` gives.
    :param path: file to write.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    loads = sorted(results["loads"], key=lambda load: load["polls_a_second_wanted"])
    # Short intervals stand for more waits, as they make as many polls.
    waits = [10 * load["polls_a_second_wanted"] for load in loads]
    panels_of = {
        "lag of the event loop, p99, ms": [load["lag_ms"]["p99"] for load in loads],
        "CPU time of one poll, full collections apart, ms": [load["ms_a_poll"] for load in loads],
        "processor in use, %": [100 * load["busy"] for load in loads],
    }
    with _figure(path, 1, len(panels_of), figsize=(12, 3.2)) as (figure, panels):
        for panel, (title, values) in zip(panels, panels_of.items(), strict=True):
            panel.plot(waits, values, "o-", color=_OURS)
            panel.set(title=title, xlabel="waits, each polling every 10 s", xscale="log", ylim=(0, max(values) * 1.15))
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            panel.xaxis.set_major_formatter("{x:,.0f}")
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.tick_params(axis="x", labelsize=9)
            panel.grid(color=_INK, alpha=0.15)
            _tidy(panel)
        panels[0].axhline(50, color=_INK, alpha=0.6, linestyle="--")
        panels[0].annotate(
            "target: at most 50", (min(waits), 50), xytext=(0, 4), textcoords="offset points", fontsize=9
        )
        lags = panels_of["lag of the event loop, p99, ms"]
        panels[0].set(yscale="log", ylim=(min(1.0, *lags) / 1.5, max(100.0, *lags) * 1.5))
        panels[0].yaxis.set_major_formatter("{x:,g}")
        figure.suptitle("One process; shorter intervals count as more waits")


def frontier(policies: Mapping[str, Any], path: str) -> None:
    """
    Draw polls against mean detection delay, a panel for each length of run. Lower and further left is better.

    :param policies: ``policies`` of what :func:`benchmarks.poll_schedule.main` returns.
    :param path: file to write, as SVG.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    lengths = DURATIONS[1:]
    with _figure(path, 1, len(lengths), figsize=(13, 4.4)) as (figure, panels):
        for panel, nominal in zip(panels, lengths, strict=True):
            points = {
                name: (result["progress"][str(nominal)]["polls"], result["progress"][str(nominal)]["delay"])
                for name, result in policies.items()
            }
            fixed = [points.pop(name) for name in (f"fixed {s:g} s" for s in FIXED_INTERVALS) if name in points]
            panel.plot(*zip(*fixed, strict=True), "o-", color="0.6", label="fixed intervals, 5 s to 60 s")
            shipped = points.pop(SHIPPED)
            panel.plot(*zip(*points.values(), strict=True), "x", color="tab:blue", mew=1.6, label="other candidates")
            panel.plot(*shipped, "*", color=_OURS, markersize=14, label="shipped")
            panel.set(
                title=f"{nominal / 60:g} minutes" if nominal < 3_600 else f"{nominal / 3_600:g} h",
                xlabel="polls per evaluation",
                xscale="log",
                yscale="log",
            )
            for axis in (panel.xaxis, panel.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter(NullFormatter())
        panels[0].set_ylabel("mean detection delay, seconds")
        panels[0].legend(framealpha=0)
        figure.suptitle(
            "Polls against detection delay, evaluations that report progress; poke_interval 5 s, max_wait 60 s"
        )


if __name__ == "__main__":
    _HERE = Path(__file__).resolve().parent
    draw_all(json.loads((_HERE / "results.json").read_text(encoding="utf-8")), _HERE.parent / "docs")
