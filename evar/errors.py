"""The one exception for a user's mistake, and the nearest right name for a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right. Printed as its message alone, without a traceback; exit code 2."""


def did_you_mean(wrong: str, choices: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` with the nearest of ``choices``, or the list of them when none is near."""
    names = sorted(choices)
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    if near:
        return f" Did you mean '{near[0]}'?"
    return f" There are: {', '.join(names)}." if names else ""
