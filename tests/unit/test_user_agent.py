"""The User-Agent, checked with the rule by which the vendor's server refuses clients."""

from __future__ import annotations

import re

import pytest

from airflow_provider_oxen.transport import build_user_agent

OLDEST_CLIENT = (0, 36, 0)


def _is_refused(user_agent: str) -> bool:
    """
    Check whether the open-source Oxen server responds with 426 Upgrade Required.

    Its rule: an agent with "oxen" in it, in any case, is an Oxen client, unless it has "Postman" in it. The second of
    the parts between slashes begins with the client's version. A version that is missing or too old is refused.
    """
    if "oxen" not in user_agent.lower() or "Postman" in user_agent:
        return False
    parts = user_agent.split("/")
    version = re.match(r"^\d+\.\d+\.\d+", parts[1]) if len(parts) > 1 else None
    return version is None or tuple(map(int, version[0].split("."))) < OLDEST_CLIENT


@pytest.mark.parametrize(
    "airflow_version",
    [
        *("2.11.0", "2.11.1", "2.11.2"),
        *("3.0.0", "3.0.6", "3.1.0", "3.1.8", "3.2.0", "3.2.2", "3.3.0", "3.3.1", "3.3.2"),
        *("3.3.2+astro.1", "3.4.0.dev0", "3.4.0rc1"),
    ],
)
def test_agent_is_not_taken_for_an_old_client(airflow_version: str) -> None:
    """On each Airflow, the agent names Airflow and this provider in a form that the server accepts."""
    user_agent = build_user_agent(airflow_version)

    assert re.fullmatch(rf"Apache-Airflow/{re.escape(airflow_version)} airflow-provider-oxen/\d+\.\d+\.\S+", user_agent)
    assert not _is_refused(user_agent)


@pytest.mark.parametrize(
    ("user_agent", "refused"),
    [
        ("airflow-provider-oxen/0.1.0", True),
        ("airflow-provider-oxen/0.1.0 Apache-Airflow/3.3.2", True),
        ("Oxen", True),
        ("Oxen/latest", True),
        ("Oxen/0.35.9", True),
        ("Oxen/0.36.0", False),
        ("Oxen/0.1.0 Postman", False),
        ("curl/8.0", False),
    ],
)
def test_rule_refuses_old_clients(user_agent: str, refused: bool) -> None:
    """The rule refuses the agent that this provider had, and lets others pass."""
    assert _is_refused(user_agent) is refused
