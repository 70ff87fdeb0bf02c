"""Clips per second of each augmentation, and of its twin that goes clip by clip, in one run: draws and application.

python benchmarks/augment.py [--device=cpu] [--batch=64] [--bands=80] [--frames=1001] [--repeats=7]

The twins are those that the tests hold the fast versions against. On a GPU the twins' tensors lie there too.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from measure import ROOT, table

from evar.audio.augment import draw_mixup, draw_resize_crop, draw_spec_augment, mixup, resize_crop, spec_augment
from model_adapters.networks.m2d import kept_by_patchout

sys.path.insert(0, str(ROOT / "tests"))


def timed(work, device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def pairs(x, waves, targets):
    """Return (name, fast, slow) of each augmentation on these log-mels, waveforms and targets."""
    from audio import slow_augment as slow

    n, _, bands, frames = x.shape
    grid = (bands // 16, frames // 16)

    def slow_mixup(clips):
        drawn = draw_mixup(n, 0.5)
        return slow.slow_mixup(clips, targets, drawn.share.tolist(), drawn.partner.tolist())

    def slow_spec():
        x_clips = x.clone()
        band, frame = slow.slow_span(bands, 30), slow.slow_span(frames, 192)
        for clip in x_clips:  # spans at once, not band by band as in the test
            clip[:, band.start : band.stop] = 0
            clip[:, :, frame.start : frame.stop] = 0
        return x_clips

    def slow_crop():
        boxes = [slow.on_clip(slow.slow_box(bands, frames), bands, frames) for _ in range(n)]
        return slow.slow_resize_crop(x, boxes)

    def slow_patchout():
        n_rows, n_columns = slow.slow_stripes(grid, 0.5, torch.rand(()).item())
        drawn = [(torch.randperm(grid[0])[:n_rows], torch.randperm(grid[1])[:n_columns]) for _ in range(n)]
        return [slow.slow_kept(grid, set(r.tolist()), set(c.tolist()), "marked") for r, c in drawn]

    return [
        ("mixup, waveform", lambda: mixup(waves, targets, draw_mixup(n, 0.5)), lambda: slow_mixup(waves)),
        ("mixup, log-mel", lambda: mixup(x, targets, draw_mixup(n, 0.5)), lambda: slow_mixup(x)),
        ("SpecAugment", lambda: spec_augment(x, draw_spec_augment(bands, frames, 30, 192)), slow_spec),
        ("random resize crop", lambda: resize_crop(x, draw_resize_crop(n, bands, frames)), slow_crop),
        ("structured patchout", lambda: kept_by_patchout(n, grid, 0.5, "marked").to(x.device), slow_patchout),
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--bands", type=int, default=80)
    parser.add_argument("--frames", type=int, default=1001)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_default_device(None if given.device == "cpu" else given.device)
    x = torch.randn(given.batch, 1, given.bands, given.frames)
    waves, targets = torch.randn(given.batch, 160 * (given.frames - 1)), torch.eye(given.batch)
    torch.set_default_device(None)
    rows = []
    for name, fast, slow in pairs(x, waves, targets):
        spent = []
        for _ in range(given.repeats + 1):  # in turn, so that a drift of the machine's speed meets both
            spent.append((timed(fast, given.device), timed(slow, given.device)))
        seconds = [sorted(column)[given.repeats // 2] for column in zip(*spent[1:], strict=True)]
        rows.append((name, *(f"{given.batch / s:,.0f}" for s in seconds), f"{seconds[1] / seconds[0]:.1f}"))
    print(table(rows, ("augmentation", "clips per s", "clip by clip", "times faster")))


if __name__ == "__main__":
    main()
