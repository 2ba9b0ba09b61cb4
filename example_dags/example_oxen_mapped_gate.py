"""A mapped gate: one for each of several evaluations, whose number is known only when the pipeline runs."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import dag, get_current_context, task

from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor


@dag(schedule=None, params={"evaluation_ids": []}, tags=["oxen", "example"])
def example_oxen_mapped_gate() -> None:
    """Wait for all the evaluations that the run was triggered with, then compare them."""

    @task
    def find_evaluations() -> list[str]:
        return get_current_context()["params"]["evaluation_ids"]

    gates = OxenEvaluationSensor.partial(
        task_id="gate",
        namespace="ox",
        repo_name="customer-intents",
    ).expand(evaluation_id=find_evaluations())

    @task
    def compare(evaluations: list[dict]) -> dict[str, float]:
        return {evaluation["id"]: evaluation["credits_used"] for evaluation in evaluations}

    compare(gates.output)


example_oxen_mapped_gate()
