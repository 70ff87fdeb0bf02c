"""HTML from parts: whatever is not markup already is escaped, so that a name from outside cannot become markup."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from typing import Any

VOID = frozenset({"br", "circle", "input", "line", "meta", "path", "polygon", "polyline", "rect", "wbr"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(content: object) -> Markup:
    """Return anything as HTML: markup as it is, everything else escaped."""
    return content if isinstance(content, Markup) else Markup(escape(str(content)))


def join(parts: Iterable[object], between: str = "") -> Markup:
    """Return the parts, each escaped if need be, one after another; ``between`` is markup."""
    return Markup(between.join(text(part) for part in parts if part is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """Return an element. None as a child or an attribute is left out, True is an attribute without a value.

    An attribute's name may end in ``_`` (``class_``, ``for_``); other underscores become hyphens.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{escape(str(value))}"')
    head = " ".join(words)
    if not children and name in VOID:
        return Markup(f"<{head}/>")
    return Markup(f"<{head}>{join(children)}</{name}>")


def data_block(name: str, content: Any) -> Markup:
    """Return data for the page's script, which reads it as JSON; nothing in it can end the block."""
    words = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    safe = words.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(f'<script type="application/json" id="{escape(name)}">{safe}</script>')


def fold(summary: object, *children: object, **attributes: object) -> Markup:
    """Return what is shown on a click: ``<details>`` with its summary."""
    return tag("details", tag("summary", summary), *children, **attributes)


def scrolling(label: str, *children: object, class_: str = "scroll") -> Markup:
    """Return a box that scrolls sideways, with the keyboard too."""
    return tag("div", *children, class_=class_, role="region", aria_label=label, tabindex="0")


def empty(content: str = "–") -> Markup:
    """Return the mark of a cell without a number."""
    return tag("span", content, class_="none")
