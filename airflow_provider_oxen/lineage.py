"""
Lineage: what OpenLineage is told about a gate's evaluation when its task ends.

OpenLineage is optional (``pip install "airflow-provider-oxen[openlineage]"``), so all of it is imported where it is
used: only Airflow's OpenLineage provider calls this, and only where it is installed and has somewhere to send events.

A dataset is named as the asset of the same file is: namespace ``oxen://host``, name ``namespace/repo_name/path``. Its
version is no part of the name; it stands in the dataset's ``version`` facet.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_oxen import report
from airflow_provider_oxen.models import EvaluationStatus
from airflow_provider_oxen.wait import Outcome, OutcomeReason

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import Dataset

    from airflow_provider_oxen.models import EvaluationRef

__all__ = ["RUN_FACET", "describe_run", "make_dataset"]

#: Key of the run facet that holds the evaluation.
RUN_FACET = "oxen_evaluation"


def describe_run(ref: EvaluationRef, outcome: Outcome) -> OperatorLineage[Any, Any]:
    """
    Describe the end of a wait to OpenLineage, be it good or bad.

    :return: as input the source data at its version; as output the results at the target branch, with the rows written
        where there are any; the run facet ``oxen_evaluation`` (outcome, status, model, rows, tokens, credits, the hub's
        error message, under the contract's names); and, where the gate stayed shut, ``errorMessage`` with the words the
        task failed with. Datasets that the hub did not name are left out.
    """
    from airflow.providers.common.compat.openlineage.facet import ErrorMessageRunFacet
    from airflow.providers.openlineage.extractors import OperatorLineage

    run_facets: dict[str, Any] = {RUN_FACET: _describe_evaluation(ref, outcome)}
    if outcome.reason is not OutcomeReason.COMPLETED:
        message = report.describe_outcome(ref, outcome)
        run_facets["errorMessage"] = ErrorMessageRunFacet(message=message, programmingLanguage="python")
    return OperatorLineage(inputs=_inputs(ref, outcome), outputs=_outputs(ref, outcome), run_facets=run_facets)


def make_dataset(host: str, namespace: str, repo_name: str, path: str, version: str | None) -> Dataset:
    """
    Make the dataset of a file in a repository.

    :param host: the hub, with its port where it is not the scheme's own.
    :param version: branch or commit; None where there is none in particular.
    """
    from openlineage.client.event_v2 import Dataset
    from openlineage.client.facet_v2 import dataset_version_dataset

    facets: dict[str, Any] = {}
    if version is not None:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=version)
    name = f"{namespace}/{repo_name}/{path.strip('/')}"
    return Dataset(namespace=f"oxen://{host}", name=name, facets=facets)


def _inputs(ref: EvaluationRef, outcome: Outcome) -> list[Any]:
    from openlineage.client.event_v2 import InputDataset

    resource = (outcome.evaluation and outcome.evaluation.resource) or {}
    dataset = _dataset(ref, outcome, resource.get("path"), resource.get("version"))
    return [] if dataset is None else [InputDataset(dataset.namespace, dataset.name, facets=dataset.facets)]


def _outputs(ref: EvaluationRef, outcome: Outcome) -> list[Any]:
    from airflow.providers.common.compat.openlineage.facet import OutputStatisticsOutputDatasetFacet
    from openlineage.client.event_v2 import OutputDataset

    evaluation = outcome.evaluation
    if evaluation is None:
        return []
    dataset = _dataset(ref, outcome, evaluation.target_path, evaluation.target_branch)
    if dataset is None:
        return []
    written: dict[str, Any] = {}
    # Rows that were processed are written when the evaluation completes, and not before.
    if evaluation.status == EvaluationStatus.COMPLETED and evaluation.progress.processed is not None:
        written["outputStatistics"] = OutputStatisticsOutputDatasetFacet(rowCount=evaluation.progress.processed)
    return [OutputDataset(dataset.namespace, dataset.name, facets=dataset.facets, outputFacets=written)]


def _dataset(ref: EvaluationRef, outcome: Outcome, path: str | None, version: str | None) -> Dataset | None:
    if not path or outcome.hub is None:
        return None
    return make_dataset(urlsplit(outcome.hub).netloc, ref.namespace, ref.repo_name, path, version)


def _describe_evaluation(ref: EvaluationRef, outcome: Outcome) -> Any:
    told = {} if outcome.evaluation is None else outcome.evaluation.to_dict()
    facet = _run_facet_class()
    return facet(
        evaluation_id=ref.evaluation_id,
        outcome=str(outcome.reason),
        hub=outcome.hub,
        **{name: told.get(name) for name in _FROM_EVALUATION},
    )


#: What of an evaluation is told, under the contract's own names.
_FROM_EVALUATION = (
    "status",
    "name",
    "model",
    "progress",
    "prompt_tokens_used",
    "completion_tokens_used",
    "tokens_used",
    "credits_used",
    "target_column",
    "error_message",
)


@cache
def _run_facet_class() -> Any:
    """Make the class of the run facet, whose base is OpenLineage's."""
    import attrs
    from openlineage.client.facet_v2 import RunFacet

    fields = {name: attrs.field(default=None) for name in ("evaluation_id", "outcome", "hub", *_FROM_EVALUATION)}
    return attrs.make_class("OxenEvaluationRunFacet", fields, bases=(RunFacet,))
