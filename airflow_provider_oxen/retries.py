"""How a worker tries again what did not reach the hub, until ``retry_window`` is over."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from airflow_provider_oxen.messages import describe_duration
from airflow_provider_oxen.parameters import parse_optional_seconds
from airflow_provider_oxen.polling import backoff_seconds

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow_provider_oxen.exceptions import OxenTransientError
    from airflow_provider_oxen.version_compat import TaskLogger

__all__ = ["Retries"]

#: Shortest and longest time between two tries, in seconds.
_FIRST_BACKOFF_SECONDS, _LONGEST_BACKOFF_SECONDS = 2.0, 60.0


class Retries:
    """
    Counts tries and sleeps between them.

    :param window: how long to try from now on, in seconds or as ``timedelta``, as a cluster policy may have set it;
        None: without a limit.
    :param log: gets a warning for each try that failed.
    """

    def __init__(self, window: timedelta | float | None, log: TaskLogger) -> None:
        seconds = parse_optional_seconds("retry_window", window)
        self._give_up_at_monotonic = None if seconds is None else time.monotonic() + seconds
        self._log = log
        self._tries = 0

    def sleep(self, error: OxenTransientError, happened: str) -> bool:
        """
        Sleep until the next try, at least as long as the hub asks for.

        :param happened: what this try means, for the log.
        :return: whether there is a next try; False, without sleeping, where the window would be over.
        """
        self._tries += 1
        backoff = backoff_seconds(
            self._tries,
            poke_interval=_FIRST_BACKOFF_SECONDS,
            max_wait=_LONGEST_BACKOFF_SECONDS,
            jitter=random.random(),
        )
        seconds = max(backoff, error.retry_after_seconds or 0.0)
        if self._give_up_at_monotonic is not None and time.monotonic() + seconds > self._give_up_at_monotonic:
            return False
        self._log.warning("%s, next try in %s: %s", happened, describe_duration(seconds), error)
        time.sleep(seconds)
        return True
