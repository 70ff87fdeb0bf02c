"""List, describe and validate tasks: ``python -m evar.tasks [NAME[,NAME]] [--validate]``."""

from __future__ import annotations

from fnmatch import fnmatch

from evar.cli import main
from evar.errors import UserError
from tasks.base import Task, all_tasks, get_task, validate


def tasks(names: tuple[str, ...] = (), *, check: bool = False) -> None:
    """List all tasks, or describe the named ones.

    Args:
        names: task names, comma-separated, with wildcards; all if left out
        check: check the facts of every task and say what is wrong
    """
    known = all_tasks()
    chosen = [t for n, t in known.items() if not names or any(fnmatch(n, pattern) for pattern in names)]
    if not chosen and names:
        get_task(names[0])  # says what the nearest name is
    if check:
        problems = [f"{task.name}: {line}" for task in chosen for line in validate(task)]
        if problems:
            raise UserError("; ".join(problems))
        print(f"{len(chosen)} tasks, all valid")
    elif names:
        print("\n\n".join(describe(task) for task in chosen))
    else:
        width = max(len(task.name) for task in chosen)
        for task in chosen:
            shape = f"{len(task.counts)} folds" if task.has_folds else "split"
            print(
                f"{task.name:<{width}}  {len(task.labels):>4} classes  {sum(task.counts.values()):>8,} clips  "
                f"{task.unit_seconds:>5.1f} s  {task.metric:<8}  {shape:<8}  {task.title} ({task.licence})"
            )


def describe(task: Task) -> str:
    """Return a task's facts, one per line."""
    facts = {
        "title": task.title,
        "domain": task.domain,
        "metric": task.metric,
        "seconds": f"{task.unit_seconds} per clip",
        "classes": f"{len(task.labels)}: {', '.join(task.labels[:12])}{' …' if len(task.labels) > 12 else ''}",
        "clips": ", ".join(f"{'fold ' if task.has_folds else ''}{key}: {n:,}" for key, n in task.counts.items()),
        "groups": f"{task.group_is or 'not known'}{', in several parts by design' if task.groups_cross else ''}",
        "caption": repr(task.captions()[0]),
        "licence": task.licence,
        "home": task.homepage,
        "citation": task.citation,
        "download": ", ".join(a.url for a in task.archives) or "made by the harness" * bool(task.generate) or "by hand",
        "by hand": task.manual,
    }
    return "\n".join([task.name, *(f"  {key:<9} {text}" for key, text in facts.items() if text)])


if __name__ == "__main__":
    main(tasks)
