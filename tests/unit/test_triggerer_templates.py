"""Which templates a triggerer can render, and in which form. Nothing here needs Airflow."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import SandboxedEnvironment

from airflow_provider_oxen.parameters import is_template
from airflow_provider_oxen.triggerer_templates import (
    DagFacts,
    NeedsWorkerError,
    build_output_template,
    rewrite_template,
)

DAG = DagFacts(dag_id="d", is_mapped={"find": False, "mapped": True}.get)


@pytest.mark.parametrize("text", ["{{ ds }}", "a{% if x %}b{% endif %}", "{# a comment #}", "{{", "{%"])
def test_text_with_a_mark_of_jinja_is_a_template(text: str) -> None:
    """What Jinja would change, or refuse, is a template."""
    assert is_template(text)


@pytest.mark.parametrize("text", ["", "plain", "{ds}", "}}", "%}", "#}", "{ {"])
def test_text_without_a_mark_of_jinja_is_not_a_template(text: str) -> None:
    """Any other text is what it is, and is never rewritten."""
    assert not is_template(text)
    assert rewrite_template(text, DagFacts(renders_native_objects=True, has_own_jinja_settings=True)) == text


@pytest.mark.parametrize(
    "text",
    [
        "{{ dag_run.conf.id }}",
        "{{ dag_run.conf['id'] | lower }}",
        "{% if params.id %}{{ params.id }}{% else %}{{ run_id }}{% endif %}",
        "{{ logical_date | ds_nodash }}",
        "{{ ts }}-{{ ts_nodash }}-{{ ts_nodash_with_tz }}-{{ ds }}-{{ ds_nodash }}",
        "{{ data_interval_start }}/{{ data_interval_end | ts }}",
        "{% set name = params.id %}{{ name }}",
        "{{ params.ids | map('lower') | first }}",
        "{{ params.ids | map(attribute='id') | first }}",
        "{% raw %}{{ ti.xcom_pull('find') }}{% endraw %}",
        "{# ti.xcom_pull('find') #}",
        "text with a line\r\n{{ ds }}\n\n",
        "{{ ti.xcom_pull('mapped', map_indexes=-1) }}",
        "{{ ti.xcom_pull('mapped', map_indexes=3) }}",
        "{{ ti.xcom_pull(params.id, map_indexes=-1) }}",
    ],
)
def test_template_that_works_in_a_triggerer_stays_as_it_is(text: str) -> None:
    """Nothing is changed in a template that needs no change."""
    assert rewrite_template(text, DAG) == text


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ("{{ ti.xcom_pull('find') }}", "{{ ti.xcom_pull('find', map_indexes=-1) }}"),
        (
            "{{ ti.xcom_pull(task_ids='find', key='id', ) }}",
            "{{ ti.xcom_pull(task_ids='find', key='id', map_indexes=-1) }}",
        ),
        (
            "{{ task_instance.xcom_pull(task_ids='find', dag_id='d', key='return_value') }}",
            "{{ task_instance.xcom_pull(task_ids='find', dag_id='d', key='return_value', map_indexes=-1) }}",
        ),
        (
            "{{ ti.xcom_pull('find', 'd', 'id', True) }}",
            "{{ ti.xcom_pull('find', 'd', 'id', True, map_indexes=-1) }}",
        ),
        (
            "{{ ti.xcom_pull('find', key=params.id) ~ '-' ~ ti.xcom_pull('find') }}",
            "{{ ti.xcom_pull('find', key=params.id, map_indexes=-1) ~ '-' ~ ti.xcom_pull('find', map_indexes=-1) }}",
        ),
        (
            "{{ (ti.xcom_pull('find', key=(params.id)) or 'x') | trim }}",
            "{{ (ti.xcom_pull('find', key=(params.id), map_indexes=-1) or 'x') | trim }}",
        ),
        (
            "{{ ti.xcom_pull('find', key=ti.xcom_pull('find')) }}",
            "{{ ti.xcom_pull('find', key=ti.xcom_pull('find', map_indexes=-1), map_indexes=-1) }}",
        ),
        (
            "{{ ti.xcom_pull('find', key=ti.xcom_pull('mapped', map_indexes=2)) }}",
            "{{ ti.xcom_pull('find', key=ti.xcom_pull('mapped', map_indexes=2), map_indexes=-1) }}",
        ),
        (
            "{# a comment with xcom_pull( #}{{ ti.xcom_pull('find') -}} ",
            "{# a comment with xcom_pull( #}{{ ti.xcom_pull('find', map_indexes=-1) -}} ",
        ),
        (
            "xcom_pull( {{- ti . xcom_pull ( 'xcom_pull(' , ) [ 0 ] }}\n\n",
            "xcom_pull({{- ti . xcom_pull ( 'xcom_pull(' , map_indexes=-1) [ 0 ] }}\n\n",
        ),
        (
            "{% if ti.xcom_pull('find') %}{{ ds }}{% endif %}",
            "{% if ti.xcom_pull('find', map_indexes=-1) %}{{ ds }}{% endif %}",
        ),
    ],
)
def test_each_xcom_pull_gets_map_indexes(text: str, rewritten: str) -> None:
    """Each ``xcom_pull`` without ``map_indexes`` gets one, and the rest of the template stays as it is."""
    dag = DagFacts(dag_id="d", is_mapped={"find": False, "mapped": True, "xcom_pull(": False}.get)

    assert rewrite_template(text, dag) == rewritten
    assert rewrite_template(rewritten, dag) == rewritten


#: Templates that are refused, by the reason.
REFUSED = {
    "is a template with var, which only a worker is known to render": ["{{ var.value.id }}"],
    "is a template with conn, macros, which only a worker is known to render": ["{{ conn.a }}{{ macros.x }}"],
    "is a template that only a worker may be able to render (No filter named 'mine'.)": [
        "{{ dag_run.conf.id | mine }}",
        "{% if params.id %}{{ params.id | mine }}{% endif %}",
        "{{ params.id | mine if params.id else run_id }}",
        "{% filter mine %}{{ ds }}{% endfilter %}",
        "{{ params.ids | map('mine') | first }}",
    ],
    "is a template that only a worker may be able to render (No filter named None.)": [
        "{{ params.ids | map(params.name) | first }}",
    ],
    "is a template that only a worker may be able to render (No test named 'mine'.)": ["{{ params.id is mine }}"],
    "is a template that uses ti for more than xcom_pull, which needs a worker": [
        "{{ ti.try_number }}",
        "{{ task_instance.try_number }}",
        "{% set x = ti %}{{ x.xcom_pull('find') }}",
        "{{ ti['xcom_pull']('find') }}",
        "{{ (ti | attr('xcom_pull'))('find') }}",
        "{{ ti.xcom_pull('find') ~ ti.xcom_pull }}",
    ],
    "comes from a mapped task (mapped), whose results only a worker can read": ["{{ ti.xcom_pull('mapped')[0] }}"],
    "is a template with xcom_pull from 'absent', which no earlier line of the DAG file defines: only a worker can find "
    "out whether that task is mapped": ["{{ ti.xcom_pull('absent') }}"],
    "is a template with xcom_pull from other than one task of this DAG, which needs a worker": [
        "{{ ti.xcom_pull(params.id) }}",
        "{{ ti.xcom_pull(['find', 'find']) }}",
        "{{ ti.xcom_pull('find', dag_id='other') }}",
        "{{ ti.xcom_pull('find', 'other') }}",
        "{{ ti.xcom_pull('find', dag_id=params.id) }}",
        "{{ ti.xcom_pull() }}",
    ],
    "is a template with arguments of xcom_pull that are only known on a worker": [
        "{{ ti.xcom_pull(*params.id) }}",
        "{{ ti.xcom_pull('find', **params.id) }}",
    ],
    "is a template with map_indexes other than one number, which needs a worker": [
        "{{ ti.xcom_pull('mapped', map_indexes=[0, 1]) }}",
        "{{ ti.xcom_pull('find', map_indexes=none) }}",
        "{{ ti.xcom_pull('find', map_indexes=params.id) }}",
    ],
    "is a template with an xcom_pull in a form that only a worker is known to render": [
        "{{ (ti.xcom_pull)('find') }}",
        "{{ (ti.xcom_pull)('find') ~ ti.xcom_pull('find') }}",
        "{{ ti.xcom_pull('find', key=params.map_indexes) }}",
        "{{ ti.xcom_pull('find') ~ params.xcom_pull('find') }}",
    ],
    "is a template that reads another one, which only a worker can find": [
        "{% include 'id.txt' %}",
        "{% import 'ids.j2' as ids %}{{ ids.one() }}",
        "{% from 'ids.j2' import one %}{{ one() }}",
        "{% extends 'id.txt' %}",
    ],
}


@pytest.mark.parametrize(("text", "reason"), [(text, reason) for reason, texts in REFUSED.items() for text in texts])
def test_template_that_may_hang_needs_a_worker(text: str, reason: str) -> None:
    """A template that is not known to work in a triggerer is refused, with the reason."""
    with pytest.raises(NeedsWorkerError) as refused:
        rewrite_template(text, DAG)

    assert str(refused.value) == reason


@pytest.mark.parametrize("text", ["{{ dag_run.conf.id", "{% if %}", "{% do params.id %}"])
def test_template_that_is_not_valid_needs_a_worker(text: str) -> None:
    """What Jinja without extensions does not understand is refused, with Jinja's words in one line."""
    with pytest.raises(NeedsWorkerError, match=r"^is a template that only a worker may be able to render \(.+\)$"):
        rewrite_template(text, DAG)


@pytest.mark.parametrize(
    ("facts", "text", "reason"),
    [
        ({"user_defined_filters": {"lower"}}, "{{ run_id | lower }}", "No filter named 'lower'"),
        ({"user_defined_filters": {"ds"}}, "{% if ds %}{{ logical_date | ds }}{% endif %}", "No filter named 'ds'"),
        ({"renders_native_objects": True}, "{{ run_id }}", "renders templates as native objects"),
        ({"has_own_jinja_settings": True}, "{{ run_id }}", "the DAG's own settings of Jinja"),
        ({}, "{{ ti.xcom_pull('find') }}", "xcom_pull from 'find', which no earlier line of the DAG file defines"),
    ],
)
def test_settings_of_the_dag_need_a_worker(facts: dict[str, Any], text: str, reason: str) -> None:
    """What a DAG sets for its templates is known on a worker only."""
    with pytest.raises(NeedsWorkerError) as refused:
        rewrite_template(text, DagFacts(**facts))

    assert reason in str(refused.value)


def test_output_of_a_task_becomes_a_template() -> None:
    """The output of a task is read with ``map_indexes``, whatever its key is."""
    assert build_output_template("find", "return_value", mapped=False) == (
        "{{ ti.xcom_pull(task_ids='find', key='return_value', map_indexes=-1) }}"
    )
    template = build_output_template("find", 'it\'s }} "x"', mapped=False)
    assert _render(rewrite_template(template, DAG)) == 'it\'s }} "x"'


def test_output_of_a_mapped_task_needs_a_worker() -> None:
    """The output of a mapped task is a list, which a triggerer cannot read."""
    with pytest.raises(NeedsWorkerError, match=r"^comes from a mapped task \(find\), whose results only a worker can"):
        build_output_template("find", "return_value", mapped=True)


class _TaskInstance:
    """Refuses what would make a trigger hang."""

    def xcom_pull(self, *_: Any, key: str = "return_value", map_indexes: Any = None, **__: Any) -> str:
        assert isinstance(map_indexes, int)
        return key


def _render(template: str) -> str:
    params = {"id": "find", "map_indexes": 1, "xcom_pull": lambda *_: "other"}
    return SandboxedEnvironment().from_string(template).render(ti=_TaskInstance(), params=params)


_LEAVES = [
    "params.id",
    "params.map_indexes",
    "'xcom_pull('",
    "'find'",
    "ti.xcom_pull('find')",
    "ti.xcom_pull('find', map_indexes=0)",
    "(ti.xcom_pull)('find')",
]
_FORMS = [
    "({})",
    "[{}][0]",
    "{} ~ {}",
    "{} | trim",
    "{} if ({}) else params.id",
    "ti.xcom_pull({})",
    "ti.xcom_pull('find', key={})",
    "ti.xcom_pull('find', key=({}) ~ {},)",
    "ti . xcom_pull ( task_ids = 'find' , key = {} , )",
    "params.xcom_pull({})",
]
_EXPRESSIONS = st.recursive(
    st.sampled_from(_LEAVES),
    lambda inner: st.builds(lambda form, one, two: form.format(one, two), st.sampled_from(_FORMS), inner, inner),
    max_leaves=6,
)


@settings(max_examples=300)
@given(_EXPRESSIONS)
def test_no_template_that_passes_asks_without_map_indexes(expression: str) -> None:
    """However a template is written: if it passes, no ``xcom_pull`` in it makes the trigger hang."""
    try:
        rewritten = rewrite_template(f"{{{{ {expression} }}}}", DAG)
    except NeedsWorkerError:
        return
    try:
        _render(rewritten)
    except AssertionError:
        raise
    except Exception:  # noqa: BLE001, S110  # an error is an error on a worker, too
        pass


def test_module_needs_neither_airflow_nor_jinja_to_be_imported() -> None:
    """Parsing a DAG file stays cheap, and the module works without Airflow."""
    program = """
        import sys
        from airflow_provider_oxen.triggerer_templates import DagFacts, rewrite_template
        assert "jinja2" not in sys.modules
        assert rewrite_template("plain", DagFacts()) == "plain"
        assert rewrite_template("{{ ds }}", DagFacts()) == "{{ ds }}"
        assert not any(name.split(".")[0] == "airflow" for name in sys.modules)
    """
    lines = "\n".join(line.strip() for line in program.splitlines())
    subprocess.run([sys.executable, "-c", lines], check=True)
