"""Captions made of labels: "The sound of …" (MODELS 9 of the specification; M2D-CLAP, Section 3.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from evar.audioset import classes
from evar.errors import UserError
from evar.pretrain.caption_keys import Row, Video

TEMPLATE = "The sound of {label}."
_SEGMENT = re.compile(r'([\w-]{11}), *(\d+)(?:\.\d*)?, *\d+(?:\.\d*)?, *"?([^"\s]+)"?', re.ASCII)


def joined(labels: Sequence[str]) -> str:
    """Return ``A``, ``A, and B`` or ``A, B, and C``; underscores become spaces.

    The comma before "and" stands between two labels, too, as in the captions of the published runs.
    """
    names = [label.replace("_", " ") for label in labels]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])}, and {names[-1]}"


def label_caption(labels: Sequence[str], template: str = TEMPLATE) -> str:
    """Return the caption of one label or several."""
    return template.replace("{label}", joined(labels))


def caption_rule(template: str) -> Callable[[Sequence[str]], str]:
    """Return the rule from a clip's labels to its caption: a sentence with ``{label}``, or a task's own.

    ``template``: a sentence, or the name of a task, whose zero-shot captions are taken. Raises :class:`UserError` if
    it is neither.
    """
    if "{label}" in template:
        if "{" in template.replace("{label}", ""):
            raise UserError(f"--label_template='{template}': no braces but those of {{label}}")
        return lambda labels: label_caption(labels, template)
    from tasks.base import all_tasks, get_task

    if not template.startswith(("folder:", "csv:")) and template not in all_tasks():
        raise UserError(f"--label_template='{template}': it needs {{label}} where the label goes, or is a task's name")
    task = get_task(template)

    def of_task(labels: Sequence[str]) -> str:
        # A rule may be a dictionary of codes, so that it must see the label as it is where there is only one.
        return task.caption(labels[0] if len(labels) == 1 else joined(labels))

    return of_task


def audioset_rows(path: Path) -> Iterator[Row]:
    """Yield a caption for every row of a segment table of AudioSet, labels in the order in which they stand there."""
    names = {entry.mid: entry.display_name for entry in classes()}
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip() or line.startswith("#") or line.lower().startswith("ytid"):
                    continue
                found = _SEGMENT.fullmatch(line.strip())
                if found is None:
                    raise UserError(f'{path}, row {number}: not <YouTube id>, <start>, <end>, "<class>,<class>…"')
                labels = [names[mid] for mid in found[3].split(",") if mid in names]
                yield Row(Video(found[1], int(found[2])), label_caption(labels) if labels else "")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
