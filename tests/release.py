"""
``make release-check``: what of RELEASING.md a machine can check, in its order. Each problem says what to do.

``make sbom`` and ``make licences`` look at an environment with the wheel and nothing else, as a user gets it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INSTALLED = ROOT / "build" / "installed"
SBOM_TOOL = ROOT / "build" / "sbom-tool"
SBOM = ROOT / "build" / "sbom.cdx.json"
#: What stands in a text until a person has filled it in.
OPEN = "TO FILL IN BEFORE THE FIRST RELEASE"
#: The addresses that pyproject.toml needs.
ADDRESSES = ("Documentation", "Source", "Changelog", "Issues")
#: The targets that must pass, the quick ones first.
TARGETS = (
    *("lint", "docs", "package", "licences", "sbom"),
    *("test", "test-system", "test-chaos", "test-cluster", "test-ui", "test-matrix JOBS=3", "fuzz", "bench SHORT=1"),
)
#: Licences that all of our users can live with, as parts of what packages say about theirs.
ALLOWED = (
    "Apache",
    "BSD",
    "ISC",
    "MIT",
    "Mozilla Public License 2.0",
    "PSF",
    "Python Software Foundation",
    "Unlicense",
)
#: Packages with another licence, and why that is no problem.
EXCEPTIONS = {"text-unidecode": "the Artistic License may be chosen; Airflow brings it"}
#: What only a person can do, printed at the end.
BY_HAND = (
    "Look at each picture that `make screenshots` changed.",
    "Read the changelog: does it say what users must do, also for gates that wait during the upgrade?",
    "Tag, push the tag, approve the environment `pypi`, and install from the package index: RELEASING.md.",
)


def find_problems(root: Path) -> list[str]:
    """
    Look at the texts of a release.

    :param root: the repository.
    :return: a sentence for each problem; empty if there is none.
    """
    version = re.findall(r'__version__ = "(.+)"', (root / "airflow_provider_oxen/__init__.py").read_text())[0]
    changelog = (root / "CHANGELOG.md").read_text()
    heads = re.findall(r"^## (.*)$", changelog, flags=re.MULTILINE)
    unreleased = changelog.partition("## [Unreleased]")[2].partition("\n## ")[0]
    urls = tomllib.loads((root / "pyproject.toml").read_text())["project"]["urls"]
    stored = (root / "tests/integration/test_trigger.py").read_text().partition("STORED = {")[2]

    problems = [f"pyproject.toml: [project.urls] has no {name}. Enter it." for name in ADDRESSES if name not in urls]
    problems += [
        f"{name}: remove the words that begin with 'until the first release'."
        for name in ("README.md", "docs/index.md", "docs/tutorial.md")
        if "until the first release" in (root / name).read_text().lower()
    ]
    if OPEN in (root / "SECURITY.md").read_text():
        problems.append(f"SECURITY.md: enter the address where it says {OPEN!r}.")
    if not any(head.startswith(f"[{version}] - ") for head in heads):
        problems.append(f"CHANGELOG.md: there is no heading '## [{version}] - <date>'.")
    if unreleased.strip():
        problems.append("CHANGELOG.md: move what is under Unreleased to the release.")
    if f'"{version}": {{' not in stored:
        problems.append(f"tests/integration/test_trigger.py: STORED has no trigger arguments of {version}. Add them.")
    return problems


def find_git_problems(root: Path) -> list[str]:
    """Look at the work tree: what is released is what is committed."""
    changed = _output("git", "-C", str(root), "status", "--porcelain")
    return ["Commit what has changed, or remove it: git status."] if changed.strip() else []


def find_unlicensed(packages: list[dict[str, str]]) -> list[str]:
    """
    Find what may not be used as its licence is.

    :param packages: name and licence of each, as pip-licenses lists them.
    :return: a sentence for each package whose licence is not allowed.
    """
    return [
        f"{package['Name']}: {package['License']}. Do without it, or say in EXCEPTIONS why it is no problem."
        for package in packages
        if package["Name"] not in EXCEPTIONS
        and ("GPL" in package["License"] or not any(name in package["License"] for name in ALLOWED))
    ]


def install(folder: Path, *what: str) -> Path:
    """Install something into an environment of its own; return its Python."""
    python = folder / "bin" / "python"
    _output(sys.executable, "-m", "uv", "venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
    _output(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python), *what)
    return python


def install_wheel() -> Path:
    """Install the wheel into an environment of its own; return its Python."""
    (wheel,) = (ROOT / "dist").glob("*.whl")
    return install(INSTALLED, str(wheel))


def check_licences() -> list[str]:
    """Check the licence of each package that is installed with the wheel."""
    python = install_wheel()
    tool = str(Path(sys.executable).with_name("pip-licenses"))
    listed = _output(tool, f"--python={python}", "--from=mixed", "--format=json")
    return find_unlicensed(json.loads(listed))


def write_sbom() -> None:
    """Write what is installed with the wheel as CycloneDX. The version is in none of the files that its tool reads."""
    python = install_wheel()
    tool = install(SBOM_TOOL, "--group", f"{ROOT / 'pyproject.toml'}:sbom").with_name("cyclonedx-py")
    SBOM.parent.mkdir(exist_ok=True)
    arguments = ("--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "library", "--output-reproducible")
    _output(str(tool), "environment", *arguments, "--output-file", str(SBOM), str(python))
    sbom = json.loads(SBOM.read_text())
    version = _output(str(python), "-c", "import airflow_provider_oxen as p; print(p.__version__)").strip()
    sbom["metadata"]["component"] |= {"version": version, "purl": f"pkg:pypi/airflow-provider-oxen@{version}"}
    SBOM.write_text(json.dumps(sbom, indent=2) + "\n")
    print(f"{SBOM.relative_to(ROOT)}: {len(sbom['components'])} packages are installed with {version}.")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make release-check", description=__doc__)
    parser.add_argument("what", choices=("check", "licences", "sbom"))
    parser.add_argument("--quick", action="store_true", help="only what needs no tests")
    arguments = parser.parse_args()
    if arguments.what == "sbom":
        write_sbom()
        return 0
    if arguments.what == "licences":
        return _report(check_licences())
    problems = find_problems(ROOT) + find_git_problems(ROOT)
    for target in () if arguments.quick else TARGETS:
        print(f"make {target} ...", flush=True)
        if subprocess.run(["make", *target.split()], cwd=ROOT, check=False).returncode:
            problems.append(f"make {target} failed.")
    code = _report(problems)
    print("", "Left for a person:", *(f"- {line}" for line in BY_HAND), sep="\n")
    return code


def _report(problems: list[str]) -> int:
    print(*(f"PROBLEM {problem}" for problem in problems), sep="\n" if problems else "")
    print(f"{len(problems)} problems." if problems else "No problem found.")
    return 1 if problems else 0


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
