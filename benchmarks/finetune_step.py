"""Seconds and memory of a fine-tuning step of M2D: the product's against the reference way's, in one run.

python benchmarks/finetune_step.py [--device=cpu] [--depth=4] [--embed_dim=192] [--batch=32] [--frames=501]
python benchmarks/finetune_step.py --device=cuda      # ViT-Base, 64 clips of 1001 frames, bf16

Both do ESC-50's augmentation and Mixup with the same random numbers from the same weights; their losses are compared
first, both in float32. Then rounds alternate and the median counts: steps on a batch that is there already, and whole
epochs with the loader: from the pack, against decoding and resampling each file each time in loader processes.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
from encode_m2d import rates_of_matmul
from loader import PlainClips, batches_of
from measure import measured, python, run, table
from plain_finetune import Draws, PlainTuner, PlainViT, plain_step
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from evar.audio.augment import draw_mixup, draw_resize_crop, draw_spec_augment
from evar.audio.loading import ClipItem
from evar.audio.pack import PackSpec, pack_clips
from evar.feed import Feed
from evar.finetune_model import FineTuned, augmented, losses
from evar.finetune_settings import FinetuneSettings
from evar.optimisers import make_optimiser
from evar.training import Trainer, seed_step
from model_adapters.registry import load_model

RATE, BANDS, CLASSES, SEED = 16000, 80, 50, 43
LR = {"sgd": 0.05, "adamw": 1e-4}
MIXUP, BAND_MASK, FRAME_MASK = 0.3, 15, 48
STEPS = 100_000
Seconds = tuple[float, float]


class Ours:
    """The product's step, of the same parts as ``python -m evar.finetune``."""

    def __init__(self, given: argparse.Namespace, precision: str) -> None:
        self.given = given
        self.settings = FinetuneSettings(
            lr=LR[given.optimizer], batch_size=given.batch, optimizer=given.optimizer, mixup=MIXUP, rrc=True,
            freq_mask=BAND_MASK, time_mask=FRAME_MASK, patchout=given.patchout, patchout_mode="reference",
            dur_frames=given.frames,
        )  # fmt: skip
        options = {"depth": given.depth, "embed_dim": given.embed_dim, "dur_frames": given.frames}
        adapter = load_model("m2d", "random", {k: str(v) for k, v in options.items()} | {"features": "flat"}).adapter
        torch.manual_seed(SEED)
        self.network = FineTuned(adapter, CLASSES).to(given.device)
        optimiser = make_optimiser(given.optimizer, self.network)
        how = {"precision": precision, "compile": given.compile, "device": given.device}
        self.trainer = Trainer(self.network, optimiser, np.full(STEPS, LR[given.optimizer]), seed=SEED, **how)
        self.network.learning()

    def step(self, waves: Tensor, targets: Tensor) -> float:
        """Take one step on waveforms on the device."""
        lengths = torch.full((len(waves),), waves.shape[1], device=waves.device)

        def micro_batches():
            yield augmented(self.network.adapter, waves, lengths, targets, len(waves), self.settings)

        def losses_of(inputs):
            logits = self.network(inputs.x, inputs.lengths, self.settings.patchout)
            return losses(logits, inputs.targets, multi_label=False)

        return self.trainer.step(losses_of, micro_batches(), rows=len(waves)).loss


class Plain:
    """The reference way, from the same weights."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.done = given, 0
        ours = Ours(given, "fp32").network
        encoder = ours.adapter.encoder
        size = encoder.vit.size
        vit = PlainViT(size.dim, size.depth, size.heads or size.dim // 64, encoder.vit.pos_embed.shape[1])
        vit.load_state_dict(encoder.vit.state_dict())
        stats = tuple(encoder.norm_stats.tolist())
        self.model = PlainTuner(vit, CLASSES, stats, given.patchout).to(given.device)
        self.model.linear.load_state_dict(ours.head.linear.state_dict())
        self.model.train()
        trained = [p for p in self.model.parameters() if p.requires_grad]
        plain = {"lr": LR[given.optimizer], "foreach": False, "fused": False}
        if given.optimizer == "adamw":
            adam = {"betas": (0.9, 0.95), "weight_decay": 1e-4, "amsgrad": True}
            self.optimiser: torch.optim.Optimizer = torch.optim.AdamW(trained, **plain, **adam)
        else:
            self.optimiser = torch.optim.SGD(trained, momentum=0.9, **plain)
        self.draws: list[Draws] = []

    def drawn(self, steps: int, rows: int) -> None:
        """Make the random numbers of the next steps, those that the product draws at the same steps."""
        self.draws = [draws_of(self.done + n, rows, self.given.frames) for n in range(steps)]

    def step(self, waves: Tensor, targets: Tensor) -> float:
        """Take one step on waveforms in ordinary memory."""
        self.done += 1
        return plain_step(self.model, self.optimiser, waves, targets, self.draws.pop(0), self.given.frames)


def draws_of(step: int, rows: int, frames: int) -> Draws:
    """Return what the product draws at a step, in the order in which it draws."""
    seed_step(SEED, step)
    mix, mask, crop = draw_mixup(rows, MIXUP), draw_spec_augment(BANDS, frames, BAND_MASK, FRAME_MASK), None
    crop = draw_resize_crop(rows, BANDS, frames)
    u = float(torch.rand(()))
    keys = torch.rand(rows, BANDS // 16), torch.rand(rows, frames // 16)
    bands, span = mask.bands.tolist(), mask.frames.tolist()
    assert mix is not None
    return Draws(mix.share, mix.partner, (bands[0], bands[1]), (span[0], span[1]), crop.boxes.tolist(), u, *keys)


def batch_of(given: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Return waveforms of ``frames`` frames and one-hot targets, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    waves = 0.1 * torch.randn(given.batch, 160 * (given.frames - 1), generator=generator)
    return waves, torch.eye(CLASSES)[torch.randint(CLASSES, (given.batch,), generator=generator)]


def wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def seconds_of(steps, device: str) -> Seconds:
    """Return wall and this process's processor seconds per step of a generator that takes steps."""
    wait(device)
    begin, spent = time.perf_counter(), time.process_time()
    count = sum(1 for _ in steps)
    wait(device)
    return (time.perf_counter() - begin) / count, (time.process_time() - spent) / count


def same_losses(given: argparse.Namespace, steps: int = 5) -> str:
    """Return in words how far apart the two are after some steps in float32; an error if it is not rounding."""
    ours, plain = Ours(given, "fp32"), Plain(given)
    waves, targets = batch_of(given)
    plain.drawn(steps, given.batch)
    on = waves.to(given.device), targets.to(given.device)
    pairs = [(ours.step(*on), plain.step(waves, targets)) for _ in range(steps)]
    apart = max(abs(a - b) / abs(b) for a, b in pairs)
    assert apart < 1e-3, pairs
    return f"losses of {steps} steps in float32: {apart:.1e} apart (relative), from {pairs[0][1]:.4f} on"


def without_loader(given: argparse.Namespace) -> tuple[Seconds, Seconds]:
    """Return seconds per step of both, on a batch that is there."""
    ours, plain = Ours(given, given.precision), Plain(given)
    waves, targets = batch_of(given)
    on = waves.to(given.device), targets.to(given.device)

    spent: list[tuple[Seconds, Seconds]] = []
    for _ in range(given.rounds + 1):  # in turn, so that a drift of the machine's speed meets both; the first is lost
        plain.drawn(given.steps, given.batch)
        slow = seconds_of((plain.step(waves, targets) for _ in range(given.steps)), given.device)
        fast = seconds_of((ours.step(*on) for _ in range(given.steps)), given.device)
        spent.append((fast, slow))
    return middle(spent[1:])


def middle(spent: list[tuple[Seconds, Seconds]]) -> tuple[Seconds, Seconds]:
    """Return ours and theirs: of the round whose ratio is the median."""
    return sorted(spent, key=lambda pair: pair[1][0] / pair[0][0])[len(spent) // 2]


def with_loader(given: argparse.Namespace, folder: Path) -> tuple[Seconds, Seconds, str]:
    """Return seconds per step of both with their loaders, whole epochs after the first, and what packing cost."""
    paths, labels = files_of(given, folder)
    unit = 160 * (given.frames - 1)
    keys = [n.to_bytes(16, "big") for n in range(len(paths))]
    with measured() as packing:
        pack = pack_clips([ClipItem(path) for path in paths], keys, folder / "pack", PackSpec(RATE))
    feed = Feed(pack, pack.rows(keys), keys, unit, device=torch.device(given.device), workers=given.workers)
    batches = batches_of(len(paths), given.batch)
    plain_clips = PlainClips(paths, RATE, unit)
    # Its processes stay from epoch to epoch, which is kind to it.
    keep = {"num_workers": given.workers, "persistent_workers": given.workers > 0}
    loader = torch.utils.data.DataLoader(plain_clips, batch_sampler=batches, **keep)
    ours, plain, on = Ours(given, given.precision), Plain(given), labels.to(given.device)

    def our_epoch(epoch: int) -> Iterator[float]:
        for batch in feed.epoch(batches, epoch):
            yield ours.step(batch.inputs, on[torch.from_numpy(batch.rows).to(on.device)])

    def plain_epoch() -> Iterator[float]:
        for rows, waves in zip(batches, loader, strict=True):
            yield plain.step(waves, labels[rows])

    spent: list[tuple[Seconds, Seconds]] = []
    for epoch in range(given.rounds + 1):
        plain.drawn(len(batches), given.batch)
        slow = seconds_of(plain_epoch(), given.device)
        spent.append((seconds_of(our_epoch(epoch), given.device), slow))
    return (*middle(spent[1:]), f"the pack of {len(paths)} files: {packing.wall:.1f} s, once")


def files_of(given: argparse.Namespace, folder: Path) -> tuple[list[Path], Tensor]:
    """Write sounds at the files' own rate, a whole number of batches, and return paths and one-hot labels."""
    count = given.batch * given.steps
    random, seconds = np.random.default_rng(0), (given.frames - 1) / 100
    paths = [folder / f"{n}.wav" for n in range(count)]
    for path in paths:
        noise = 0.1 * random.standard_normal(int(seconds * given.file_rate))
        soundfile.write(path, noise.clip(-1, 1).astype(np.float32), given.file_rate, subtype="PCM_16")
    return paths, torch.eye(CLASSES)[torch.from_numpy(random.integers(0, CLASSES, count))]


def memory_of(given: argparse.Namespace, which: str) -> float:
    """Return the MiB that three steps add to a process that has everything else; run in a process of its own."""
    stepper = Ours(given, given.precision) if which == "ours" else Plain(given)
    waves, targets = batch_of(given)
    if which == "ours":
        waves, targets = waves.to(given.device), targets.to(given.device)
    gc.collect()
    gpu = given.device != "cpu"
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak is counted from here
    before = torch.cuda.memory_allocated() / 2**20 if gpu else resident("VmRSS")
    for _ in range(3):
        if isinstance(stepper, Plain):
            stepper.drawn(1, given.batch)
        stepper.step(waves, targets)
    return (torch.cuda.max_memory_allocated() / 2**20 if gpu else resident("VmHWM")) - before


def resident(name: str) -> float:
    """Return a field of this process's memory in MiB, on Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(name))) / 1024


def memories(given: argparse.Namespace) -> tuple[float, float]:
    """Return the MiB of both, each in a fresh process."""
    words = [f"--{name}={value}" for name, value in vars(given).items() if name not in ("memory", "compile")]
    found = []
    for which in ("ours", "plain"):
        script = "benchmarks/finetune_step.py"
        output, _ = run(python(script, *words, f"--memory={which}", *["--compile"] * given.compile))
        found.append(float(json.loads(output.splitlines()[-1])))
    return found[0], found[1]


def share_of_matmul(given: argparse.Namespace, seconds: float) -> str:
    """Return in words which part of the measured matmul rate the product's step reaches."""
    given = argparse.Namespace(**vars(given) | {"compile": False})  # compiled code is not counted
    ours = Ours(given, given.precision)
    batch = [x.to(given.device) for x in batch_of(given)]
    flops = []
    for _ in range(8):  # the number of patches that are kept varies from step to step
        with FlopCounterMode(display=False) as counter:
            ours.step(*batch)
        flops.append(counter.get_total_flops())
    dtype = torch.bfloat16 if given.precision == "bf16" else torch.float32
    with torch.inference_mode():
        by_mm, _ = rates_of_matmul(given.device, dtype, 3072 if given.device == "cpu" else 8192)
    share = statistics.mean(flops) / seconds / by_mm
    return f"{share:.0%} of torch.mm's measured {given.precision} rate here ({by_mm / 1e9:,.0f} GFLOP/s)"


def arguments() -> argparse.Namespace:
    """Return the options, with what suits the device where they are not given."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    for name in ("depth", "embed_dim", "batch", "frames"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--precision", choices=("fp32", "bf16"))
    parser.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd")
    parser.add_argument("--patchout", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=6, help="per round; also batches in an epoch of the loader")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--file_rate", type=int, default=44100, help="Hz of the files; 16000: nothing to resample")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--memory", choices=("ours", "plain"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    small = {"depth": 4, "embed_dim": 192, "batch": 32, "frames": 501, "precision": "fp32"}
    large = {"depth": 12, "embed_dim": 768, "batch": 64, "frames": 1001, "precision": "bf16"}
    for name, value in (small if given.device == "cpu" else large).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    return given


def main() -> None:
    given = arguments()
    if given.memory:
        print(json.dumps(memory_of(given, given.memory)))
        return
    print(f"{torch.get_num_threads()} threads; {vars(given)}")
    print(same_losses(given))
    fast, slow = without_loader(given)
    with tempfile.TemporaryDirectory() as name:
        fed, decoded, said = with_loader(given, Path(name))
    print(said)
    named = (("the batch is there", fast, slow), ("with the loader", fed, decoded))
    rows = [[what, a[0], b[0], given.batch / a[0], b[0] / a[0], b[1] / a[1]] for what, a, b in named]
    # The second ratio is of the process that trains: what other programs do meanwhile, and loader processes, is not in.
    heads = ["step", "seconds", "reference way", "clips per s", "times faster", "in processor time"]
    print(table(rows, heads))
    small, large = memories(given)
    print(table([["MiB of a step", small, large, large / small]], ["peak memory", "ours", "reference way", "ratio"]))
    print(share_of_matmul(given, fast[0]))


if __name__ == "__main__":
    main()
