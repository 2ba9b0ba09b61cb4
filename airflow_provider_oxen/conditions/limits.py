"""How many rows there have to be, or may be: read from arguments, compared exactly, never rounded to the limit."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

__all__ = ["Limit", "parse_limit"]


@dataclass(frozen=True)
class Limit:
    """A share or a number of rows, by its least and its most. None: no limit."""

    at_least: float | None = None
    at_most: float | None = None
    rows: tuple[int | None, int | None] = (None, None)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that it was read from."""
        least, most = self.rows
        rows = None if least is None and most is None else least if least == most else self.rows
        written = {"at_least": self.at_least, "at_most": self.at_most, "rows": rows}
        return {name: value for name, value in written.items() if value is not None}

    def is_missed(self, rows: int, of: int) -> bool:
        """Check whether these are too few rows. A share is compared as it is written: 0.95 is 95 of 100."""
        least = self.rows[0] or 0 if self.at_least is None else _exact(self.at_least) * of
        return rows < least

    def is_exceeded(self, rows: int, of: int) -> bool:
        """Check whether these are too many."""
        most = self.rows[1] if self.at_most is None else _exact(self.at_most) * of
        return most is not None and rows > most

    def describe_found(self, rows: int, of: int) -> str:
        """Write how many rows there are. The share has as many digits as it takes to tell it from the limit."""
        found = f"{rows:,} of {of:,} rows"
        share = self.at_least if self.at_most is None else self.at_most
        if share is None:
            return found
        exact, limit = Decimal(rows) * 100 / of, _exact(share) * 100
        shown = exact
        for digits in range(1, 25):
            shown = round(exact, digits)
            if (shown < limit, shown > limit) == (exact < limit, exact > limit):
                break
        return f"{found} ({_percent(shown)})"

    def describe_needed(self) -> str:
        """Write how many there have to be, or may be."""
        least, most = self.rows
        if self.at_least is not None:
            return (
                "all rows are needed" if self.at_least == 1 else f"at least {_percent(self.at_least, 100)} are needed"
            )
        if self.at_most == 0 or most == 0:
            return "no row is allowed"
        if self.at_most is not None:
            return f"at most {_percent(self.at_most, 100)} are allowed"
        if most is None:
            return f"at least {least:,} are needed"
        if not least:
            return f"at most {most:,} are allowed"
        return f"exactly {most:,} are needed" if least == most else f"{least:,} to {most:,} are needed"


def parse_limit(factory: str, *, at_least: Any = None, at_most: Any = None, rows: Any = None) -> Limit:
    """
    Read the arguments of a condition that say how many rows there have to be.

    :raises ValueError: one is no share or no number of rows, or not one is given.
    """
    if sum(given is not None for given in (at_least, at_most, rows)) != 1:
        raise ValueError(f"{factory} takes one of at_least, at_most and rows, such as at_least=0.95")
    if at_least is not None and not (_is_number(at_least, float) and 0 < at_least <= 1):
        raise ValueError(
            f"{factory}: at_least is a share of the rows, above 0 and up to 1, but is {at_least!r}. "
            "For a number of rows, write rows=(5, None)"
        )
    if at_most is not None and not (_is_number(at_most, float) and 0 <= at_most < 1):
        raise ValueError(
            f"{factory}: at_most is a share of the rows, from 0 and below 1, but is {at_most!r}. "
            "For a number of rows, write rows=(None, 5)"
        )
    return Limit(at_least, at_most, _parse_rows(factory, rows))


def _parse_rows(factory: str, rows: Any) -> tuple[int | None, int | None]:
    if rows is None:
        return None, None
    pair = tuple(rows) if isinstance(rows, (tuple, list)) else (rows, rows)
    if len(pair) == 2 and pair != (None, None) and all(one is None or _is_number(one, int) for one in pair):
        least, most = pair
        if (least or 0) >= 0 and (most is None or most >= (least or 0)) and (least, most) != (0, None):
            return least, most
    raise ValueError(
        f"{factory}: rows is a number of rows, or the least and the most such as (5, 10), (5, None) or (None, 10), "
        f"but is {rows!r}"
    )


def _is_number(value: Any, kind: type) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, kind))


def _exact(share: float) -> Decimal:
    return Decimal(str(share))


def _percent(value: float | Decimal, times: int = 1) -> str:
    return f"{(Decimal(str(value)) * times).normalize():f} %"
