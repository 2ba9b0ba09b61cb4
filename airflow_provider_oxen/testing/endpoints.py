"""What a request to the hub goes through on its way to an endpoint, and back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

from aiohttp import web

from airflow_provider_oxen.testing.envelope import build_error
from airflow_provider_oxen.testing.exchange import Effect, Exchange, HubRequest, HubResponse

__all__ = ["Endpoint", "FindEffects", "Handler", "build_handler", "with_key"]

#: Makes the response to a request. The second argument holds what the names in the endpoint's path stand for.
Endpoint: TypeAlias = Callable[[HubRequest, Mapping[str, str]], HubResponse]
#: Finds what acts on a request to an endpoint. Called once for each request, as soon as all of it has arrived.
FindEffects: TypeAlias = Callable[[HubRequest, Mapping[str, str]], Sequence[Effect]]
Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


def with_key(endpoint: Endpoint, get_key: Callable[[], str]) -> Endpoint:
    """
    Let an endpoint respond only to requests with the hub's API key.

    :param endpoint: the endpoint.
    :param get_key: returns the key. Called for each request.
    """

    def checked(request: HubRequest, names: Mapping[str, str]) -> HubResponse:
        if request.headers.get("authorization") != f"Bearer {get_key()}":
            return build_error(401, "unauthorized", "API key invalid")
        return endpoint(request, names)

    return checked


def build_handler(endpoint: Endpoint, find_effects: FindEffects, record: Callable[[HubRequest], str]) -> Handler:
    """
    Serve an endpoint, with what may go wrong with requests to it.

    :param endpoint: the endpoint.
    :param find_effects: finds what goes wrong with a request.
    :param record: adds a request to the hub's list, and returns the request id for its response.
    """

    async def handle(incoming: web.Request) -> web.StreamResponse:
        at, names = asyncio.get_running_loop().time(), incoming.match_info
        headers = {name.lower(): value for name, value in incoming.headers.items()}
        request = HubRequest(at, incoming.method, incoming.raw_path, headers, await incoming.read())
        exchange = Exchange(
            request,
            incoming=incoming,
            make_response=lambda: endpoint(request, names),
            record=record,
            effects=find_effects(request, names),
        )
        return await exchange.proceed()

    return handle
