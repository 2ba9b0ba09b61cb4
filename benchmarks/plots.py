"""Draw what the benchmarks measured. Needs the dependency group ``bench``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.policies import FIXED_INTERVALS, SHIPPED
from benchmarks.traces import DURATIONS

__all__ = ["frontier"]


def frontier(policies: Mapping[str, Any], path: str) -> None:
    """
    Draw polls against mean detection delay, a panel for each length of run. Lower and further left is better.

    :param policies: ``policies`` of what :func:`benchmarks.poll_schedule.main` returns.
    :param path: file to write, as SVG.
    """
    import matplotlib as mpl

    mpl.use("svg")
    # The same numbers give the same file; text stays text.
    mpl.rcParams.update({"svg.hashsalt": "frontier", "svg.fonttype": "none"})
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    lengths = DURATIONS[1:]
    figure, panels = plt.subplots(1, len(lengths), figsize=(13, 4.4), layout="constrained")
    for panel, nominal in zip(panels, lengths, strict=True):
        points = {
            name: (result["progress"][str(nominal)]["polls"], result["progress"][str(nominal)]["delay"])
            for name, result in policies.items()
        }
        fixed = [points.pop(name) for name in (f"fixed {s:g} s" for s in FIXED_INTERVALS) if name in points]
        panel.plot(*zip(*fixed, strict=True), "o-", color="0.6", label="fixed intervals, 5 s to 60 s")
        shipped = points.pop(SHIPPED)
        panel.plot(*zip(*points.values(), strict=True), "x", color="tab:blue", label="other candidates")
        panel.plot(*shipped, "*", color="tab:red", markersize=14, label="shipped")
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
    panels[0].legend()
    figure.suptitle("Polls against detection delay, evaluations that report progress; poke_interval 5 s, max_wait 60 s")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
