"""
Links on a task: pages on Oxen.ai that a person opens from the task's page in Airflow.

They are there once the evaluation was first seen, so for a gate that still waits, too, and stay whatever becomes of it.
A link stands in an XCom of its task instance, each under a key of its own. Airflow 3 writes that itself when a task's
process ends, by asking :meth:`OxenLink.get_link` there; elsewhere the sensor and the trigger write it. Airflow's web
server reads it, with no more at hand than the key of the task instance.

Only addresses that the vendor uses itself are made: those of a file, on the public hub. On any other hub there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow_provider_oxen.models import Evaluation, EvaluationRef

__all__ = ["LINKS", "OxenLink", "OxenResultsLink", "OxenSourceDataLink", "read_addresses"]


class OxenLink(BaseOperatorLink):
    """What the links have in common."""

    @property
    def xcom_key(self) -> str:
        """The XCom that holds the address. Airflow 3's own name for it; Airflow 2 has none."""
        return f"_link_{type(self).__name__}"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """
        Find the address.

        :param operator: the sensor. Where it has looked at its evaluation, it knows the address.
        :param ti_key: which task instance is meant, a mapped one as well.
        :return: the address; empty where there is none, or none is known yet.
        """
        known: dict[str, str] | None = getattr(operator, "link_addresses", None)
        if known is not None:
            return known[self.xcom_key]
        from airflow_provider_oxen.version_compat import link_xcoms

        return str(link_xcoms().get_value(ti_key=ti_key, key=self.xcom_key) or "")


class OxenSourceDataLink(OxenLink):
    """The file whose rows are evaluated, at the version that is."""

    name = "Source data on Oxen"


class OxenResultsLink(OxenLink):
    """The file that the results are written to, at the target branch. It may not be there before they are."""

    name = "Results on Oxen"


#: All links of a gate.
LINKS = (OxenSourceDataLink(), OxenResultsLink())


def read_addresses(ref: EvaluationRef, evaluation: Evaluation, hub: str | None) -> dict[str, str]:
    """
    Read the addresses out of an evaluation.

    :param hub: address of the hub that told of it.
    :return: for the XCom key of each link its address; empty where there is none.
    """
    from airflow_provider_oxen import report

    source, results = LINKS
    return {
        source.xcom_key: report.source_url(ref, evaluation, hub) or "",
        results.xcom_key: report.results_url(ref, evaluation, hub) or "",
    }
