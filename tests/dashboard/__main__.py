"""
Draw ``docs/grafana.json`` over metrics of real waits. ``python -m tests.dashboard``, which ``make dashboard`` runs.

Grafana itself comes from no package index, but its components do: npm has them. They get what a Grafana gets, the
dashboard and what Prometheus responds to its queries.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.dashboard.collect import DASHBOARD, ROOT, collect

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

PICTURE = ROOT / "docs/images/grafana-dashboard.png"
#: What is installed and collected; not under version control.
BUILD = ROOT / "build/dashboard"

_HERE = Path(__file__).parent
_WIDTH = 1400
#: How large the picture may be, in bytes.
_LARGEST = 300_000
#: For what Grafana's components import and these panels do not use.
_LOADERS = {".woff2": "dataurl", ".woff": "empty", ".ttf": "empty"}
_ADDRESS = "http://dashboard.test/"


def _bundle() -> None:
    """Install Grafana's components, and make one script of them and of the page."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "page.jsx"):
        shutil.copy(_HERE / name, BUILD)
    install = ["npm", "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(install, cwd=BUILD, check=True)
    options = ["--bundle", "--jsx=automatic", "--outfile=page.js", "--log-level=error"]
    options += [f"--loader:{suffix}={loader}" for suffix, loader in _LOADERS.items()]
    options.append('--define:process.env.NODE_ENV="production"')
    subprocess.run([BUILD / "node_modules/.bin/esbuild", "page.jsx", *options], cwd=BUILD, check=True)


def _serve(route: Route, html: str) -> None:
    """Respond to the browser with the page, its script and its style, and Grafana's icons."""
    path = route.request.url.removeprefix(_ADDRESS)
    icons = BUILD / "node_modules/@grafana/ui/dist"
    file = icons / path.replace("public/build/", "public/") if path.startswith("public/") else BUILD / path
    if not path:
        route.fulfill(body=html, content_type="text/html")
    elif file.is_file():
        route.fulfill(path=file)
    else:  # Grafana's own copy of the font, which the page has from elsewhere
        route.fulfill(status=404)


def _shoot(page: Page) -> None:
    """Take a picture of the page once it is complete."""
    page.wait_for_selector(".u-over", state="attached")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1_000)  # drawn in the next frames
    assert page.get_by_text("No data").count() == 0, "a panel has no data"
    picture = Image.open(io.BytesIO(page.locator("#root").screenshot(animations="disabled")))
    picture.convert("RGB").save(PICTURE, optimize=True)  # with 256 colours, the dark ones would change
    assert PICTURE.stat().st_size <= _LARGEST
    print(f"Look at {PICTURE}")


def _draw(drawing: dict[str, Any]) -> None:
    """Let Debian's chromium draw the dashboard, and keep the picture in the documentation."""
    data = json.dumps(drawing).replace("<", "\\u003c")
    html = (
        '<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="page.css"><div id="root"></div>'
        f'<script>window.drawing = {data}</script><script src="page.js"></script>'
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": _WIDTH, "height": 900}, timezone_id="UTC", locale="en-US")
        page.on("pageerror", lambda error: print(f"The page failed: {error}"))
        page.route("**/*", lambda route: _serve(route, html))
        page.goto(_ADDRESS)
        _shoot(page)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.dashboard", description=__doc__)
    parser.add_argument("--minutes", type=float, default=21, help="how long to wait for evaluations")
    parser.add_argument("--again", action="store_true", help="draw what was collected the last time")
    options = parser.parse_args()
    _bundle()
    kept = BUILD / "responses.json"
    if not options.again:
        folder = BUILD / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        kept.write_text(json.dumps(collect(folder, options.minutes)))
    _draw({"dashboard": json.loads(DASHBOARD.read_text()), **json.loads(kept.read_text())})


if __name__ == "__main__":
    main()
