"""
Lineage: how a gate's evaluation is described to OpenLineage when its task ends.

OpenLineage is optional (``pip install "airflow-provider-oxen[openlineage]"``), so all of it is imported where it is
used: only Airflow's OpenLineage provider calls this, and only where it is installed and knows where to send events.

A dataset has the same name as the asset of the same file: namespace ``oxen://host``, name ``namespace/repo_name/path``.
Its version is not part of the name; it is in the dataset's ``version`` facet.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_oxen.evaluations import EvaluationStatus
from airflow_provider_oxen.messages import describe_outcome
from airflow_provider_oxen.outcomes import JudgedResults, Outcome, OutcomeReason

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import Dataset

__all__ = ["RUN_FACET", "describe_run", "make_dataset"]

#: Key of the run facet that holds the evaluation.
RUN_FACET = "oxen_evaluation"


def describe_run(outcome: Outcome) -> OperatorLineage[Any, Any]:
    """
    Describe the end of a wait to OpenLineage, whether the task succeeded or failed.

    :return: as input the source data at its version, and the results where conditions looked at their rows, with an
        assertion for each condition and the number of rows; as output the results, at the commit that holds them or
        else at the target branch, with the number of rows written where there are any; the run facet
        ``oxen_evaluation`` (outcome, status, model, rows, tokens, credits, the hub's error message, under the
        contract's names); and, where the gate stayed closed, ``errorMessage`` with the message the task failed with.
        Datasets that the hub did not name are left out.
    """
    from airflow.providers.common.compat.openlineage.facet import ErrorMessageRunFacet
    from airflow.providers.openlineage.extractors import OperatorLineage

    run_facets: dict[str, Any] = {RUN_FACET: _describe_evaluation(outcome)}
    if outcome.reason is not OutcomeReason.COMPLETED:
        message = describe_outcome(outcome)
        run_facets["errorMessage"] = ErrorMessageRunFacet(message=message, programmingLanguage="python")
    return OperatorLineage(inputs=_inputs(outcome), outputs=_outputs(outcome), run_facets=run_facets)


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


def _inputs(outcome: Outcome) -> list[Any]:
    """Describe the source rows; and the results, where conditions looked at their rows, with what these found."""
    from openlineage.client.event_v2 import InputDataset

    evaluation, results = outcome.evaluation, outcome.results
    if evaluation is None:
        return []
    source = _dataset(outcome, (evaluation.resource or {}).get("path"), evaluation.source_version)
    inputs = [] if source is None else [InputDataset(source.namespace, source.name, facets=source.facets)]
    judged = _dataset(outcome, results.path, results.version) if results is not None and results.conditions else None
    if judged is not None and results is not None:
        facets = _describe_quality(results)
        inputs.append(InputDataset(judged.namespace, judged.name, facets=judged.facets, inputFacets=facets))
    return inputs


def _describe_quality(results: JudgedResults) -> dict[str, Any]:
    from openlineage.client.facet_v2 import data_quality_assertions_dataset, data_quality_metrics_input_dataset

    assertions = [
        data_quality_assertions_dataset.Assertion(assertion=each["condition"], success=each["holds"])
        for each in results.conditions
    ]
    return {
        "dataQualityAssertions": data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet(assertions),
        "dataQualityMetrics": data_quality_metrics_input_dataset.DataQualityMetricsInputDatasetFacet(
            columnMetrics={}, rowCount=results.rows
        ),
    }


def _outputs(outcome: Outcome) -> list[Any]:
    from airflow.providers.common.compat.openlineage.facet import OutputStatisticsOutputDatasetFacet
    from openlineage.client.event_v2 import OutputDataset

    evaluation = outcome.evaluation
    if evaluation is None:
        return []
    version = evaluation.results_commit or evaluation.target_branch
    dataset = _dataset(outcome, evaluation.results_path, version)
    if dataset is None:
        return []
    written: dict[str, Any] = {}
    # Rows that were processed are written when the evaluation completes, and not before.
    if evaluation.status == EvaluationStatus.COMPLETED and evaluation.progress.processed is not None:
        written["outputStatistics"] = OutputStatisticsOutputDatasetFacet(rowCount=evaluation.progress.processed)
    return [OutputDataset(dataset.namespace, dataset.name, facets=dataset.facets, outputFacets=written)]


def _dataset(outcome: Outcome, path: str | None, version: str | None) -> Dataset | None:
    if not path or outcome.hub is None:
        return None
    return make_dataset(urlsplit(outcome.hub).netloc, outcome.ref.namespace, outcome.ref.repo_name, path, version)


def _describe_evaluation(outcome: Outcome) -> Any:
    written = {} if outcome.evaluation is None else outcome.evaluation.to_dict()
    facet = _run_facet_class()
    return facet(
        evaluation_id=outcome.ref.evaluation_id,
        outcome=str(outcome.reason),
        hub=outcome.hub,
        **{name: written.get(name) for name in _FROM_EVALUATION},
    )


#: The fields of an evaluation in the run facet, under the contract's own names.
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
    "closing_commit",
    "error_message",
)


@cache
def _run_facet_class() -> Any:
    """Make the class of the run facet, whose base is OpenLineage's."""
    import attrs
    from openlineage.client.facet_v2 import RunFacet

    fields = {name: attrs.field(default=None) for name in ("evaluation_id", "outcome", "hub", *_FROM_EVALUATION)}
    return attrs.make_class("OxenEvaluationRunFacet", fields, bases=(RunFacet,))
