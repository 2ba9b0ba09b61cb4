"""What Airflow reads of a provider package: strings only, since every Airflow process imports it when it starts."""

from __future__ import annotations

from typing import Any

from airflow_provider_oxen import __version__

__all__ = ["CONNECTION_FIELDS", "CONNECTION_FORM", "get_provider_info"]

#: How the fields that every connection has appear in the form.
CONNECTION_FORM: dict[str, Any] = {
    "hidden-fields": ["login"],
    "relabeling": {"password": "API key", "schema": "Scheme"},
    "placeholders": {
        "host": "hub.oxen.ai",
        "schema": "https",
        "port": "the scheme's own",
        "password": "the API key from your profile on Oxen.ai",
        "timeout": "30",
        "verify": "true",
        "proxy": "http://proxy.example:3128",
        "max_connections": "20",
    },
}

#: The extra fields of a connection. A text where a value may be more than a number or a boolean.
CONNECTION_FIELDS: dict[str, Any] = {
    "timeout": {
        "label": "Request timeout",
        "description": "Seconds one request may take, from start to end. Default 30.",
        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0},
    },
    "verify": {
        "label": "Verify TLS",
        "description": "true, false, or the path of a CA file to check the hub's certificate against. Default true.",
        "schema": {"type": ["string", "null"]},
    },
    "proxy": {
        "label": "Proxy",
        "description": "Address of an HTTP proxy, such as http://proxy.example:3128. Default none.",
        "schema": {"type": ["string", "null"]},
    },
    "max_connections": {
        "label": "Max connections",
        "description": "Most connections that one process keeps open to the hub, for any number of waits. Default 20.",
        "schema": {"type": ["integer", "null"], "minimum": 1},
    },
}

_ASSET_URIS = [
    {
        "schemes": ["oxen"],
        "handler": "airflow_provider_oxen.assets.sanitize_uri",
        "factory": "airflow_provider_oxen.assets.create_asset",
        "to_openlineage_converter": "airflow_provider_oxen.assets.convert_asset_to_openlineage",
    }
]


def get_provider_info() -> dict[str, Any]:
    """Describe this provider, in the form of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-oxen",
        "name": "Oxen",
        "description": "Start and wait for evaluations on `Oxen.ai <https://www.oxen.ai/>`__.",
        "versions": [__version__],
        "integrations": [
            {"integration-name": "Oxen", "external-doc-url": "https://docs.oxen.ai/", "tags": ["service"]},
        ],
        "hooks": [{"integration-name": "Oxen", "python-modules": ["airflow_provider_oxen.hooks.oxen"]}],
        "operators": [{"integration-name": "Oxen", "python-modules": ["airflow_provider_oxen.operators.oxen"]}],
        "sensors": [{"integration-name": "Oxen", "python-modules": ["airflow_provider_oxen.sensors.oxen"]}],
        "triggers": [{"integration-name": "Oxen", "python-modules": ["airflow_provider_oxen.triggers.oxen"]}],
        "extra-links": [
            "airflow_provider_oxen.links.oxen.OxenEvaluationLink",
            "airflow_provider_oxen.links.oxen.OxenResultsLink",
            "airflow_provider_oxen.links.oxen.OxenSourceDataLink",
        ],
        "asset-uris": _ASSET_URIS,
        "dataset-uris": _ASSET_URIS,  # Airflow 2's name for them; delete with it
        "connection-types": [
            {
                "connection-type": "oxen",
                "hook-class-name": "airflow_provider_oxen.hooks.oxen.OxenHook",
                "hook-name": "Oxen",
                "ui-field-behaviour": CONNECTION_FORM,
                "conn-fields": CONNECTION_FIELDS,
            }
        ],
    }
