"""
Templates for the triggerer: whether it can render one, and in which form.

A triggerer renders templates with less than a worker has. It knows no filters, macros or other settings of the DAG, and
some of Airflow's variables need a request that it cannot send: the trigger then hangs until it times out. So a template
is accepted only if all of it is known to work there. Everything else needs a worker.

This is text analysis. No Airflow object comes in: what has to be known about the DAG is in :class:`DagFacts`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_oxen.parameters import is_template

if TYPE_CHECKING:
    import jinja2

__all__ = ["DagFacts", "NeedsWorkerError", "build_output_template", "rewrite_template"]

#: The variables that a template may use: these work in a triggerer. Others may need a request to Airflow (``var``,
#: ``conn`` and ``prev_*`` do). Source: ``RuntimeTaskInstance.get_template_context`` of Airflow 3.3.2.
_VARIABLES = frozenset(
    {
        "dag_run",
        "data_interval_end",
        "data_interval_start",
        "ds",
        "ds_nodash",
        "logical_date",
        "params",
        "run_id",
        "task_instance",
        "ti",
        "ts",
        "ts_nodash",
        "ts_nodash_with_tz",
    }
)
_TASK_INSTANCE_VARIABLES = ("task_instance", "ti")
#: What Airflow adds to Jinja's own filters, on workers and in triggerers.
_AIRFLOW_FILTERS = ("ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz")
#: The arguments of ``xcom_pull`` that may be given by position, in their order.
_PULL_ARGUMENTS = ("task_ids", "dag_id", "key", "include_prior_dates")


class NeedsWorkerError(Exception):
    """
    Only a worker can render this.

    The message is the second half of a sentence that begins with the argument's name: "is a template with var, which
    only a worker is known to render". It never reaches users as an exception.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class DagFacts:
    """
    What has to be known about a DAG to judge the templates in it.

    :param dag_id: the DAG; None if the task is in none yet.
    :param is_mapped: says of a task id whether the task is mapped, or in a mapped task group. None: the DAG has no such
        task so far.
    :param user_defined_filters: names of the filters that the DAG defines. They may replace filters of the same name.
    :param renders_native_objects: whether a worker would render to objects other than text.
    :param has_own_jinja_settings: whether the DAG sets options of Jinja's environment.
    """

    dag_id: str | None = None
    is_mapped: Callable[[str], bool | None] = lambda _: None
    user_defined_filters: Collection[str] = ()
    renders_native_objects: bool = False
    has_own_jinja_settings: bool = False


def build_output_template(task_id: str, key: str, *, mapped: bool) -> str:
    """
    Build the template that reads the output of a task in a triggerer.

    :param task_id: the task whose output is read.
    :param key: the XCom key of the output.
    :param mapped: whether that task is mapped, or in a mapped task group.
    :return: the template for the triggerer.
    :raises NeedsWorkerError: the task is mapped, so that its output is a list.
    """
    if mapped:
        raise _from_mapped_task(task_id)
    return f"{{{{ ti.xcom_pull(task_ids={task_id!r}, key={key!r}, map_indexes=-1) }}}}"


def rewrite_template(text: str, dag: DagFacts) -> str:
    """
    Rewrite a template to a form that the triggerer can render, with the same result as on a worker.

    Each ``xcom_pull`` without ``map_indexes`` gets ``map_indexes=-1``, which is where a task that is not mapped has its
    result. Nothing else is changed.

    :param text: the template, or a text without any, which is returned as it is.
    :param dag: what is known about the DAG.
    :return: the template for the triggerer.
    :raises NeedsWorkerError: it is not known to work in a triggerer.

    Source: Airflow 3.3.2's triggerer cannot decode the request that ``xcom_pull`` without ``map_indexes`` sends
    (``GetXComSequenceSlice``), and the trigger waits for a response until it times out.
    """
    import jinja2.sandbox

    if not is_template(text):
        return text
    if dag.renders_native_objects:
        raise NeedsWorkerError("is a template, and only a worker renders templates as native objects")
    if dag.has_own_jinja_settings:
        raise NeedsWorkerError("is a template, and only a worker renders it with the DAG's own settings of Jinja")
    # Trailing newlines are kept here, so that the text stays as it was. Rendering drops the last one.
    environment = jinja2.sandbox.SandboxedEnvironment(keep_trailing_newline=True)
    environment.filters.update(dict.fromkeys(_AIRFLOW_FILTERS, str))
    for name in dag.user_defined_filters:
        environment.filters.pop(name, None)  # a triggerer has Jinja's own of that name, or none
    tree = _parse(text, environment)
    nodes = jinja2.nodes
    pulls = list(_find_pulls(tree))
    if len(pulls) != sum(name.name in _TASK_INSTANCE_VARIABLES for name in tree.find_all(nodes.Name)):
        raise NeedsWorkerError("is a template that uses ti for more than xcom_pull, which needs a worker")
    if not pulls:
        return text
    for pull in pulls:
        if not _names_one_index(pull, dag):
            pull.kwargs.append(nodes.Keyword("map_indexes", nodes.Neg(nodes.Const(1))))
    # Jinja cannot turn a tree into text. So the text is rewritten token by token, and what it parses to is compared
    # with the changed tree: a mistake here would make the trigger hang.
    rewritten = "".join(_add_map_indexes(environment.lex(text)))
    if environment.parse(rewritten) != tree:
        raise NeedsWorkerError("is a template with an xcom_pull in a form that only a worker is known to render")
    return rewritten


def _parse(text: str, environment: jinja2.Environment) -> jinja2.nodes.Template:
    """
    Parse a template.

    :raises NeedsWorkerError: it is not valid, or uses a filter, a variable or a file that a triggerer may not have.
    """
    import jinja2.meta

    try:
        # This compiles, which may change the tree that it is given.
        names = jinja2.meta.find_undeclared_variables(environment.parse(text))
        tree = environment.parse(text)
        _check_filters(tree, environment.filters)
    except jinja2.TemplateError as error:
        # Its text would add a line about where it was raised.
        raise NeedsWorkerError(f"is a template that only a worker may be able to render ({error.message})") from None
    if unknown := sorted(names - _VARIABLES):
        raise NeedsWorkerError(f"is a template with {', '.join(unknown)}, which only a worker is known to render")
    nodes = jinja2.nodes
    if any(tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends))):
        raise NeedsWorkerError("is a template that reads another one, which only a worker can find")
    return tree


def _from_mapped_task(task_id: str) -> NeedsWorkerError:
    return NeedsWorkerError(f"comes from a mapped task ({task_id}), whose results only a worker can read")


def _check_filters(tree: jinja2.nodes.Template, known: Collection[str]) -> None:
    """Refuse filters that a triggerer does not have. Compiling finds them too, but not inside of an ``if``."""
    import jinja2

    for node in tree.find_all(jinja2.nodes.Filter):
        # The first argument of map is the name of a filter.
        for name in (node.name, *(_constant(argument) for argument in node.args[:1] if node.name == "map")):
            if name not in known:
                raise jinja2.TemplateAssertionError(f"No filter named {name!r}.", node.lineno)


def _find_pulls(tree: jinja2.nodes.Template) -> Iterator[jinja2.nodes.Call]:
    """Find each call of ``ti.xcom_pull``."""
    import jinja2

    for call in tree.find_all(jinja2.nodes.Call):
        method = call.node
        if (
            isinstance(method, jinja2.nodes.Getattr)
            and method.attr == "xcom_pull"
            and isinstance(method.node, jinja2.nodes.Name)
            and method.node.name in _TASK_INSTANCE_VARIABLES
        ):
            yield call


def _names_one_index(pull: jinja2.nodes.Call, dag: DagFacts) -> bool:
    """
    Say whether an ``xcom_pull`` names one map index itself.

    :raises NeedsWorkerError: it is not known that it, with ``map_indexes=-1`` where it has none, reads what it would
        read on a worker.
    """
    given = dict(zip(_PULL_ARGUMENTS, pull.args, strict=False))
    given |= {argument.key: argument.value for argument in pull.kwargs}
    if pull.dyn_args is not None or pull.dyn_kwargs is not None:
        raise NeedsWorkerError("is a template with arguments of xcom_pull that are only known on a worker")
    if "map_indexes" in given:
        if not isinstance(_constant(given["map_indexes"]), int):
            raise NeedsWorkerError("is a template with map_indexes other than one number, which needs a worker")
        return True
    task_id = _constant(given.get("task_ids"))
    if not isinstance(task_id, str) or ("dag_id" in given and _constant(given["dag_id"]) != dag.dag_id):
        raise NeedsWorkerError(
            "is a template with xcom_pull from other than one task of this DAG, which needs a worker"
        )
    mapped = dag.is_mapped(task_id)
    if mapped is None:
        raise NeedsWorkerError(
            f"is a template with xcom_pull from {task_id!r}, which no earlier line of the DAG file defines: only a "
            "worker can find out whether that task is mapped"
        )
    if mapped:
        raise _from_mapped_task(task_id)
    return False


def _constant(node: jinja2.nodes.Expr | None) -> object:
    """Return the value that is written in a template; None if it is not known before rendering."""
    import jinja2

    try:
        return None if node is None else node.as_const()
    except jinja2.nodes.Impossible:
        return None


def _add_map_indexes(tokens: Iterator[tuple[int, str, str]]) -> Iterator[str]:
    """Return a template's tokens, with ``map_indexes=-1`` as the last argument of each ``xcom_pull`` without one."""
    depth, before = 0, ""
    missing: dict[int, bool] = {}  # for each open xcom_pull, by its depth, whether it has no map_indexes
    for _, kind, token in tokens:
        if (kind, token) == ("operator", "("):
            depth += 1
            if before == "xcom_pull":
                missing[depth] = True
        elif (kind, token) == ("operator", ")"):
            if missing.pop(depth, False):
                yield "map_indexes=-1" if before == "," else ", map_indexes=-1"
            depth -= 1
        elif (kind, token) == ("name", "map_indexes") and depth in missing:
            missing[depth] = False
        if kind != "whitespace":
            before = token
        yield token
