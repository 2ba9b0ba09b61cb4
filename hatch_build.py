"""
What the package index shows of the README.

The index has no file but the README, so what is relative there would lead nowhere. Links and pictures get the address
of the repository, ``Source`` under ``[project.urls]``, at the tag of the version. As long as there is no such address,
the words of a link stay, and pictures are left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_RELATIVE = re.compile(r"(!?)\[([^][]*)\]\((?!\w+:|#)([^()\s]+)\)(\n\n)?")


class ReadmeForTheIndex(MetadataHookInterface):
    """Sets ``readme`` when a package is built or installed from here."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add what the index shows."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        source = metadata.get("urls", {}).get("Source")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": for_the_index(text, source, metadata["version"]),
        }


def for_the_index(text: str, source: str | None, version: str) -> str:
    """
    Replace what is relative in a page.

    :param text: the page, in Markdown.
    :param source: address of the repository, without a slash at its end; None as long as there is none.
    :param version: whose tag the addresses name, so that an older version's page shows what it had.
    :return: the page without relative links and pictures.
    """

    def replace(found: re.Match[str]) -> str:
        picture, words, target, end = found.groups(default="")
        if source is None:
            return "" if picture else words + end
        return f"{picture}[{words}]({source}/{'raw' if picture else 'blob'}/v{version}/{target}){end}"

    parts = _FENCE.split(text)
    parts[::2] = [_RELATIVE.sub(replace, part) for part in parts[::2]]
    return "".join(parts)
