"""Charts as SVG, drawn here: bars with intervals, points with names, curves. Colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evar.html.markup import Markup, join, tag

LETTER = 6.3
"""Width of a letter of the charts' type, about."""


@dataclass(frozen=True)
class Bar:
    """A name, its number in percent, the ends of its interval, and how it looks (``own`` or ``published``)."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    kind: str = "own"

    def words(self) -> str:
        """Return what is said of it when asked."""
        span = "" if self.low is None or self.high is None else f", 95 % interval {self.low:.1f} to {self.high:.1f}"
        return f"{self.name}: {self.value:.1f} %{span}"


def svg(width: float, height: float, label: str, *children: object, class_: str = "chart") -> Markup:
    """Return a drawing that fills its box and has a name for those who do not see it."""
    size = f"0 0 {width:g} {height:g}"
    return tag(
        "svg", *children, viewBox=size, role="img", aria_label=label, class_=class_, style=f"max-width:{width}px"
    )


def shortened(name: str, letters: int) -> str:
    """Return a name of at most so many letters."""
    return name if len(name) <= letters else name[: letters - 1] + "…"


def words_at(x: float, y: float, words: object, anchor: str = "start", class_: str | None = None) -> Markup:
    """Return a line of text."""
    end = None if anchor == "start" else anchor
    return tag("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=end, class_=class_)


def bars(items: Sequence[Bar], label: str, *, chance: float | None = None, width: float = 400.0) -> Markup:
    """Return a chart of horizontal bars from 0 to 100 %, with whiskers; dotted: chance."""
    left = min(185.0, 12 + LETTER * max(len(item.name) for item in items))
    right, step, top = 46.0, 19.0, 4.0
    span = width - left - right
    bottom = top + step * len(items)

    def at(value: float) -> float:
        return left + span * min(max(value, 0.0), 100.0) / 100

    grid = [
        tag("line", x1=f"{at(v):.1f}", x2=f"{at(v):.1f}", y1=top, y2=bottom, class_="grid") for v in range(0, 101, 25)
    ]
    ticks = [words_at(at(v), bottom + 13, v, "middle", "tick") for v in (0, 50, 100)]
    rows = [_bar(item, at, left, top + step * n, step) for n, item in enumerate(items)]
    dots = []
    if chance is not None:
        x = f"{at(chance):.1f}"
        dots = [tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="chance", data_t=f"chance: {chance:.1f} %")]
    return svg(width, bottom + 18, label, *grid, *rows, *dots, *ticks)


def _bar(item: Bar, at: Callable[[float], float], left: float, y: float, step: float) -> Markup:
    end, middle = at(item.value), y + step / 2
    parts = [
        words_at(left - 6, middle + 4, shortened(item.name, int((left - 10) / LETTER)), "end"),
        tag("rect", x=f"{left:.1f}", y=f"{y + 3:.1f}", width=f"{max(end - left, 0.5):.1f}", height=step - 6, rx=1.5),
    ]
    reach = end
    if item.low is not None and item.high is not None:
        low, high = at(item.low), at(item.high)
        reach = max(reach, high)
        whisker = f"M{low:.1f} {middle:.1f}H{high:.1f}M{low:.1f} {middle - 3:.1f}v6M{high:.1f} {middle - 3:.1f}v6"
        parts.append(tag("path", d=whisker, class_="whisker"))
    parts.append(words_at(reach + 5, middle + 4, f"{item.value:.1f}", class_="value"))
    return tag("g", *parts, class_=item.kind, data_t=item.words())


@dataclass(frozen=True)
class Dot:
    """A named point; ``low`` and ``high`` are the ends of the interval of ``y``."""

    name: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    said: str = ""


def scatter(dots: Sequence[Dot], label: str, x_title: str, y_title: str) -> Markup:
    """Return a chart of named points over a logarithmic x axis (x above 0); y is percent."""
    width, height, left, right, top, bottom = 460.0, 300.0, 44.0, 14.0, 12.0, 40.0
    low_x, high_x = _decades([dot.x for dot in dots])
    ends = [v for dot in dots for v in (dot.y, dot.low, dot.high) if v is not None]
    low_y, high_y, step = _percent_axis(min(ends), max(ends))

    def x(value: float) -> float:
        return left + (width - left - right) * (math.log10(value) - low_x) / (high_x - low_x)

    def y(value: float) -> float:
        return top + (height - top - bottom) * (high_y - value) / (high_y - low_y)

    frame: list[Markup] = []
    for tick in _ticks(low_x, high_x):
        at = x(tick)
        frame.append(tag("line", x1=f"{at:.1f}", x2=f"{at:.1f}", y1=top, y2=height - bottom, class_="grid"))
        frame.append(words_at(at, height - bottom + 15, quantity(tick), "middle", "tick"))
    value = low_y
    while value <= high_y + 1e-9:
        frame.append(tag("line", x1=left, x2=width - right, y1=f"{y(value):.1f}", y2=f"{y(value):.1f}", class_="grid"))
        frame.append(words_at(left - 6, y(value) + 4, f"{value:g}", "end", "tick"))
        value += step
    frame.append(words_at((left + width - right) / 2, height - 6, x_title, "middle", "tick"))
    turned = f"rotate(-90 12 {height / 2 - 10:.0f})"
    frame.append(
        tag("text", y_title, x=12, y=f"{height / 2 - 10:.0f}", text_anchor="middle", class_="tick", transform=turned)
    )
    spans = [
        (x(dot.x), y(dot.y if dot.high is None else dot.high), y(dot.y if dot.low is None else dot.low)) for dot in dots
    ]
    taken = [(at - 1, upper, at + 1, lower) for at, upper, lower in spans]
    taken += [(x(dot.x) - 5, y(dot.y) - 5, x(dot.x) + 5, y(dot.y) + 5) for dot in dots]
    marks = []
    for dot in dots:
        at_x, at_y = x(dot.x), y(dot.y)
        parts: list[Markup | None] = []
        if dot.low is not None and dot.high is not None:
            parts.append(tag("path", d=f"M{at_x:.1f} {y(dot.low):.1f}V{y(dot.high):.1f}", class_="whisker"))
        parts.append(tag("circle", cx=f"{at_x:.1f}", cy=f"{at_y:.1f}", r=4.5))
        parts.append(_name_beside(shortened(dot.name, 30), at_x, at_y, taken, (left, width)))
        marks.append(tag("g", *parts, class_="own", data_t=dot.said or dot.name))
    return svg(width, height, label, *frame, *marks)


def _name_beside(
    name: str, x: float, y: float, taken: list[tuple[float, float, float, float]], edges: tuple[float, float]
) -> Markup | None:
    """Return a point's name where it covers no other point or name; None if there is no such place."""
    long = LETTER * len(name)
    places = [(x + 8, y + 4 + up, "start") for up in (0, -9, 9)] + [(x - 8, y + 4 + up, "end") for up in (0, -9, 9)]
    places += [(x, y - 9, "middle"), (x, y + 17, "middle")]
    for at_x, at_y, anchor in places:
        begin = at_x - {"start": 0.0, "middle": long / 2, "end": long}[anchor]
        box = (begin, at_y - 9, begin + long, at_y + 2)
        inside = edges[0] <= box[0] and box[2] <= edges[1]
        if inside and not any(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken):
            taken.append(box)
            return words_at(at_x, at_y, name, anchor)
    return None


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a logarithmic axis, as powers of ten, with some room."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max(0.12 * (high - low), 0.4)
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two powers of ten: 1, 10, 100, …, with 2 and 5 between where there is room."""
    steps = (1, 2, 5) if high - low < 3 else (1,)
    numbers = [s * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for s in steps]
    return [number for number in numbers if 10.0**low <= number <= 10.0**high]


def _percent_axis(low: float, high: float) -> tuple[float, float, float]:
    """Return ``(lower end, upper end, step)`` of an axis of percent around the numbers, in round steps."""
    step = next(s for s in (1, 2, 5, 10, 20, 25) if (high - low) / s <= 5 or s == 25)
    begin, end = math.floor(low / step) * step, math.ceil(high / step) * step
    return (begin - step if begin == end else begin), (end if end > begin else begin + step), step


def quantity(value: float) -> str:
    """Return 1200000 as ``1.2 M``."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


@dataclass(frozen=True)
class Curve:
    """One number per epoch; ``best``: the epoch that was kept (from 0), if one was chosen."""

    values: Sequence[float]
    best: int | None = None


def curves(lines: Sequence[Curve], label: str, y_title: str, *, percent: bool) -> Markup:
    """Return a chart of curves over epochs: each thin, their mean thick, a dot at each best epoch."""
    width, height, left, right, top, bottom = 240.0, 140.0, 40.0, 10.0, 18.0, 26.0
    epochs = max(len(line.values) for line in lines)
    every = [v for line in lines for v in line.values]
    low, high = (0.0, 100.0) if percent else (min(every), max(every))
    if high <= low:
        low, high = low - 0.5, high + 0.5

    def x(epoch: float) -> float:
        return left + (width - left - right) * (epoch / max(epochs - 1, 1) if epochs > 1 else 0.5)

    def y(value: float) -> float:
        return top + (height - top - bottom) * (high - value) / (high - low)

    def path(values: Sequence[float]) -> str:
        stride = max(1, len(values) // 120)
        places = sorted({*range(0, len(values), stride), len(values) - 1})
        return " ".join(f"{x(n):.1f},{y(values[n]):.1f}" for n in places)

    parts = []
    for value in (low, (low + high) / 2, high):
        at = f"{y(value):.1f}"
        parts.append(tag("line", x1=left, x2=width - right, y1=at, y2=at, class_="grid"))
        parts.append(words_at(left - 5, y(value) + 4, f"{value:.3g}", "end", "tick"))
    for epoch in sorted({0, epochs - 1}):
        parts.append(words_at(x(epoch), height - 10, epoch + 1, "middle", "tick"))
    parts.append(words_at((left + width - right) / 2, height - 10, "epoch", "middle", "tick"))
    parts.append(words_at(left - 34, 10, y_title, "start", "tick"))
    parts += [tag("polyline", points=path(line.values), class_="one") for line in lines[:10] if len(lines) > 1]
    shortest = min(len(line.values) for line in lines)
    mean = [sum(line.values[n] for line in lines) / len(lines) for n in range(shortest)]
    parts.append(tag("polyline", points=path(mean), class_="mean"))
    for line in lines[:10]:
        if line.best is not None and line.best < len(line.values):
            said = f"epoch {line.best + 1}: {line.values[line.best]:.4g}"
            parts.append(
                tag("circle", cx=f"{x(line.best):.1f}", cy=f"{y(line.values[line.best]):.1f}", r=3, data_t=said)
            )
    return svg(width, height, label, join(parts), class_="chart curve")
