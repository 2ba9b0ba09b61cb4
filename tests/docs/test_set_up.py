"""The page on set-ups says for each product what is needed, and where that is from."""

from __future__ import annotations

import json
import re

import pytest

from airflow_provider_oxen.config import parse_config
from tests.docs.pages import ROOT
from tests.matrix import CONSTRAINTS

PAGE = (ROOT / "docs/how-to/set-up.md").read_text()
SECTIONS = {text.partition("\n")[0]: text for text in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}
#: The host of each product's own documentation.
PRODUCTS = {
    "Astronomer (Astro)": "www.astronomer.io",
    "Amazon MWAA": "docs.aws.amazon.com",
    "Google Cloud Composer": "cloud.google.com",
    "The official Helm chart": "airflow.apache.org",
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_each_product_has_what_is_needed_and_a_source(name: str) -> None:
    """Package, triggerer and key, and the addresses of the product's own pages."""
    section = SECTIONS[name]

    rows = re.findall(r"^\| (install|triggerer|API key) \|", section, re.MULTILINE)
    assert rows == ["install", "triggerer", "API key"]
    assert "airflow-provider-oxen" in section
    sources = section.partition("\nSources: ")[2]
    assert f"(https://{PRODUCTS[name]}/" in sources


def test_connections_of_the_page_can_be_used() -> None:
    """Each connection as JSON has what a connection needs."""
    found = re.findall(r'\{"conn_type".*?\}', PAGE)

    assert len(found) >= 2
    for text in found:
        connection = json.loads(text)
        assert connection.pop("conn_type") == "oxen"
        assert parse_config("oxen_default", **connection).base_url == "https://hub.oxen.ai"


def test_table_of_constraints_is_what_is_tested() -> None:
    """Each row has the versions of a file of ``tests/constraints``, and each file has a row."""
    table = re.findall(r"^\| (\d\S+) \| (.*) \|$", SECTIONS["Install beside Airflow's constraints"], re.MULTILINE)
    packages = ("apache-airflow-providers-common-compat", "aiohttp", "apache-airflow-providers-openlineage", "duckdb")

    assert {airflow: [cell.strip() for cell in cells.split("|")] for airflow, cells in table} == {
        file.stem: [_pinned(file.read_text(), package) for package in packages] for file in CONSTRAINTS.glob("*.txt")
    }


def _pinned(text: str, package: str) -> str:
    found = re.search(rf"^{package}==(\S+)$", text, re.MULTILINE)
    return found[1] if found else ""
