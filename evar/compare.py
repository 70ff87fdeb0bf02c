"""Two models on the same clips: difference with its interval, paired tests, corrected over tasks.

python -m evar.compare A B [--results=DIR] [--tasks=...] [--protocol=...] [--format=text|markdown|csv|latex]
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from evar.cli import main
from evar.errors import UserError
from evar.paths import runs_dir
from evar.progress import bar
from evar.store import write_atomically


def compare(
    a: str,
    b: str,
    *,
    results: Path | None = None,
    tasks: tuple[str, ...] = (),
    protocol: Literal["lineareval", "finetune", "zeroshot", "retrieval"] | None = None,
    weights_a: str | None = None,
    weights_b: str | None = None,
    root: Path | None = None,
    units: Literal["groups", "clips"] = "groups",
    draws: int = 10000,
    format: Literal["text", "markdown", "csv", "latex"] = "text",
    out: Path | None = None,
) -> None:
    """Compare two models clip by clip: a line per task with the difference, its 95 % interval and p values.

    The predictions beside the result files are paired. Accuracies (R@1): paired bootstrap and McNemar's test; mAP:
    influence functions. The verdict is that of p after Holm's correction over the tasks of a table, at 5 %.

    Args:
        a: a model's name, a row's name as python -m evar.report prints it, run ids, or a result file
        b: the other one
        results: folder of result files (default results/runs)
        tasks: only these tasks, comma-separated
        protocol: only this protocol
        weights_a: which weights of A, if it ran with several: the end of the path, or the start of the checksum
        weights_b: the same for B
        root: folder with one folder per task, which knows the clips' speakers or recordings (default as lineareval)
        units: groups, clips of one speaker or recording stay together; or clips, each taken as independent
        draws: draws of the bootstrap
        format: text, markdown, csv or latex
        out: write to this file instead of printing
    """
    # Imported here, for they bring torch: --help answers at once.
    from evar import comparison
    from evar.comparison_text import WRITERS, Comparison

    if draws < 1:
        raise UserError(f"--draws={draws}: must be at least 1")
    folder = runs_dir(results)
    of_a = comparison.select(a, folder, weights_a, "--weights_a")
    of_b = comparison.select(b, folder, weights_b, "--weights_b")
    pairs, left_out = comparison.pairable(comparison.common(of_a, of_b, tasks, protocol))
    lines = []
    with bar("compare", len(pairs), unit="task") as progress:
        for one, other in pairs:
            lines.append(comparison.compare_pair(one, other, root=root, units=units, draws=draws))
            progress.update(1)
    names = comparison.name_of(a, weights_a, of_a), comparison.name_of(b, weights_b, of_b)
    notes = left_out + comparison.setting_notes(pairs)
    text = WRITERS[format](Comparison(*names, comparison.corrected(lines), notes, comparison.seeds_of(pairs)))
    if out is not None:
        write_atomically(out, text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main(compare)
