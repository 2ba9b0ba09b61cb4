"""A real Airflow, a local hub, and a real browser. Run by ``make test-ui`` alone."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from airflow_provider_oxen.testing import LocalHub
from demo.standalone import AirflowStandalone
from tests.support.public_hub import public_hub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, BrowserContext, Page, Route

#: A browser that shows the same each time, and sends no request but to the pages under test.
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-device-scale-factor=1",
]
_VIEWPORT = {"width": 1400, "height": 820}
#: How long a page may take to show something, in milliseconds.
_LIMIT = 30_000
#: How large a picture may be, in bytes.
_LARGEST = 150_000

expect.set_options(timeout=_LIMIT)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", type=Path, help="folder to write the screenshots to, instead of a temporary one")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def hub() -> Iterator[LocalHub]:
    """A hub whose key is found nowhere else, so that a leak can be searched for."""
    with LocalHub(api_key="sk-7d20be5194f34c08a7ce") as hub:
        yield hub


@pytest.fixture(scope="session")
def public(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalHub, str]]:
    """A local hub that clients take for the public one, with the same key, and a connection to it."""
    with public_hub(tmp_path_factory.mktemp("public"), api_key=hub.api_key) as found:
        yield found


@pytest.fixture(scope="session")
def airflow(public: tuple[LocalHub, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowStandalone]:
    """An Airflow whose connection ``oxen_default`` leads to that hub."""
    env = {"AIRFLOW_CONN_OXEN_DEFAULT": public[1]}
    dags = Path(__file__).parent / "dags"
    with AirflowStandalone(tmp_path_factory.mktemp("airflow"), dags=dags, env=env) as airflow:
        airflow.wait_for_dags({"judge_intents", "label_intents", "publish_intents"})
        yield airflow


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's chromium, or another of that name, driven by Playwright, which brings none of its own."""
    path = shutil.which("chromium")
    assert path, "There is no chromium on the PATH: install Debian's package of that name."
    with sync_playwright() as playwright:
        # Each launch has a new folder of user data.
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def logged_in(browser: Browser, airflow: AirflowStandalone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Log in as a person does, and keep what the browser remembers of it."""
    path = tmp_path_factory.mktemp("browser") / "state.json"
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(_LIMIT)
    page.goto(airflow.url)
    name, password = airflow.login
    page.get_by_label("Username").fill(name)
    page.locator("input[type=password]").fill(password)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Welcome")).to_be_visible()
    context.storage_state(path=path)
    context.close()
    return path


@pytest.fixture
def seen_by_browser() -> list[str]:
    """What Airflow responded to the browser, text by text."""
    return []


@pytest.fixture
def context(browser: Browser, logged_in: Path, seen_by_browser: list[str]) -> Iterator[BrowserContext]:
    """The browser of a user who is logged in; it reaches nothing but this machine."""
    context = browser.new_context(
        storage_state=logged_in,
        viewport=_VIEWPORT,
        color_scheme="light",
        locale="en-US",
        timezone_id="UTC",
        reduced_motion="reduce",
    )
    context.set_default_timeout(_LIMIT)

    def pass_on(route: Route) -> None:
        if urlsplit(route.request.url).hostname != "127.0.0.1":
            route.abort()
        elif re.search(r"/(api|ui)/", route.request.url):
            response = route.fetch()
            seen_by_browser.append(response.text())
            route.fulfill(response=response)
        else:
            route.continue_()

    context.route("**/*", pass_on)
    yield context
    context.unroute_all(behavior="ignoreErrors")
    context.close()


@pytest.fixture
def page(context: BrowserContext, airflow: AirflowStandalone) -> Page:
    """A page that has been opened on nothing yet; ``page.goto`` takes Airflow's paths."""
    page = context.new_page()
    goto = page.goto
    page.goto = lambda path, **named: goto(f"{airflow.url}{path}", **named)  # type: ignore[method-assign]
    return page


@pytest.fixture
def shoot(request: pytest.FixtureRequest, page: Page, tmp_path: Path) -> Callable[..., None]:
    """
    Take a picture of the page as it stands, small enough to be kept in the repository.

    With ``log=True``, this package's lines of the log are written beside it. ``tests/docs/test_pictures.py`` compares
    them with today's messages.
    """

    def take(name: str, *, log: bool = False) -> None:
        file = (request.config.getoption("--screenshots") or tmp_path) / f"{name}.png"
        page.mouse.move(0, 0)
        expect(page.get_by_role("tooltip")).to_have_count(0)
        expect(page.locator(".chakra-spinner, .chakra-skeleton")).to_have_count(0)
        # The first words of each line are in the picture.
        assert page.evaluate("[...document.querySelectorAll('*')].every(element => element.scrollLeft === 0)")
        picture = Image.open(io.BytesIO(page.screenshot(animations="disabled", caret="hide")))
        file.parent.mkdir(parents=True, exist_ok=True)
        # Few colours make it small; this way of choosing them keeps the rare ones.
        picture = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        picture.save(file, optimize=True)
        assert file.stat().st_size <= _LARGEST
        if log:
            items = page.get_by_test_id(re.compile("^virtualized-item-")).all_inner_texts()
            lines = [re.sub(r"^.*?(INFO|WARNING|ERROR) - ", "", " ".join(item.split())) for item in items]
            ours = [line for line in lines if " of ox/customer-intents" in line]
            file.with_suffix(".txt").write_text("".join(f"{line}\n" for line in ours))

    return take
