"""
A gate that sends a mail when it stays closed: with the reason, and the error message of the evaluation.

The connection ``smtp_default`` says how mails are sent. A notifier of another provider takes the same texts, such as
``SlackWebhookNotifier(text=...)`` of ``apache-airflow-providers-slack``.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import Param, dag

from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor

#: The evaluation as the gate last saw it; nothing where it never did.
SEEN = "(ti.xcom_pull(task_ids=ti.task_id, key='evaluation', map_indexes=ti.map_index) or {})"


@dag(
    schedule=None,
    params={
        "evaluation_id": Param(
            type="string", pattern="^[A-Za-z0-9-]+$", description="The end of the address of the evaluation's page."
        )
    },
    tags=["oxen", "example"],
)
def example_oxen_alert() -> None:
    """Wait for the evaluation that the run was started with; send a mail if it did not complete."""
    OxenEvaluationSensor(
        task_id="gate",
        namespace="ox",
        repo_name="customer-intents",
        evaluation_id="{{ params.evaluation_id }}",
        timeout=timedelta(hours=6),
        retries=2,
        on_failure_callback=SmtpNotifier(
            from_email="airflow@example.com",
            to="data-team@example.com",
            subject="{{ ti.dag_id }}.{{ ti.task_id }} stayed closed",
            html_content=f"<p>{{{{ exception | e }}}}</p><p>Its error: {{{{ {SEEN}.get('error_message') | e }}}}</p>",
        ),
    )


example_oxen_alert()
