"""
Links on a task's page in Airflow: pages on Oxen.ai that a person opens from there.

They are there once the evaluation was first seen, so also while a gate still waits, and they stay when it has ended.
A link is stored in an XCom of its task instance, each under a key of its own. Airflow 3 writes it itself when a task's
process ends, by asking :meth:`OxenLink.get_link` there; elsewhere the gate and the trigger write it. Airflow's web
server reads it, and has only the key of the task instance to find it by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_oxen.airflow_names import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

    from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef

__all__ = ["LINKS", "OxenEvaluationLink", "OxenLink", "OxenResultsLink", "OxenSourceDataLink", "build_addresses"]


class OxenLink(BaseOperatorLink):
    """What the links have in common."""

    @property
    def xcom_key(self) -> str:
        """The XCom that holds the address."""
        from airflow_provider_oxen.storage_compat import link_key

        return link_key(self)

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """
        Find the address.

        :param operator: the task. Where it has seen its evaluation, it knows the address.
        :param ti_key: which task instance is meant, a mapped one as well.
        :return: the address; empty where there is none, or none is known yet.
        """
        known: dict[str, str] | None = getattr(operator, "link_addresses", None)
        if known is not None:
            return known[self.xcom_key]
        from airflow_provider_oxen.storage_compat import link_xcoms

        return str(link_xcoms().get_value(ti_key=ti_key, key=self.xcom_key) or "")


class OxenEvaluationLink(OxenLink):
    """The evaluation's own page."""

    name = "Evaluation on Oxen"


class OxenSourceDataLink(OxenLink):
    """The file whose rows are evaluated, at the version that is evaluated."""

    name = "Source data on Oxen"


class OxenResultsLink(OxenLink):
    """The file that the results are written to. It may not exist before they are."""

    name = "Results on Oxen"


#: All links of a task, in the order in which its page shows them.
LINKS = (OxenEvaluationLink(), OxenSourceDataLink(), OxenResultsLink())


def build_addresses(ref: EvaluationRef, evaluation: Evaluation, hub: str | None) -> dict[str, str]:
    """
    Build the addresses of all links.

    :param hub: address of the hub that the evaluation came from.
    :return: by the XCom key of each link its address; empty where there is none.
    """
    from airflow_provider_oxen.links.addresses import evaluation_url, results_url, source_url

    urls = (evaluation_url(ref, hub), source_url(ref, evaluation, hub), results_url(ref, evaluation, hub))
    return {link.xcom_key: url or "" for link, url in zip(LINKS, urls, strict=True)}
