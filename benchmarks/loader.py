"""Clips per second into the training loop: from the pack, against decoding each clip each time in loader processes.

python benchmarks/loader.py --data=DIR/esc50 [--rate=16000] [--batch=64] [--workers=2] [--synthetic=2000]

Both give the same batches (checked), on the same cores in one run; rounds alternate and the median counts. Then what
the pack alone can feed: synthetic clips of 10 s at 16 kHz, AudioSet's shape.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from measure import measured, table

from evar.audio.pack import open_pack
from evar.audio.pack_format import PackSpec
from evar.audio.pack_write import PackWriter
from evar.clips import open_task
from evar.feed import Feed, open_feed
from tasks.base import get_task


class PlainClips(torch.utils.data.Dataset):
    """The usual way: a file is decoded, resampled and padded whenever its clip is asked for."""

    def __init__(self, paths: list[Path], rate: int, unit: int) -> None:
        self.paths, self.rate, self.unit = paths, rate, unit

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> torch.Tensor:
        samples, rate = soundfile.read(self.paths[number], dtype="float32", always_2d=True)
        mono = samples.mean(axis=1)
        wave = torch.from_numpy(soxr.resample(mono, rate, self.rate, quality="HQ"))[: self.unit]
        return torch.nn.functional.pad(wave, (0, self.unit - len(wave)))


def batches_of(count: int, size: int) -> list[np.ndarray]:
    order = np.random.default_rng(0).permutation(count)
    return [order[i : i + size] for i in range(0, count, size)]


def rate_of(batches, clips: int) -> float:
    """Return the clips per second of a loop over ``batches`` that only touches each one."""
    begin = time.perf_counter()
    for batch in batches:
        float(batch[0, 0])
    return clips / (time.perf_counter() - begin)


def compare(given: argparse.Namespace, cache: Path) -> list[list[object]]:
    clips = open_task(get_task("esc50"), data=given.data, incomplete=True)
    with measured() as packing:
        feed = open_feed(clips, given.rate, workers=given.workers, cache=cache)
    unit = feed.unit
    plain = PlainClips(clips.paths, given.rate, unit)
    batches = batches_of(len(clips), given.batch)
    loader = torch.utils.data.DataLoader(plain, batch_sampler=batches, num_workers=given.workers)
    fed = feed.read(batches[0], 0, "front").inputs
    decoded = torch.stack([plain[n] for n in batches[0].tolist()]).clamp(-1, 1 - 2.0**-15)  # beyond: clipped, as said
    assert (fed - decoded).abs().max() <= 2.0**-16
    slow, fast = [], []
    for turn in range(given.rounds):
        slow.append(rate_of(iter(loader), len(clips)))
        fast.append(rate_of((b.inputs for b in feed.epoch(batches, turn)), len(clips)))
    ratio = statistics.median(f / s for f, s in zip(fast, slow, strict=True))
    print(f"the pack of {len(clips)} clips: {packing.wall:.1f} s, {packing.cpu:.1f} processor seconds, once")
    print(f"one epoch waits {len(clips) / statistics.median(slow):.1f} s for decoding, with the pack ", end="")
    print(f"{len(clips) / statistics.median(fast):.2f} s: {ratio:.0f} times faster")
    return [
        ["esc50, decoded each time", statistics.median(slow), 1.0],
        ["esc50, from the pack", statistics.median(fast), ratio],
    ]


def synthetic(given: argparse.Namespace, folder: Path) -> list[object]:
    unit, random = 160_000, np.random.default_rng(0)
    keys = [n.to_bytes(16, "big") for n in range(given.synthetic)]
    spec = PackSpec(16_000)
    with PackWriter(folder, spec, spec.fingerprint(keys)) as writer:
        for key in keys:
            writer.append(key, random.integers(-32768, 32768, unit, np.int16), 0)
        writer.finish()
    pack = open_pack(folder)
    feed = Feed(pack, pack.rows(keys), keys, unit, workers=given.workers)
    batches = batches_of(len(keys), given.batch)
    first = rate_of((b.inputs for b in feed.epoch(batches, 0)), len(keys))
    rates = [rate_of((b.inputs for b in feed.epoch(batches, n)), len(keys)) for n in range(1, 1 + given.rounds)]
    print(f"synthetic clips the first time, their checksums tested: {first:.0f} clips per second")
    return ["10 s at 16 kHz, from the pack", statistics.median(rates), "-"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="folder of ESC-50")
    parser.add_argument("--rate", type=int, default=16000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--synthetic", type=int, default=2000, help="number of synthetic clips, 320 kB each")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = [*compare(given, Path(name)), synthetic(given, Path(name) / "synthetic")]
    print(table(rows, ["source", "clips per second", "ratio"]))


if __name__ == "__main__":
    main()
