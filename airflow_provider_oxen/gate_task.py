"""
What the tasks that hold a gate have in common: their surface towards Airflow.

It is no base class of Airflow's, so that sensors and operators keep theirs. Imports are few and late, because this
module is imported whenever a DAG file that uses one of them is parsed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self

from airflow_provider_oxen import version_compat
from airflow_provider_oxen.airflow_names import find_current_dag
from airflow_provider_oxen.links.oxen import LINKS
from airflow_provider_oxen.parameters import check_durations, parse_seconds

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import BaseOperatorLink
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

    from airflow_provider_oxen.gate import Gate
    from airflow_provider_oxen.gate_protocol import GateTask

    class _Self(GateTask, Protocol):
        """A task with the mixin. A task that lacks what its gate needs is an error where it uses the gate."""

        _made_gate: Gate | None


__all__ = ["GateTaskMixin", "check_start_is_judged", "describe_task", "naming_task"]

#: A text that ends in it is no literal of Python.
_NO_OBJECT = "|"


def describe_task(arguments: Mapping[str, Any]) -> str:
    """
    Name the task that is being made, by DAG and task id, for the beginning of an error or a warning.

    :param arguments: those that Airflow passes on to an operator's ``__init__``.
    """
    dag, group = arguments.get("dag"), arguments.get("task_group")
    if dag is None:
        dag, current_group = find_current_dag()
        group = group or current_group
    task_id = str(arguments.get("task_id"))
    if group is not None:
        task_id = group.child_id(task_id)
    return f"Task {task_id!r}" if dag is None else f"DAG {dag.dag_id!r}, task {task_id!r}"


@contextmanager
def naming_task(arguments: Mapping[str, Any]) -> Iterator[None]:
    """Add the ids of DAG and task to the message of an error while a DAG file is parsed: a file may make hundreds."""
    try:
        yield
    except ValueError as error:
        error.args = (f"{describe_task(arguments)}: {error}",)
        raise


def check_start_is_judged(arguments: Mapping[str, Any]) -> None:
    """
    Refuse to start an evaluation whose rows the conditions could never judge.

    :param arguments: of an operator, by name.
    :raises ValueError: its results are not committed, or are in a file of a format that is not read.
    """
    if arguments.get("conditions") is None:
        return
    from airflow_provider_oxen.conditions import needs_rows, parse_conditions
    from airflow_provider_oxen.start_request import check_can_be_judged

    if needs_rows(parse_conditions(arguments["conditions"])):
        check_can_be_judged(arguments)


class GateTaskMixin(version_compat.ExecutionTimeoutMixin):
    """Holds a gate, and shows Airflow the evaluation that it waits for."""

    operator_extra_links: Collection[BaseOperatorLink] = LINKS
    # Made when the task runs: parsing a DAG file needs no gate.
    _made_gate: Gate | None = None
    # Whether what is rendered right now is a part of an argument.
    _renders_inside = False

    @classmethod
    def partial(cls, **kwargs: Any) -> OperatorPartial:
        """
        As Airflow's own. What can never work is refused here, while the DAG is parsed, and not on the workers.

        Each instance is shown under its evaluation's id, unless ``map_index_template`` says something else.
        """
        made: OperatorPartial = super().partial(**kwargs)  # type: ignore[misc]  # Airflow's base class follows
        made.kwargs["map_index_template"] = made.kwargs.get("map_index_template") or "{{ task.evaluation_label }}"
        try:
            cls._check_partial(made.kwargs)
        except ValueError:
            version_compat.discard_partial(made)
            raise
        return made

    @classmethod
    def _check_partial(cls, kwargs: Mapping[str, Any]) -> None:
        # Airflow has put the DAG among the arguments, and the task group's id before the task's.
        with naming_task({**kwargs, "task_group": None}):
            if kwargs.get("conditions") is not None:
                from airflow_provider_oxen.conditions import check_conditions, check_source

                check_conditions(kwargs["conditions"], end_from_trigger=bool(kwargs.get("end_from_trigger")))
                check_source(kwargs["conditions"])
            check_durations(**kwargs)
            cls._check_known(kwargs)

    @classmethod
    def _check_known(cls, arguments: Mapping[str, Any]) -> Any:
        """Refuse what is wrong with an argument whose value is known while the DAG file is parsed."""
        raise NotImplementedError

    def check_settings(self: _Self) -> None:
        """
        Refuse what can never work. A task that runs does it again: a cluster policy may have set it since it was made.

        :raises ValueError: it is so.
        """
        parse_seconds("timeout", self.timeout)
        check_durations(
            poke_interval=self.poke_interval,
            max_wait=self.max_wait,
            retry_window=0 if self.retry_window is None else self.retry_window,
            execution_timeout=self.execution_timeout,
        )
        if self.conditions is not None:
            from airflow_provider_oxen.conditions import check_conditions

            check_conditions(self.conditions, end_from_trigger=self.end_from_trigger)
            if self.started_here:
                check_start_is_judged(vars(self))

    def render_template(self, content: Any, *args: Any, **kwargs: Any) -> Any:
        """
        As Airflow's own, but an argument that is a text stays one.

        With ``render_template_as_native_obj``, Jinja would make the number 1000 of ``1_000``, and take the quotation
        marks off a prompt. Only a template inside a dict, as of ``body``, becomes what Jinja makes of it. None stays
        None, because that stands for an argument that is not given.
        """
        if not isinstance(content, str):
            outer, self._renders_inside = self._renders_inside, True
            try:
                return super().render_template(content, *args, **kwargs)  # type: ignore[misc]  # Airflow's base class
            finally:
                self._renders_inside = outer
        rendered = super().render_template(content, *args, **kwargs)  # type: ignore[misc]  # as above
        if isinstance(rendered, str) and (rendered == content or content.strip()[:1] not in ("'", '"')):
            return rendered
        # Jinja leaves a text as it is that cannot be read as an object, and none that ends in this can.
        text = super().render_template(f"{content}{_NO_OBJECT}", *args, **kwargs).removesuffix(_NO_OBJECT)  # type: ignore[misc]  # as above
        is_template = text != content
        return rendered if is_template and (self._renders_inside or rendered is None) else text

    def prepare_for_execution(self) -> Self:
        """Return the task that a worker runs: as Airflow's own, without links until an address is known."""
        task = super().prepare_for_execution()
        task.operator_extra_links = ()
        return task

    def prepare_if_mapped(self) -> None:
        """Do the same with a task that a worker makes for a map index: Airflow does not prepare it."""
        self.hide_execution_timeout_if_mapped()
        if version_compat.is_made_from_mapped(self):
            self.operator_extra_links = ()

    @property
    def evaluation_label(self) -> str:
        """Id of the evaluation, for ``map_index_template``; empty while it is not known."""
        ref = None if self._made_gate is None else self._made_gate.ref
        return str(getattr(self, "evaluation_id", "")) if ref is None else ref.evaluation_id

    @property
    def link_addresses(self) -> dict[str, str] | None:
        """Address of each link, by its XCom key; None before this process has seen the evaluation."""
        return None if self._made_gate is None else self._made_gate.link_addresses

    def get_openlineage_facets_on_complete(
        self,
        task_instance: object,  # noqa: ARG002  # OpenLineage's signature
    ) -> OperatorLineage[Any, Any] | None:
        """
        Describe the evaluation to OpenLineage. Airflow's OpenLineage provider calls this when the task has ended.

        :param task_instance: is not needed: the task has just concluded its wait in the same process.
        :return: see :func:`airflow_provider_oxen.lineage.describe_run`; None where there was no wait.
        """
        outcome = None if self._made_gate is None else self._made_gate.outcome
        if outcome is None:
            return None
        from airflow_provider_oxen.lineage import describe_run

        return describe_run(outcome)

    def get_openlineage_facets_on_failure(self, task_instance: object) -> OperatorLineage[Any, Any] | None:
        """Describe to OpenLineage why the task failed. As :meth:`get_openlineage_facets_on_complete`."""
        return self.get_openlineage_facets_on_complete(task_instance)

    @property
    def _has_ended(self) -> bool:
        """Whether this process has seen the evaluation end."""
        outcome = None if self._made_gate is None else self._made_gate.outcome
        return outcome is not None and outcome.evaluation is not None and outcome.evaluation.is_terminal

    @property
    def _gate(self: _Self) -> Gate:
        if self._made_gate is None:
            from airflow_provider_oxen.gate import Gate

            self._made_gate = Gate(self)
        return self._made_gate
