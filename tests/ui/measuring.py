"""Where something is in a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator

__all__ = ["right_edge_of_text"]

_RIGHT_EDGE = """(element, wanted) => {
    const nodes = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
    let node = nodes.nextNode();
    while (!node.data.includes(wanted)) node = nodes.nextNode();
    const range = document.createRange();
    range.setStart(node, node.data.indexOf(wanted));
    range.setEnd(node, node.data.indexOf(wanted) + wanted.length);
    return range.getBoundingClientRect().right;
}"""


def right_edge_of_text(element: Locator, text: str) -> float:
    """Say where a text inside an element ends, in pixels from the left edge of the page."""
    return float(element.evaluate(_RIGHT_EDGE, text))
