"""Every run: its settings, what it heard, its weights, and the versions of what ran it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from evar.html.entries import Section
from evar.html.markup import Markup, fold, join, scrolling, tag
from evar.report import PROTOCOLS, row_names
from evar.results import Result

FACTS = ("settings", "input", "weights", "data", "model_state", "efficiency", "also", "timings")


def run_section(results: Sequence[Result], problems: Sequence[str]) -> Section:
    """Return all runs folded up, the environments they ran in, and what was left out of the report."""
    places: dict[str, int] = {}
    runs = [_run(result, name, places) for result, name in _named(results)]
    box = fold("Environments", _environments([json.loads(words) for words in places]))
    parts: list[object] = [box, tag("div", *runs, class_="runs")]
    if problems:
        lines = [tag("li", line) for line in problems]
        parts.append(join([tag("h3", "Left out"), tag("p", "Files that are no results:"), tag("ul", *lines)]))
    lead = f"{len(results)} runs, with everything their scores depend on. Equal environments have one letter."
    return Section("runs", "Runs", "Settings and versions of every run", lead, join(parts))


def _named(results: Sequence[Result]) -> list[tuple[Result, str]]:
    found = []
    for protocol in PROTOCOLS:
        here = sorted(
            (r for r in results if r["protocol"] == protocol), key=lambda r: (r["task"], r["model"], r["created"])
        )
        found += list(zip(here, row_names(here), strict=True))
    return found


def _run(result: Result, name: str, places: dict[str, int]) -> Markup:
    place = places.setdefault(json.dumps(result["versions"], sort_keys=True), len(places))
    half = "" if result["ci95"] is None else f" ±{100 * result['ci95']:.1f}"
    said = f"{100 * result['mean']:.1f}{half} %"
    summary = join([tag("b", name), f" · {result['task']} · {PROTOCOLS[result['protocol']]} ", tag("small", said)])
    pairs: list[tuple[str, object]] = [
        ("run", f"{result['run_id']}, {result['created']}, environment {letter(place)}"),
        ("interval", result["ci_method"] or "none"),
        ("scores", ", ".join(f"{100 * score:.2f}" for score in result["scores"])),
    ]
    flags = dict.fromkeys(result["flags"]) | dict(result.get("notes", {}))
    pairs += [(flag.replace("_", " "), note or "see the documentation of results") for flag, note in flags.items()]
    pairs += [(key.replace("_", " "), _facts(result[key])) for key in FACTS if result.get(key)]
    pairs += [("files", ", ".join(str(file) for file in result.get("files", {}).values()))] * bool(result.get("files"))
    body = tag("dl", *(join([tag("dt", key), tag("dd", value)]) for key, value in pairs))
    return fold(summary, body, data_name=f"{name} {result['task']}")


def _facts(block: Mapping[str, Any]) -> Markup:
    words = [join([tag("i", key), "=", _short(value)]) for key, value in block.items()]
    return join(words, ", ")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return value or "''"
    words = json.dumps(value, ensure_ascii=False)
    return words if len(words) <= 400 else words[:400] + "…"


def letter(number: int) -> str:
    """Return A, B, …, Z, AA, …"""
    more, last = divmod(number, 26)
    return (letter(more - 1) if more else "") + chr(ord("A") + last)


def _environments(places: Sequence[Mapping[str, Any]]) -> Markup:
    keys = list(dict.fromkeys(key for place in places for key in place))
    heads = [
        tag("th", "", scope="col"),
        *(tag("th", letter(n), scope="col", class_="text") for n in range(len(places))),
    ]
    lines = [
        tag("tr", tag("th", key, scope="row"), *(tag("td", _short(place.get(key)), class_="text") for place in places))
        for key in keys
    ]
    grid = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *lines))
    return scrolling("Environments", grid)
