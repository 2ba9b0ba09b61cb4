"""The addresses of a local evaluation's links, as the public hub shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_oxen.testing import LocalHub

_START = "https://www.oxen.ai/ox/customer-intents"

#: The names of the links, in the order in which a task's page shows them.
NAMES = ["Evaluation on Oxen", "Source data on Oxen", "Results on Oxen"]
#: The addresses by XCom key, for an evaluation without an id, of which no results are committed yet.
ADDRESSES = {
    "_link_OxenEvaluationLink": f"{_START}/evaluations/",
    "_link_OxenSourceDataLink": f"{_START}/file/0123456789abcdef/data/customers.parquet",
    "_link_OxenResultsLink": f"{_START}/file/main/data/intents.parquet",
}


def addresses_of(hub: LocalHub, evaluation_id: str, *, closed: bool = True) -> dict[str, str]:
    """
    Return the addresses of an evaluation's links.

    :param closed: with its results at the commit that holds them, where there is one by now.
    """
    commit = hub.status_of(evaluation_id)["closing_commit"]
    version = commit["id"] if closed and commit else "main"
    return {
        "_link_OxenEvaluationLink": f"{_START}/evaluations/{evaluation_id}",
        "_link_OxenSourceDataLink": ADDRESSES["_link_OxenSourceDataLink"],
        "_link_OxenResultsLink": f"{_START}/file/{version}/data/intents.parquet",
    }
