"""What the ready-made conditions on rows have in common. They are in ``measuring``, imported when one is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from airflow_provider_oxen.conditions.sentences import describe_columns
from airflow_provider_oxen.tables import TableError

if TYPE_CHECKING:
    from airflow_provider_oxen.evaluations import Evaluation
    from airflow_provider_oxen.tables import Table

__all__ = ["Measured", "RefusedError", "RowCondition", "build_fact"]


class Measured(NamedTuple):
    """What a condition found: a fact to store, and why it is not met. None: it is met."""

    fact: dict[str, Any]
    unmet: str | None


def build_fact(
    name: str, *, holds: bool, share: float | None = None, rows: int | None = None, of: int | None = None
) -> dict[str, Any]:
    """Build what is stored of one condition. What does not apply is None."""
    return {"condition": name, "share": share, "rows": rows, "of": of, "holds": holds}


class RowCondition:
    """A ready-made condition on the rows of the results."""

    factory: ClassVar[str]
    #: Whether the message may show rows that break the condition.
    show_rows: bool = True

    def measure(self, evaluation: Evaluation, table: Table, source_rows: Callable[[], int | None]) -> Measured:
        """
        Measure the condition. What can never be checked is not met.

        :param source_rows: gives how many rows the evaluation's source has; None where the hub does not report it.
        """
        try:
            name = self.describe(evaluation)
            if table.row_count == 0:
                # The same for each condition, so that it is said once.
                fact = build_fact(name, holds=False, rows=0, of=0)
                return Measured(fact, f"the results have no rows; {describe_columns(table)}")
            return self._measure(name, evaluation, table, source_rows)
        except RefusedError as error:
            return self.refuse(evaluation, str(error))
        except TableError as error:
            detail = error.describe(show=self.show_rows).rstrip(".!")  # the sentence goes on
            return self.refuse(evaluation, f"{detail}; {describe_columns(table, with_types=True)}")

    def refuse(self, evaluation: Evaluation, why: str) -> Measured:
        """Make what is found where the condition cannot be checked."""
        name = self.describe(evaluation)
        return Measured(build_fact(name, holds=False), f"{name} cannot be checked: {why}")

    def describe(self, evaluation: Evaluation) -> str:
        """Say in few words what has to hold. What is stored of the condition has this name."""
        raise NotImplementedError

    def _measure(
        self, name: str, evaluation: Evaluation, table: Table, source_rows: Callable[[], int | None]
    ) -> Measured:
        raise NotImplementedError

    def __repr__(self) -> str:
        from dataclasses import fields

        given: dict[str, Any] = {}
        for field in fields(self):  # type: ignore[arg-type]  # each of them is a dataclass
            value = getattr(self, field.name)
            if value != field.default:
                given |= getattr(value, "arguments", {field.name: value})  # a limit has several
        return f"{self.factory}({', '.join(f'{name}={value!r}' for name, value in given.items())})"


class RefusedError(Exception):
    """A condition can never be checked. Its text says why."""
