"""What the published protocol's choices do to scores, on real audio: the table of docs/protocol.md.

python benchmarks/protocol_effects.py --root=DIR [--weights=gpvad.pth] [--seeds=10] [--only=NAME,NAME]

DIR holds the folders esc50, us8k (a part will do) and fsdd. Embeddings are GPVAD's, a small tagger (256 numbers a
clip). They are stored in the cache, so a second call only trains probes. A rule that no command has as an option (the
loss's division, …) is put in for the moment of the measurement by replacing one function of the probe.

Seeds 42, 43, …: mean ± 95 % Student interval over them; differences are paired by seed. Tasks without seeds (zero-shot)
have no ±.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from protocol_effects_bench import FIRST_SEED, Bench, Data, Effect, compared, embedded, means, percent
from protocol_effects_models import byol_a_statistics, neighbours, sixteen_bit, zero_shot

from evar import probe_heads, statistics
from evar.probe_splits import random_part
from evar.probes import Fold, logistic_probe

HALF_UNIT = 2.5
"""Seconds: with this unit every ESC-50 clip is twice as long as what is heard of it."""
ESC_10 = ("dog", "rooster", "rain", "sea_waves", "crackling_fire", "crying_baby", "sneezing", "clock_tick",
          "helicopter", "chainsaw")  # fmt: skip


def valid_rule(bench: Bench) -> Iterator[Effect]:
    """Validation tenth: plain random, or grouped by source recording and stratified."""
    for task in ("esc50", "us8k"):
        other = bench.data(task).scores(bench.seeds, valid_rule="grouped")
        yield compared("validation tenth: random → grouped by recording", task, bench.default(task), other)


def ties(bench: Bench) -> Iterator[Effect]:
    """Early stopping: the latest of equal epochs, or the first."""
    for task in ("esc50", "us8k", "fsdd"):
        default = bench.default(task)
        first = bench.data(task).scores(bench.seeds, ties="first")
        yield compared("equal validation scores: the latest is kept → the first", task, default, first)


def loss_division(bench: Bench) -> Iterator[Effect]:
    """Loss divided by the number of classes, or plain cross-entropy.

    Adam's step with gradients C times as large is the step with eps and weight decay divided by C.
    """
    data = bench.data("esc50")
    classes, default = len(data.clips.task.labels), bench.default("esc50")
    with mock.patch.object(probe_heads, "EPS", probe_heads.EPS / classes):
        other = data.scores(bench.seeds, weight_decay=1e-8 / classes)
    yield compared("loss: also divided by the classes → cross-entropy (Adam)", "esc50", default, other)


def scaler(bench: Bench) -> Iterator[Effect]:
    """Scaler fitted before the validation tenth is cut off, or after."""
    data = bench.data("esc50")
    after = []
    for seed in bench.seeds:
        stream = np.random.RandomState(seed)
        folds = []
        for fold in data.folds:
            kept, held = random_part(data.labels[fold.train], len(data.clips.task.labels), 0.1, stream)
            folds.append(Fold(fold.name, fold.train[kept], fold.train[held], fold.test))
        after.append(data.scores([seed], folds=folds)[0])
    yield compared("scaler: with the validation rows → without", "esc50", bench.default("esc50"), np.array(after))


def best_epoch(bench: Bench) -> Iterator[Effect]:
    """Best epoch chosen on held-out training rows, on the test part, or not at all (linear probe)."""
    data, default = bench.data("esc50"), bench.default("esc50")
    on_test = data.scores(bench.seeds, folds=[replace(fold, valid=fold.test) for fold in data.folds])
    yield compared("epoch: best on the validation tenth → on the test part", "esc50", default, on_test)
    with mock.patch.object(probe_heads, "_validate", lambda pool, heads, *_: [0.0] * len(heads)):
        last = data.scores(bench.seeds)
    yield compared("epoch: best on the validation tenth → the last of 200", "esc50", default, last)


def windows(bench: Bench) -> Iterator[Effect]:
    """Training windows of clips longer than the unit: one random one, or the front; and what the place is worth."""
    model, clips = bench.model(), bench.clips("esc50", HALF_UNIT)
    name = f"esc50, unit {HALF_UNIT:g} s"
    one = embedded(model, clips)
    default = one.scores(bench.seeds)
    front = embedded(model, clips, front=True).scores(bench.seeds)
    yield compared("training window: one random → the front", name, default, front)
    extractions = [one, *(embedded(model, clips, window_seed=FIRST_SEED + n) for n in (1, 2))]
    several = np.array([data.scores([FIRST_SEED + n])[0] for n, data in enumerate(extractions)])
    yield Effect("three runs: one extraction → one each", name, percent(default[:3]), percent(several))


def intervals(bench: Bench) -> Iterator[Effect]:
    """What an interval covers: seeds, clips, recordings."""
    for task in ("esc50", "us8k"):
        data = bench.data(task)
        fits = data.fits(bench.seeds[:3])
        rows = np.concatenate([fold.test for fold in data.folds])
        right = np.concatenate([fit.scores for fit in fits[0]]).argmax(1) == data.labels[rows]
        groups = None if data.groups is None else [data.groups[n] for n in rows]
        clips = statistics.bootstrap_accuracy(right)
        grouped = statistics.bootstrap_accuracy(right, groups=groups)
        seeds = statistics.student_t(means(fits).tolist())
        assert clips.half_width is not None and grouped.half_width is not None and seeds.half_width is not None
        yield Effect(
            "interval: Student over three seeds → bootstrap over clips; over recordings",
            task,
            f"±{seeds.half_width:.1f}",
            f"±{100 * clips.half_width:.1f}; ±{100 * grouped.half_width:.1f}",
        )


def pooling(bench: Bench) -> Iterator[Effect]:
    """Mean of the folds' accuracies, or accuracy of all their clips (folds of unequal size)."""
    data = bench.data("us8k")
    fits = data.fits(bench.seeds)
    sizes = [len(fold.test) for fold in data.folds]
    pooled = np.array([100 * np.average([fit.score for fit in row], weights=sizes) for row in fits])
    yield compared("folds: mean of their scores → all clips pooled", "us8k", means(fits), pooled)


def under_training(bench: Bench) -> Iterator[Effect]:
    """The published probe against one that is solved; and with few clips, hence few steps."""
    for task in ("esc50", "us8k", "fsdd"):
        yield solved(bench.data(task), task, bench.default(task))
    small = esc_10(bench.data("esc50"))
    yield solved(small, "ESC-10 (320 clips to train on)", small.scores(bench.seeds))


def esc_10(data: Data) -> Data:
    """Return the part of ESC-50 that is ESC-10: 400 clips, ten classes."""
    wanted = np.isin(data.labels, [data.clips.task.labels.index(name) for name in ESC_10])
    labels = np.zeros_like(data.labels)
    labels[wanted] = np.unique(data.labels[wanted], return_inverse=True)[1]
    folds = [Fold(f.name, f.train[wanted[f.train]], None, f.test[wanted[f.test]]) for f in data.folds]
    clips = replace(data.clips, task=replace(data.clips.task, labels=tuple(sorted(ESC_10))))
    return Data(clips, data.features, labels, data.groups, folds)


def solved(data: Data, name: str, default: NDArray[np.float64]) -> Effect:
    """Compare with the logistic probe (it has no seed, so the difference is to its one score)."""
    fits = logistic_probe(
        data.features,
        data.labels,
        data.folds,
        keys=[str(row) for row in range(len(data.features))],
        n_classes=len(data.clips.task.labels),
        multi_label=False,
        groups=data.groups,
    )
    other = np.full(len(default), 100 * np.mean([fit.score for fit in fits]))
    effect = compared("probe: published → solved (`--probe=logistic`)", name, default, other)
    return replace(effect, other=f"{other[0]:.1f}")


MEASUREMENTS: dict[str, Callable[[Bench], Iterator[Effect]]] = {
    f.__name__: f
    for f in (valid_rule, ties, loss_division, scaler, best_epoch, windows, intervals, pooling, under_training,
              byol_a_statistics, sixteen_bit, neighbours, zero_shot)
}  # fmt: skip


def main() -> None:
    """Run the measurements and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--weights")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", default=",".join(MEASUREMENTS))
    given = parser.parse_args()
    bench = Bench(given.root, given.weights, given.seeds)
    print("| what: default → other | data | default | other | difference |\n|---|---|---|---|---|", flush=True)
    for name in given.only.split(","):
        begin = time.perf_counter()
        for effect in MEASUREMENTS[name](bench):
            print(effect.line(), flush=True)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
