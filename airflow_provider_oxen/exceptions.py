"""
What can go wrong between a task and the Oxen hub, with a class for each kind.

::

    OxenError
    ├─ OxenConfigError                  a setting or an argument is wrong: raised before any request
    └─ OxenRequestError                 a request did not bring what was asked for
       ├─ OxenTransientError            asking again may help
       │  ├─ OxenUnreachableError       refused, reset, not resolved, timed out
       │  ├─ OxenRateLimitError         429
       │  ├─ OxenServerError            5xx, 408, or an error inside a 200
       │  └─ OxenInvalidResponseError   not the contract: HTML, cut off, too large, another evaluation
       ├─ OxenUnknownEffectError        sent once and not repeated: whether it took effect is not known
       └─ OxenPermanentError            asking again cannot help
          ├─ OxenAuthenticationError    401, 403
          ├─ OxenPaymentRequiredError   402
          ├─ OxenNotFoundError          404
          ├─ OxenBadRequestError        any other 4xx, or a redirect
          ├─ OxenNoResultsError         the evaluation has no results to read
          └─ OxenFileTooLargeError      a file has more bytes than its reader allows

None of them is an Airflow exception: what a failure means for a task is decided in ``reactions`` for a wait, and in
``start`` for a start.
"""

from __future__ import annotations

__all__ = [
    "OxenAuthenticationError",
    "OxenBadRequestError",
    "OxenConfigError",
    "OxenError",
    "OxenFileTooLargeError",
    "OxenInvalidResponseError",
    "OxenNoResultsError",
    "OxenNotFoundError",
    "OxenPaymentRequiredError",
    "OxenPermanentError",
    "OxenRateLimitError",
    "OxenRequestError",
    "OxenServerError",
    "OxenTransientError",
    "OxenUnknownEffectError",
    "OxenUnreachableError",
]


class OxenError(Exception):
    """Anything this provider raises on its own account."""


class OxenConfigError(OxenError, ValueError):
    """
    A setting of a connection, or an argument of a call, cannot be used.

    :param problem: what is wrong and how to fix it, without the value of any secret.
    :param field: the field or argument to fix, by the name that users know.
    :param conn_id: the Airflow connection it belongs to; None for an argument.
    """

    def __init__(self, problem: str, *, field: str, conn_id: str | None = None) -> None:
        self.problem = problem
        self.field = field
        self.conn_id = conn_id
        place = f"connection {conn_id!r}, field {field!r}" if conn_id else f"argument {field!r}"
        super().__init__(f"{place}: {problem}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), (self.problem,), {"field": self.field, "conn_id": self.conn_id})


class OxenRequestError(OxenError):
    """
    A request to the hub did not bring back what was asked for.

    :param problem: what happened and what to do about it.
    :param request: method and path, for instance ``GET /api/authorize``; never a header, never the key.
    :param status_code: HTTP status code, or None where no response came.
    :param request_id: the hub's own id of the request (header ``x-oxen-request-id``), which Oxen's support asks for.
    :param hub_message: the hub's own words, or None.
    """

    def __init__(
        self,
        problem: str,
        *,
        request: str = "",
        status_code: int | None = None,
        request_id: str | None = None,
        hub_message: str | None = None,
    ) -> None:
        self.problem = problem
        self.request = request
        self.status_code = status_code
        self.request_id = request_id
        self.hub_message = hub_message
        super().__init__(problem)

    def __str__(self) -> str:
        text = self.problem
        if self.hub_message:
            stop = "" if text.endswith((".", "!", "?")) else "."
            text = f"{text}{stop} The hub says: {self.hub_message.rstrip('.')}."
        request_id = f"request id {self.request_id}" if self.request_id else ""
        origin = ", ".join(part for part in (self.request, request_id) if part)
        return f"{text.removesuffix('.')} ({origin})" if origin else text

    def __reduce__(self) -> tuple[object, ...]:
        named = {name: value for name, value in vars(self).items() if name not in ("problem", "__notes__")}
        return _rebuild, (type(self), (self.problem,), named)


class OxenTransientError(OxenRequestError):
    """
    Asking again may help.

    :param retry_after_seconds: how long the hub asked clients to wait, or None where it did not say.
    """

    def __init__(self, problem: str, *, retry_after_seconds: float | None = None, **named: object) -> None:
        super().__init__(problem, **named)  # type: ignore[arg-type]  # the names are OxenRequestError's
        self.retry_after_seconds = retry_after_seconds


class OxenUnreachableError(OxenTransientError):
    """
    No response came: refused, reset, name not resolved, or timed out.

    :param is_setting: whether a setting is the likely cause, where this happens at the first request: a name that does
        not resolve, TLS spoken to a port that has none, a certificate that is not trusted (but for one that is out of
        date), or a proxy that asks for a login.
    """

    def __init__(self, problem: str, *, is_setting: bool = False, **named: object) -> None:
        super().__init__(problem, **named)  # type: ignore[arg-type]  # the names are OxenTransientError's
        self.is_setting = is_setting


class OxenRateLimitError(OxenTransientError):
    """The hub asked for fewer requests (429)."""


class OxenServerError(OxenTransientError):
    """The hub, or a proxy in front of it, failed (5xx, 408, or an error inside a 200)."""


class OxenInvalidResponseError(OxenTransientError):
    """A response came that is not the contract's: HTML, cut off, too large, or about another evaluation."""


class OxenUnknownEffectError(OxenRequestError):
    """
    A call that must not be repeated was sent, and no usable response came back.

    Whether it took effect is not known: the hub may have done what was asked. A call that was not sent at all raises
    :class:`OxenUnreachableError` instead, and one that the hub refused an :class:`OxenPermanentError` or an
    :class:`OxenRateLimitError`. Most other 3xx and 4xx that are not the hub's JSON leave it open as well.
    """


class OxenPermanentError(OxenRequestError):
    """Asking again cannot help: a person has to change something first."""


class OxenAuthenticationError(OxenPermanentError):
    """The hub does not accept the API key (401), or the key may not see this (403)."""


class OxenPaymentRequiredError(OxenPermanentError):
    """The account has no credits left (402): a person has to add some."""


class OxenNotFoundError(OxenPermanentError):
    """The hub knows no such thing (404): a name or an id is wrong, or it was deleted."""


class OxenBadRequestError(OxenPermanentError):
    """The hub refused the request (any other 4xx), or pointed elsewhere (3xx), which is never followed."""


class OxenNoResultsError(OxenPermanentError):
    """The evaluation has not completed, or its results were not committed: there is no file to read."""


class OxenFileTooLargeError(OxenPermanentError):
    """A file of the hub has more bytes than ``max_bytes`` allows."""


def _rebuild(kind: type[OxenError], args: tuple[object, ...], named: dict[str, object]) -> OxenError:
    """Make an error again after pickling, which passes positional arguments only."""
    return kind(*args, **named)
