"""From a connection's fields to one configuration, or to an error that names the field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_oxen.config import ClientConfig, parse_config
from airflow_provider_oxen.exceptions import OxenConfigError

KEY = "oxk-4f1c9a"


def _parse(**fields: Any) -> ClientConfig:
    return parse_config("hub_eu", **{"password": KEY, **fields})


@pytest.mark.parametrize(
    ("host", "schema", "port", "base_url"),
    [
        (None, None, None, "https://hub.oxen.ai"),
        ("", "", "", "https://hub.oxen.ai"),
        ("  ", None, None, "https://hub.oxen.ai"),
        ("oxen.example", None, None, "https://oxen.example"),
        (" oxen.example ", " HTTPS ", None, "https://oxen.example"),
        ("Oxen.Example", "http", None, "http://oxen.example"),
        ("oxen.example:8443", None, None, "https://oxen.example:8443"),
        ("oxen.example", None, 8443, "https://oxen.example:8443"),
        ("oxen.example", None, "8443", "https://oxen.example:8443"),
        ("oxen.example", None, 0, "https://oxen.example"),
        # The port that some Airflows ask for before they test a connection: the hub is the same.
        (None, None, 443, "https://hub.oxen.ai"),
        ("oxen.example:80", "http", None, "http://oxen.example"),
        ("oxen.example", "http", 443, "http://oxen.example:443"),
        ("oxen.example:8443", None, 8443, "https://oxen.example:8443"),
        ("https://oxen.example", None, None, "https://oxen.example"),
        ("https://oxen.example/", "https", None, "https://oxen.example"),
        ("HTTPS://oxen.example/hub/", None, None, "https://oxen.example/hub"),
        ("http://oxen.example:8080/a/b", "http", 8080, "http://oxen.example:8080/a/b"),
        ("oxen.example/hub", None, 8443, "https://oxen.example:8443/hub"),
        ("::1", None, None, "https://[::1]"),
        ("::1", None, 8080, "https://[::1]:8080"),
        ("[::1]:8080", "http", None, "http://[::1]:8080"),
        ("http://[2001:db8::7]/hub", None, None, "http://[2001:db8::7]/hub"),
    ],
)
def test_address_is_read(host: str | None, schema: str | None, port: object, base_url: str) -> None:
    """Host, schema and port give one address, with its path and without a slash at the end."""
    assert _parse(host=host, schema=schema, port=port).base_url == base_url


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"password": None}, "password", "is empty"),
        ({"password": " \n"}, "password", "is empty"),
        ({"password": "two words"}, "password", "holds a space"),
        ({"password": "two\nlines"}, "password", "a line break"),
        ({"password": "clé"}, "password", "outside ASCII"),
        ({"schema": "ftp"}, "schema", "must be https or http"),
        ({"schema": "http", "host": "https://oxen.example"}, "schema", "leave one of them out"),
        ({"host": "ftp://oxen.example"}, "host", "only https:// and http:// are supported"),
        ({"host": "://oxen.example"}, "host", "only https:// and http:// are supported"),
        ({"host": "https://"}, "host", "is not a host name"),
        ({"host": "two words"}, "host", "is not a host name"),
        ({"host": "öxen.example"}, "host", "is not a host name"),
        ({"host": "[::1"}, "host", "is neither a host name nor a URL"),
        ({"host": "1:2:3"}, "host", "is neither a host name nor a URL"),
        ({"host": "oxen.example:http"}, "host", "is neither a host name nor a URL"),
        ({"host": "oxen.example:65536"}, "host", "is neither a host name nor a URL"),
        ({"host": "oxen.example:0"}, "host", "port 0"),
        ({"host": "https://ox:pw@oxen.example"}, "host", "holds a login"),
        ({"host": "oxen.example?a=b"}, "host", "give only the address"),
        ({"host": "oxen.example#a"}, "host", "give only the address"),
        ({"host": "oxen.example/a b"}, "host", "cannot be part of a URL's path"),
        ({"host": "oxen.example/ä"}, "host", "cannot be part of a URL's path"),
        ({"host": "oxen.example:8443", "port": 443}, "port", "says 443, but the host says 8443"),
        ({"port": -1}, "port", "from 1 to 65535"),
        ({"port": 65536}, "port", "from 1 to 65535"),
        ({"port": 80.5}, "port", "from 1 to 65535"),
        ({"port": True}, "port", "from 1 to 65535"),
        ({"port": "https"}, "port", "from 1 to 65535"),
        ({"extra": {"timeout": 0}}, "timeout", "above 0"),
        ({"extra": {"timeout": "-1"}}, "timeout", "above 0"),
        ({"extra": {"timeout": "soon"}}, "timeout", "above 0"),
        ({"extra": {"timeout": "inf"}}, "timeout", "above 0"),
        ({"extra": {"timeout": "nan"}}, "timeout", "above 0"),
        ({"extra": {"timeout": True}}, "timeout", "above 0"),
        ({"extra": {"timeout": 10**400}}, "timeout", "above 0"),
        ({"extra": {"timeout": [30]}}, "timeout", "above 0"),
        ({"extra": {"max_connections": 0}}, "max_connections", "from 1 to 1000"),
        ({"extra": {"max_connections": "2.5"}}, "max_connections", "from 1 to 1000"),
        ({"extra": {"max_connections": True}}, "max_connections", "from 1 to 1000"),
        ({"extra": {"max_connections": {}}}, "max_connections", "from 1 to 1000"),
        ({"extra": {"verify": 1}}, "verify", "true, false or the path of a CA file"),
        ({"extra": {"verify": "/nowhere/ca.pem"}}, "verify", "No such file or directory"),
        ({"extra": {"verify": "a\0b"}}, "verify", "cannot be read"),
        ({"extra": {"verify": " "}}, "verify", "cannot be read"),
        ({"password": "Bearer abcdefgh"}, "password", "begins with 'Bearer': give the key alone"),
        ({"password": '"abcdefgh"'}, "password", "is in quotation marks: remove them"),
        ({"password": "***"}, "password", "is '***', which Airflow shows in place of a secret: give the key itself"),
        ({"host": "https://https://hub.oxen.ai"}, "host", "has https more than once, or without its colon"),
        ({"host": "https//hub.oxen.ai"}, "host", "has https more than once, or without its colon"),
        ({"extra": {"proxy": "proxy.example:3128"}}, "proxy", "such as http://proxy.example:3128"),
        ({"extra": {"proxy": "socks5://proxy.example"}}, "proxy", "such as http://proxy.example:3128"),
        ({"extra": {"proxy": "http://"}}, "proxy", "such as http://proxy.example:3128"),
        ({"extra": {"proxy": "http://proxy.example:0"}}, "proxy", "such as http://proxy.example:3128"),
        ({"extra": {"proxy": "http://proxy.example:x"}}, "proxy", "such as http://proxy.example:3128"),
        ({"extra": {"proxy": "http://[::1"}}, "proxy", "such as http://proxy.example:3128"),
        ({"extra": {"proxy": "http://two words:3128"}}, "proxy", "such as http://proxy.example:3128"),
        ({"extra": {"proxy": "http://pröxy.example"}}, "proxy", "such as http://proxy.example:3128"),
        ({"extra": {"proxy": 3128}}, "proxy", "such as http://proxy.example:3128"),
    ],
    ids=str,
)
def test_unusable_field_is_named(fields: dict[str, Any], field: str, words: str) -> None:
    """Each way a field can be wrong is an error that names the connection and the field, and says why."""
    with pytest.raises(OxenConfigError) as caught:
        _parse(**fields)

    assert (caught.value.conn_id, caught.value.field) == ("hub_eu", field)
    assert str(caught.value).startswith(f"connection 'hub_eu', field '{field}': ")
    assert words in str(caught.value)


def test_schema_is_not_shown() -> None:
    """A key with a slash that was not encoded in a URI arrives as schema, and is not shown."""
    with pytest.raises(OxenConfigError, match=r"field 'schema'.*percent-encoded") as caught:
        _parse(host="", port=123, schema="rest-of-the-key@hub.oxen.ai")

    assert "rest-of-the-key" not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "https://ox:s3cret@oxen.example",
        "https://ox:s3cret@oxen.example:x",
        "https://ox:s3cret@oxen.example:99999",
        "https://ox:s3cret@öxen\N{CARE OF}.example",
        "ox:s3cret@oxen.example",
    ],
)
def test_login_in_the_host_is_not_shown(host: str) -> None:
    """An error about a host that holds a login does not show it."""
    with pytest.raises(OxenConfigError) as caught:
        _parse(host=host)

    assert "s3cret" not in f"{caught.value} {caught.value!r}"


def test_white_space_around_the_key_is_removed() -> None:
    """A key pasted with a line break at its end is used without it."""
    assert _parse(password=f" {KEY}\n").api_key == KEY


def test_defaults() -> None:
    """Without extra fields: 30 seconds, 20 connections, the certificate checked, no proxy, no warning."""
    read = replace(_parse(), ca_file_version=None)  # of this machine's CAs

    assert read == ClientConfig("hub_eu", "https://hub.oxen.ai", KEY, 30.0, True, None, 20)
    assert _parse().warnings == ()


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"timeout": "12.5"}, {"timeout_seconds": 12.5}),
        ({"timeout": 5}, {"timeout_seconds": 5.0}),
        ({"timeout": ""}, {"timeout_seconds": 30.0}),
        ({"timeout": None}, {"timeout_seconds": 30.0}),
        ({"max_connections": "7"}, {"max_connections": 7}),
        ({"max_connections": 7.0}, {"max_connections": 7}),
        ({"verify": True}, {"verify": True}),
        ({"verify": False}, {"verify": False}),
        ({"verify": "false"}, {"verify": False}),
        ({"verify": " No "}, {"verify": False}),
        ({"verify": "0"}, {"verify": False}),
        ({"verify": "TRUE"}, {"verify": True}),
        ({"verify": ""}, {"verify": True}),
        ({"proxy": " http://proxy.example:3128 "}, {"proxy": "http://proxy.example:3128"}),
        ({"proxy": "https://me:pw@proxy.example"}, {"proxy": "https://me:pw@proxy.example"}),
        ({"proxy": ""}, {"proxy": None}),
    ],
    ids=str,
)
def test_extra_field_is_read(extra: dict[str, Any], expected: dict[str, Any]) -> None:
    """Extra fields may be text, as a form stores them; an empty one is the default."""
    config = _parse(extra=extra)

    assert {name: getattr(config, name) for name in expected} == expected
    assert {name: type(getattr(config, name)) for name in expected} == {n: type(v) for n, v in expected.items()}


def test_ca_file_is_accepted(tmp_path) -> None:
    """``verify`` may be the path of a CA file."""
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))

    assert _parse(extra={"verify": str(path)}).verify == str(path)


@pytest.mark.parametrize("content", [None, "", "no certificate"], ids=["a folder", "empty", "not PEM"])
def test_ca_file_without_a_certificate_is_refused(tmp_path, content: str | None) -> None:
    """A path that holds no certificate is an error before any request, and names the path."""
    path = tmp_path / "ca.pem"
    if content is None:
        path.mkdir()
    else:
        path.write_text(content)

    with pytest.raises(OxenConfigError, match=r"field 'verify': names a CA file that cannot be read, '.*ca\.pem'"):
        _parse(extra={"verify": str(path)})


def test_unknown_extra_fields_are_named() -> None:
    """A warning names the extra fields that are not read, and those that would be; empty fields are left out."""
    (warning,) = _parse(extra={"time_out": 5, "Verify": False, "nothing": None}).warnings

    assert warning == (
        "connection 'hub_eu': extra fields Verify, time_out are unknown and not used; "
        "the known ones are timeout, verify, proxy, max_connections"
    )


def test_unknown_extra_field_cannot_forge_a_line_of_the_log() -> None:
    """A name with line breaks and escape codes is shown in one printable line."""
    (warning,) = _parse(extra={"x\r\nERROR forged\x1b[31m": 5}).warnings

    assert warning.isprintable()
    assert r"extra fields 'x\r\nERROR forged\x1b[31m' are unknown" in warning


@pytest.mark.parametrize(
    ("host", "warned"),
    [
        ("http://oxen.example", True),
        ("http://10.0.0.7:8080", True),
        ("http://localhost.example", True),
        ("http://localhost:8080", False),
        ("http://hub.localhost", False),
        ("http://127.0.0.1", False),
        ("http://127.8.8.8", False),
        ("http://[::1]:8080", False),
        ("https://oxen.example", False),
    ],
)
def test_plain_http_is_warned_of_beyond_this_machine(host: str, warned: bool) -> None:
    """A key sent unencrypted over a network is warned of."""
    assert any("unencrypted" in warning for warning in _parse(host=host).warnings) is warned


def test_repr_shows_neither_key_nor_proxy() -> None:
    """A configuration may be logged: its key and its proxy's login are not in it."""
    shown = repr(_parse(extra={"proxy": "http://me:s3cret@proxy.example"}))

    assert KEY not in shown
    assert "s3cret" not in shown


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "host": st.text(max_size=20) | st.from_regex(r"\A(https?://)?[a-z.:@\[\]/%0-9]{0,20}\Z"),
            "schema": st.text(max_size=6),
            "port": st.text(max_size=6) | st.integers(),
            "extra": st.dictionaries(
                st.sampled_from(["timeout", "verify", "proxy", "max_connections"]) | st.text(max_size=6),
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
                max_size=4,
            ),
        },
    ),
    st.just(KEY) | st.sampled_from(["{} {}", "{}é", "{}\n{}"]).map(lambda form: form.format(KEY, KEY)),
)
def test_arbitrary_fields_give_a_config_or_an_error(fields: dict[str, Any], password: str) -> None:
    """Whatever a connection holds, it is read or refused by name, and its key is never shown."""
    try:
        result: ClientConfig | OxenConfigError = _parse(password=password, **fields)
    except OxenConfigError as error:
        result = error

    assert result.conn_id == "hub_eu"
    assert KEY not in f"{result} {result!r}"
    if isinstance(result, ClientConfig):
        assert result.base_url.startswith(("https://", "http://"))
        assert not result.base_url.endswith("/")
    else:
        assert result.field
