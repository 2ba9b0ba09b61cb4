"""
Move the wall clock of an Airflow's workers and triggerers while they run, by as many seconds as a file says.

Python imports this where its folder is on PYTHONPATH. The scheduler and the API server keep the right clock. Steady
clocks stay as they are, as on a machine whose clock is set.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

_FILE = Path(os.environ["MOVED_CLOCK"])
_COMMAND = next((name for name in ("triggerer", "scheduler") if name in sys.orig_argv), None)
#: How often the file is read, in seconds.
_EVERY_SECONDS = 0.1
_moved_by = 0.0
_moved = None
#: How many times the process was forked. A scheduler's forks are its workers, and theirs the tasks.
_forks = 0


def _follow() -> None:
    global _moved, _moved_by  # noqa: PLW0603  # forked processes go on with them
    import time_machine

    while True:
        wanted = float(_FILE.read_text() or _moved_by)
        if wanted != _moved_by:
            if _moved is None:
                _moved = time_machine.travel(datetime.now(tz=timezone.utc), tick=True).start()
            _moved.shift(timedelta(seconds=wanted - _moved_by))
            _moved_by = wanted
            Path(f"{_FILE}-{_COMMAND}-{_forks}-{os.getpid()}").write_text(datetime.now(tz=timezone.utc).isoformat())
        time.sleep(_EVERY_SECONDS)


def _begin() -> None:
    if _COMMAND == "triggerer" or _forks:
        threading.Thread(target=_follow, daemon=True).start()


def _begin_in_fork() -> None:
    global _forks  # noqa: PLW0603
    _forks += 1
    _begin()


if _COMMAND is not None:
    os.register_at_fork(after_in_child=_begin_in_fork)
    _begin()
