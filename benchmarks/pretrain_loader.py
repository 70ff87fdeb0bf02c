"""Clips per second into pre-training: crops of 608 frames from a packed corpus, against the reference's way.

python benchmarks/pretrain_loader.py [--device=cpu] [--clips=1000] [--batch=64] [--workers=2] [--rounds=3]

In one run, on synthetic clips of 10 s at 16 kHz (AudioSet's shape), in rounds whose median counts: the threads alone
(cut from the pack, no log-mel), the log-mel on the device alone, both together as training sees them; and the
reference's way, in which loader processes read a float32 log-mel of the whole clip for every crop.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from measure import table

from evar.audio.pack import open_pack
from evar.audio.pack_format import PackSpec
from evar.audio.pack_write import PackWriter
from evar.pretrain.corpus_files import Corpus
from evar.pretrain.feed import PretrainFeed, crop_positions, epoch_batches, split_items
from evar.pretrain.settings import PretrainSettings

STATS = (-7.0, 4.0)


class WholeFiles(torch.utils.data.Dataset):
    """The usual way: every clip a file of float32 log-mel, read whole for one crop of it."""

    def __init__(self, folder: Path, clips: int, frames: int) -> None:
        self.folder, self.clips, self.frames = folder, clips, frames

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, number: int) -> torch.Tensor:
        whole = torch.from_numpy(np.load(self.folder / f"{number % 100}.npy"))
        start = int(np.random.randint(whole.shape[-1] - self.frames))
        return (whole[..., start : start + self.frames] - STATS[0]) / STATS[1]


def corpus_of(folder: Path, clips: int) -> Corpus:
    random, spec = np.random.default_rng(0), PackSpec(16_000)
    keys = [n.to_bytes(16, "big") for n in range(clips)]
    with PackWriter(folder / "pack", spec, spec.fingerprint(keys)) as writer:
        for key in keys:
            writer.append(key, random.integers(-32768, 32768, 160_000, np.int16), 0)
        writer.finish()
    pack = open_pack(folder / "pack")
    pack.verify()  # so that no round pays for the checksums, which are tested once
    names = tuple(f"{n}.wav" for n in range(clips))
    return Corpus(folder, names, pack.rows(keys), keys, np.full(clips, 10.0), None, (), None, pack, "benchmark")


def rate(clips: int, work: Callable[[], Iterable[object]], device: torch.device) -> float:
    begin = time.perf_counter()
    for _ in work():
        pass
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clips / (time.perf_counter() - begin)


def ways(given: argparse.Namespace, corpus: Corpus) -> dict[str, Callable[[], Iterable[object]]]:
    settings = PretrainSettings(batch_size=given.batch, min_clips=0)
    feed = PretrainFeed(corpus, settings, STATS, device=given.device, workers=given.workers)
    batches = list(epoch_batches(len(corpus), settings, 0))
    on_gpu = feed.device.type == "cuda"

    def cut(batch):
        clips, times = split_items(batch.mine, len(corpus))
        places = crop_positions([corpus.digests[n] for n in clips.tolist()], times, 0, 0)
        return feed.cropper.cut(corpus.source.stored(corpus.rows[clips]), places, pin=on_gpu)

    def threads(count):
        with ThreadPoolExecutor(count) as pool:
            yield from pool.map(cut, batches)

    ready = cut(batches[0])
    folder = corpus.folder / "lms"
    folder.mkdir()
    for n in range(100):
        np.save(folder / f"{n}.npy", np.random.default_rng(n).standard_normal((1, 80, 1001), np.float32))
    plain = torch.utils.data.DataLoader(
        WholeFiles(folder, len(corpus), 608), given.batch, num_workers=given.workers, drop_last=True
    )
    return {
        "cutting, one thread": lambda: threads(1),
        f"cutting, {given.workers} threads": lambda: threads(given.workers),
        f"log-mel alone, {given.device}": lambda: (feed.cropper.log_mel(ready) for _ in batches),
        "the feed": lambda: feed.epoch(batches, 0),
        "reference's way: whole float32 log-mels, loader processes": lambda: (b.to(feed.device) for b in plain),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clips", type=int, default=1000, help="320 kB each")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        corpus = corpus_of(Path(name), given.clips)
        counted = given.clips // given.batch * given.batch
        each = ways(given, corpus)
        for _ in range(given.rounds):
            for way, work in each.items():
                found.setdefault(way, []).append(rate(counted, work, torch.device(given.device)))
    medians = {way: statistics.median(rates) for way, rates in found.items()}
    rows = [[way, f"{clips:.0f}", f"{clips * 195_840 / 1e6:.0f}"] for way, clips in medians.items()]
    print(table(rows, ["608 frames of 80 bands", "clips per second", "MB of int16 per second"]))


if __name__ == "__main__":
    main()
