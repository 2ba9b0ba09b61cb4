"""
Whether a completed evaluation is good enough: the task's conditions, on what the hub says of it and on its rows.

How this works:

1. Conditions on rows need the results. They are downloaded to a temporary directory of the worker, at the commit that
   holds them, once for all conditions, and only where a condition needs them.
2. What the conditions find becomes part of the outcome: the reason that the gate stays closed, if there is one, and in
   any case what was measured.
3. A failure to read the results is no verdict on them. It ends the task as the same failure of a poll does.
"""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_oxen.airflow_names import AirflowFailException, AirflowSkipException
from airflow_provider_oxen.conditions import check_all
from airflow_provider_oxen.evaluations import Evaluation
from airflow_provider_oxen.exceptions import (
    OxenConfigError,
    OxenError,
    OxenFileTooLargeError,
    OxenNoResultsError,
    OxenTransientError,
)
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.messages import describe_results
from airflow_provider_oxen.outcomes import JudgedResults, Outcome, OutcomeReason
from airflow_provider_oxen.redaction import one_line, redact
from airflow_provider_oxen.retries import Retries
from airflow_provider_oxen.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from airflow_provider_oxen.conditions import Condition
    from airflow_provider_oxen.tables import Table
    from airflow_provider_oxen.version_compat import TaskLogger

__all__ = ["judge"]

#: Largest file of results that is downloaded. A hub that sends one without end would fill the worker's disk.
_MAX_BYTES = 20 * 1000**3
#: How long the hub may be out of reach while results are downloaded, where the task waits without such a limit.
_RETRY_WINDOW_SECONDS = 600.0


def judge(
    outcome: Outcome,
    conditions: Sequence[Condition],
    *,
    oxen_conn_id: str,
    retry_window: timedelta | float | None,
    log: TaskLogger,
) -> Outcome:
    """
    Check a task's conditions on a completed evaluation. Other outcomes stay as they are.

    A condition gets the same evaluation whichever way the task waited, so always one without its prompt.

    :param oxen_conn_id: the Airflow connection that the evaluation was polled with.
    :param retry_window: how long the hub may be out of reach while results are downloaded, in seconds or as
        ``timedelta``; None: the default.
    :return: the outcome, with what was measured.
    :raises AirflowSkipException: a condition raised it.
    """
    if outcome.reason is not OutcomeReason.COMPLETED or outcome.evaluation is None:
        return outcome
    names = {"namespace": outcome.ref.namespace, "repo_name": outcome.ref.repo_name}
    evaluation = Evaluation.from_dict(outcome.evaluation.to_dict() | names)
    outcome = replace(outcome, results=JudgedResults.of(evaluation))
    rows = _Rows(OxenHook(oxen_conn_id), evaluation, outcome, retry_window, log)
    facts: list[dict[str, Any]] = []
    try:
        try:
            verdict = check_all(
                conditions, evaluation, open_table=rows.open, source_rows=rows.count_source, facts=facts
            )
        finally:  # what was measured stays, also where something fails after it
            outcome = replace(outcome, results=replace(rows.judged, conditions=tuple(facts)))
            if outcome.results is not None and facts:
                log.info("%s", describe_results(outcome.results))
        return outcome if verdict.unmet is None else outcome.with_unmet_condition(verdict.unmet)
    except AirflowSkipException as error:
        error.args = tuple(rows.redact(each) if isinstance(each, str) else each for each in error.args)
        raise
    except AirflowFailException as error:  # it says that the failure is final, which an unmet condition is
        return outcome.with_unmet_condition(rows.redact(str(error)) or "a condition raised AirflowFailException")
    except (OxenNoResultsError, OxenFileTooLargeError) as error:
        return outcome.with_unmet_condition(f"no rows to check: {error.problem}")
    except OxenTransientError as error:
        return outcome.with_unread_results(OutcomeReason.UNREACHABLE, error)
    except OxenError as error:
        return outcome.with_unread_results(OutcomeReason.REFUSED, error)
    except Exception as error:  # noqa: BLE001  # the callable may be any code
        # Its text may hold cells.
        may_show = all(getattr(condition, "show_rows", True) for condition in conditions)
        shown = type(error).__name__ + (f": {rows.redact(str(error))}" if may_show else "")
        # Not as Python prints it: its text may be the hub's, whose line breaks would forge lines of the log.
        frames = "".join(traceback.format_tb(error.__traceback__))
        log.error("A condition raised %s, in:\n%s", one_line(shown), frames)  # noqa: TRY400
        return outcome.with_failed_condition(shown)


class _Rows:
    """
    The rows of an evaluation's results, and how many its source has.

    :param outcome: of the completed evaluation, with its results as far as the evaluation names them.
    """

    def __init__(
        self,
        hook: OxenHook,
        evaluation: Evaluation,
        outcome: Outcome,
        retry_window: timedelta | float | None,
        log: TaskLogger,
    ) -> None:
        self._hook = hook
        self._evaluation = evaluation
        self._hub = outcome.hub
        self._retry_window = _RETRY_WINDOW_SECONDS if retry_window is None else retry_window
        self._log = log
        self.judged = outcome.results or JudgedResults()
        #: Hides the key in a text, which only what has seen the rows can hold.
        self.redact: Callable[[str], str] = str

    @contextmanager
    def open(self) -> Iterator[Table]:
        """Download the results and open them. They are gone afterwards."""
        config = self._hook.get_config()
        if self._hub is not None and config.base_url != self._hub:
            raise OxenConfigError(
                f"leads to {config.base_url} now, but the evaluation was polled at {self._hub}",
                field="host",
                conn_id=self._hook.oxen_conn_id,
            )
        self.redact = partial(redact, secret=config.api_key)
        with tempfile.TemporaryDirectory(prefix="oxen-results-") as directory:
            downloaded = self._hook.download_results(
                self._evaluation, directory, max_bytes=_MAX_BYTES, retry_window=self._retry_window
            )
            self.judged = JudgedResults(downloaded.path, downloaded.version)
            suffix = Path(downloaded.path).suffix
            with open_table(downloaded.file, suffix, redact=self.redact) as table:
                self.judged = replace(self.judged, rows=table.row_count)
                yield table

    def count_source(self) -> int | None:
        """
        Ask the hub how many rows the source has, as it was evaluated; None where the hub does not report it.

        That is also where the results overwrote the source on its branch, and no commit of the source is known.
        """
        evaluation = self._evaluation
        path, version = (evaluation.resource or {}).get("path"), evaluation.source_version
        if evaluation.namespace is None or evaluation.repo_name is None or not path or not version:
            return None
        is_target = path == evaluation.results_path and evaluation.target_branch in (None, version)
        if is_target and not evaluation.commit_id:  # the results would be compared with themselves
            return None
        retries: Retries | None = None
        while True:
            try:
                return self._hook.get_file_meta(evaluation.namespace, evaluation.repo_name, version, path).rows
            except OxenTransientError as error:
                retries = retries or Retries(self._retry_window, self._log)
                if not retries.sleep(error, f"Could not count the rows of the source, {one_line(path)}"):
                    raise
