"""Progress bars: on a terminal only, and only for what takes longer than two seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def bar(what: str, total: int, initial: int = 0, unit: str = "clip") -> tqdm:
    """Return a progress bar that shows after two seconds, on a terminal; elsewhere it is silent."""
    return tqdm(
        total=total, initial=initial, desc=what, unit=unit, delay=2.0, leave=False, disable=not sys.stderr.isatty()
    )


def track(items: Iterable[T], what: str, total: int, unit: str = "clip") -> Iterable[T]:
    """Yield ``items`` while a bar counts them."""
    with bar(what, total, unit=unit) as progress:
        for item in items:
            yield item
            progress.update()


def say(message: str) -> None:
    """Print a line about what is going on to stderr, where it cannot mix with a table on stdout."""
    tqdm.write(message, file=sys.stderr)
