"""A choice, and the place where the page's script draws what was chosen: large things are not drawn all at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evar.html.markup import Markup, data_block, join, tag


def viewer(kind: str, label: str, choices: Sequence[tuple[str, str]], content: Sequence[Any]) -> Markup:
    """Return a list to choose from and an empty box; ``script.js`` has a drawer for each ``kind``.

    Args:
        kind: ``classes`` or ``confusion``.
        label: what is chosen.
        choices: ``(group, name)`` of each.
        content: what the drawer gets of each; kept in the page as JSON.
    """
    groups: dict[str, list[Markup]] = {}
    for number, (group, name) in enumerate(choices):
        groups.setdefault(group, []).append(tag("option", name, value=number))
    options = [tag("optgroup", *items, label=group) for group, items in groups.items()]
    chosen = tag("select", *options, id=f"{kind}-choice", data_draws=kind)
    return join(
        [
            tag("label", f"{label} ", chosen, class_="tools"),
            tag(
                "div",
                class_="drawn scroll",
                id=f"{kind}-drawn",
                role="region",
                aria_live="polite",
                aria_label=kind,
                tabindex="0",
            ),
            tag("noscript", tag("p", "This part is drawn by a script, which is switched off here.")),
            data_block(f"{kind}-data", content),
        ]
    )
