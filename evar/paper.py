"""The published numbers (``results/paper/*.csv``) by protocol, model and task; the README there explains them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import pandas as pd

from evar.paths import paper_dir
from tasks.base import Task

SOURCES = ("m2d_clap_2024", "m2d_clap_2025", "m2d_as_2024", "evar_readme", "other_figures")
"""Files of ``results/paper`` in the order of precedence: where two give the same cell, the earlier one stands."""
COLUMNS = ("protocol", "model", "group", "task", "metric", "value", "ci95", "flags", "source")
FLAGS: Mapping[str, str] = {
    "quoted": "the paper quotes another paper",
    "not_zero_shot": "the model saw the task's data in training (underlined in the paper)",
    "underlined_in_seed_text_only": "underlined in a text version of the paper, bold in the paper itself",
    "unavailable": "no value published",
    "distilled": "trained by distillation from several teachers",
    "multi_objective": "trained with several objectives",
    "read_from_image": "read from a picture of the table",
    "second_hand": "from a listing or a summary, not seen in the paper",
    "protocol_unstated": "the source does not say under which protocol",
    "single_run": "one run, not a mean",
}
"""What may stand in the column ``flags``, separated by ``|``."""
MAIN_METRIC: Mapping[str, str] = {"retrieval": "t2a_R@1"}
"""The figure that stands in tables, for protocols whose results have several."""
SAME_MODEL: Mapping[str, str] = {
    "M2D": "M2D/0.7",
    "M2D-CLAP (2024)": "M2D-CLAP/0.7",
    "M2D-CLAP (2025)": "M2D-CLAP_2025",
}
"""Names that another table has for the same row (their numbers are equal)."""


@lru_cache(maxsize=1)
def published() -> pd.DataFrame:
    """Return all published numbers, one per row, values in percent (ranks and CIDEr as they are).

    Rows without a value are left out; a model has one name, that of the M2D-CLAP papers where they show it.
    """
    tables = [pd.read_csv(paper_dir() / f"{name}.csv") for name in SOURCES]
    table = pd.concat(tables, ignore_index=True)[list(COLUMNS)]
    table["flags"] = table["flags"].fillna("")
    table["model"] = table["model"].replace(dict(SAME_MODEL))
    return table[table["value"].notna()].reset_index(drop=True)


def rows_for(
    protocol: str, tasks: list[Task], models: tuple[str, ...] | None = None, *, metric: str | None = None
) -> pd.DataFrame:
    """Return the published numbers of a protocol on these tasks, with our task names in the column ``name``.

    Args:
        protocol: lineareval, finetune, zeroshot, retrieval.
        tasks: our tasks; those without a name in the papers have no published numbers.
        models: only these rows of the papers' tables; None for all.
        metric: of retrieval another figure than the one in tables, R@1 from text to audio (``a2t_R@1``, …).

    Returns:
        One row per model and task; where several sources give it, that of the first of :data:`SOURCES`.
    """
    names = {name: task.name for task in tasks for name in task.paper_name.split("|") if name}
    table = published()
    table = table[(table["protocol"] == protocol) & table["task"].isin(names)]
    figure = metric if metric is not None else MAIN_METRIC.get(protocol)
    if figure is not None:
        table = table[table["metric"] == figure]
    if models is not None:
        table = table[table["model"].isin(models)]
    table = table.assign(name=table["task"].map(names))
    return table.drop_duplicates(["model", "name"]).reset_index(drop=True)
