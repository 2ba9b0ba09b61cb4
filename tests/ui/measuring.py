"""Where something is in a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator

__all__ = ["right_edge_of_text"]

#: A text may lie in several nodes of the page.
_RIGHT_EDGE = """(element, text) => {
    const begin = element.textContent.indexOf(text), end = begin + text.length;
    if (begin < 0) throw new Error(`no ${text} in ${element.textContent}`);
    const nodes = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
    const range = document.createRange();
    for (let at = 0, node = nodes.nextNode(); node !== null; at += node.length, node = nodes.nextNode()) {
        if (at <= begin && begin < at + node.length) range.setStart(node, begin - at);
        if (at < end && end <= at + node.length) range.setEnd(node, end - at);
    }
    return range.getBoundingClientRect().right;
}"""


def right_edge_of_text(element: Locator, text: str) -> float:
    """Say where a text inside an element ends, in pixels from the left edge of the page."""
    return float(element.evaluate(_RIGHT_EDGE, text))
