"""The error tree: its drawing, what an error says, and its way through pickle."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

from airflow_provider_oxen import exceptions
from airflow_provider_oxen.exceptions import (
    OxenConfigError,
    OxenError,
    OxenPermanentError,
    OxenRequestError,
    OxenTransientError,
    OxenUnknownEffectError,
)

CLASSES = {name: getattr(exceptions, name) for name in exceptions.__all__}
REQUEST_ERRORS = [kind for kind in CLASSES.values() if issubclass(kind, OxenRequestError)]


def _request_error(kind: type[OxenRequestError]) -> OxenRequestError:
    named = {"request": "GET /api/authorize", "status_code": 503, "request_id": "r-1", "hub_message": "busy"}
    if issubclass(kind, OxenTransientError):
        named["retry_after_seconds"] = 7.5
    return kind("it broke.", **named)


def _errors() -> list[OxenError]:
    config_error = OxenConfigError("is empty", field="password", conn_id="oxen_default")
    return [OxenError("plain"), config_error, *map(_request_error, REQUEST_ERRORS)]


def test_drawing_is_the_tree_of_classes() -> None:
    """The tree drawn in the module's docstring has every class, each below the one it inherits from."""
    drawn: dict[str, str | None] = {}
    path: list[str] = []
    for branch, name in re.findall(r"^ {4}([│├└─ ]*)(Oxen\w+)", exceptions.__doc__ or "", flags=re.MULTILINE):
        depth = len(branch) // 3
        path = [*path[:depth], name]
        drawn[name] = path[depth - 1] if depth else None

    inherited = {
        name: next((base.__name__ for base in kind.__mro__[1:] if base.__name__ in CLASSES), None)
        for name, kind in CLASSES.items()
    }

    assert drawn == inherited


def test_all_names_every_class_of_the_module() -> None:
    """Every public class is in ``__all__``, which is sorted."""
    public = [name for name, value in vars(exceptions).items() if isinstance(value, type) and name[0] != "_"]

    assert sorted(public) == exceptions.__all__


def test_config_error_is_a_value_error() -> None:
    """Code that checks arguments may catch a wrong setting as a ValueError."""
    assert issubclass(OxenConfigError, ValueError)


def test_config_error_names_connection_and_field() -> None:
    """The message of a wrong connection begins with its id and the field to fix."""
    error = OxenConfigError("is empty", field="password", conn_id="oxen_default")

    assert str(error) == "connection 'oxen_default', field 'password': is empty"


def test_config_error_without_a_connection_names_the_argument() -> None:
    """The message of a wrong argument names the argument."""
    assert str(OxenConfigError("is empty", field="namespace")) == "argument 'namespace': is empty"


@pytest.mark.parametrize("kind", REQUEST_ERRORS)
def test_request_error_begins_with_the_problem(kind: type[OxenRequestError]) -> None:
    """A request's error says what happened, then the hub's words, then the request and its id in parentheses."""
    assert str(_request_error(kind)) == "it broke. The hub says: busy (GET /api/authorize, request id r-1)"


def test_request_error_says_only_what_is_known() -> None:
    """Parts that are not known leave no trace in the message."""
    assert str(OxenRequestError("it broke.")) == "it broke."
    assert str(OxenRequestError("it broke.", request="GET /x")) == "it broke (GET /x)"
    assert str(OxenRequestError("it broke.", request_id="r-1")) == "it broke (request id r-1)"
    assert str(OxenRequestError("it broke.", hub_message="busy")) == "it broke. The hub says: busy."


def test_unknown_effect_is_neither_transient_nor_permanent() -> None:
    """Code that asks again after a transient error must not repeat a call that may have taken effect."""
    assert not issubclass(OxenUnknownEffectError, (OxenTransientError, OxenPermanentError))


def test_errors_to_repeat_and_errors_to_correct_are_different() -> None:
    """No error is both transient and permanent."""
    assert not [
        kind for kind in REQUEST_ERRORS if issubclass(kind, OxenTransientError) and issubclass(kind, OxenPermanentError)
    ]


@pytest.mark.parametrize("through", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])  # noqa: S301
@pytest.mark.parametrize("error", _errors(), ids=lambda error: type(error).__name__)
def test_error_survives_pickle_and_copy(error: OxenError, through) -> None:
    """An error that crossed a process border has the same class, text and fields."""
    again = through(error)

    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("kind", [OxenRequestError, OxenTransientError])
def test_error_with_a_note_survives_pickle(kind: type[OxenRequestError]) -> None:
    """A note, which any code an error passes through may add, does not keep it from being pickled."""
    error = _request_error(kind)
    error.add_note("seen while testing")

    again = pickle.loads(pickle.dumps(error))  # noqa: S301

    assert (type(again), str(again)) == (type(error), str(error))
