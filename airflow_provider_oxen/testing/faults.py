"""
What goes wrong between a client and the hub.

A :class:`Fault` says which requests it happens to. Its effect, from ``effects.py``, says what happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_oxen.testing.exchange import Effect

__all__ = ["Fault", "FaultList", "check_faults", "find_fault"]


@dataclass(frozen=True)
class Fault:
    """
    Something that goes wrong with some of the requests of one kind: for an evaluation, to start one, for a file, or for
    a file's metadata.

    :param what: what happens: one of the effects above, or an object of your own that has their method ``act``.
    :param first: number of the first request it happens to, counted from 1.
    :param count: how many requests it happens to; None: all from the first on.
    """

    what: Effect
    first: int = 1
    count: int | None = None

    def __post_init__(self) -> None:
        """Refuse at once what the hub could not do when it gets the request."""
        if isinstance(self.what, type) or not hasattr(self.what, "act"):
            raise ValueError(f"what must be an effect, such as Respond(503), but is {self.what!r}")
        if self.first < 1:
            raise ValueError(f"first must be 1 or more: requests are counted from 1, but first is {self.first!r}")

    def applies_to(self, request_number: int) -> bool:
        """
        Say whether it happens to a request.

        :param request_number: number of the request, counted from 1.
        """
        return request_number >= self.first and (self.count is None or request_number < self.first + self.count)


def check_faults(name: str, faults: Sequence[Fault]) -> None:
    """
    Refuse anything but a list of faults.

    :param name: what the list is called.
    :param faults: the list.
    :raises ValueError: it is none.
    """
    if isinstance(faults, Fault) or not all(isinstance(fault, Fault) for fault in faults):
        raise ValueError(f"{name} must be a list or tuple of Fault, but is {faults!r}")


def find_fault(faults: Sequence[Fault], request_number: int) -> Fault | None:
    """
    Find the first fault that happens to a request; None if none does.

    :param faults: what goes wrong.
    :param request_number: number of the request, counted from 1.
    """
    return next((fault for fault in faults if fault.applies_to(request_number)), None)


class FaultList:
    """
    What goes wrong with requests of one kind. They are counted from 1, from when this is set.

    :param name: what users call the list.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._requests = 0
        self.faults: Sequence[Fault] = ()

    def set(self, faults: Sequence[Fault]) -> None:
        """
        Replace the faults, and count requests from 1 again.

        :raises ValueError: this is no list of faults.
        """
        check_faults(self._name, faults)
        self.faults, self._requests = tuple(faults), 0

    def next_effects(self) -> Sequence[Effect]:
        """Count a request, and list what happens to it: the first fault that applies, or nothing."""
        self._requests += 1
        fault = find_fault(self.faults, self._requests)
        return [fault.what] if fault else []
