"""Seconds and memory of a pre-training step of M2D-CLAP or M2D: the product's against the reference way's, in one run.

python benchmarks/pretrain_step.py [--device=cpu] [--objective=m2d_clap] [--dim=192] [--depth=4] [--batch=32]
python benchmarks/pretrain_step.py --dim=768 --depth=2 --batch=8
python benchmarks/pretrain_step.py --device=cuda      # ViT-Base, 512 clips of 608 frames, bf16

Both start from the same weights and mask the same patches; their losses are compared first, both in float32, and have
to agree. Then rounds alternate and the median counts: steps on a batch that is there already, and whole epochs with the
loader: crops of a packed corpus, against a float32 log-mel file per clip in loader processes. On a GPU the reference
way has bf16, too (it trains in mixed precision); there only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from encode_m2d import rates_of_matmul
from finetune_step import Seconds, resident, seconds_of
from measure import python, run, table
from plain_pretrain import PlainClips, PlainM2D, plain_adamw, plain_step
from pretrain_loader import STATS, corpus_of, rate
from torch import Tensor

from evar.optimisers import make_optimiser
from evar.pretrain import masks
from evar.pretrain.base import Batch, DataFacts
from evar.pretrain.caption_store import Captions
from evar.pretrain.feed import PretrainFeed, epoch_batches
from evar.pretrain.log import Parts
from evar.pretrain.objectives import build
from evar.pretrain.settings import PretrainSettings
from evar.schedules import ema_decay
from evar.training import Trainer, seed_step
from model_adapters.networks.vit import Block

SEED, STEPS, CAPTIONS, TEXT = 3, 100_000, 5, 768
AGREE = {"cpu": 1e-5}
"""Largest relative difference of losses in float32; on other devices ten times as much."""
Rounds = dict[str, list[Seconds]]


def settings_of(given: argparse.Namespace) -> PretrainSettings:
    """Return M2D's recipe in the sizes that are asked for."""
    return PretrainSettings(
        given.objective, (80, given.frames), dim=given.dim, depth=given.depth, decoder_dim=given.decoder_dim,
        decoder_depth=given.decoder_depth, decoder_heads=given.decoder_dim // 32, batch_size=given.batch, min_clips=0,
    )  # fmt: skip


class Ours:
    """The product's step, of the same parts as ``python -m evar.pretrain``."""

    def __init__(self, given: argparse.Namespace, precision: str) -> None:
        s = settings_of(given)
        torch.manual_seed(SEED)
        self.network = build(s, DataFacts(STATS, TEXT if given.objective == "m2d_clap" else 0)).to(given.device)
        self.network.plan(STEPS)
        for module in self.network.modules():
            if given.compile and isinstance(module, Block):
                module.compile()
        how = {"weight_decay": s.weight_decay, "decay_vectors": False, "amsgrad": False}
        optimiser = make_optimiser("adamw", self.network, **how)
        self.trainer = Trainer(
            self.network, optimiser, np.full(STEPS, s.lr), seed=SEED, device=given.device, precision=precision,
            clip_norm=s.clip_norm,
        )  # fmt: skip
        self.network.train()
        self.parts = Parts()

    def step(self, log_mel: Tensor, text: Tensor | None) -> float:
        """Take one step on a batch on the device."""
        rows = len(log_mel)

        def micro_batches() -> Iterator[tuple[Batch, Tensor]]:
            noise = self.network.draw(rows)
            yield Batch(np.arange(rows), log_mel, text), noise

        def losses(part: tuple[Batch, Tensor]) -> Tensor:
            return self.parts.add(self.network.losses(*part))

        info = self.trainer.step(losses, micro_batches(), rows=rows)
        self.network.after_step(info.step)
        self.parts.forget()
        return info.loss


class Plain:
    """The reference way, from the same weights, with the same noise."""

    def __init__(self, given: argparse.Namespace, precision: str) -> None:
        self.precision, self.done, self.noise = precision, 0, torch.empty(0)
        ours = Ours(given, "fp32").network
        self.model = PlainM2D(settings_of(given), TEXT if given.objective == "m2d_clap" else 0)
        self.model.load_state_dict(ours.state_dict())
        self.model.to(given.device).train()
        self.optimiser = plain_adamw(self.model)
        self.decays = ema_decay(STEPS, *self.model.settings.ema).tolist()
        s = self.model.settings
        self.draw = partial(masks.draw, s.mask, grid=s.grid, ratio=s.mask_ratio)

    def step(self, log_mel: Tensor, text: Tensor | None) -> float:
        """Take one step; drawing the noise that the product draws at it is all that it has too much."""
        seed_step(SEED, self.done)
        noise, decay = self.draw(rows=len(log_mel)), self.decays[self.done]
        self.done += 1
        return plain_step(self.model, self.optimiser, log_mel, text, noise, decay, self.precision)


def stepper(given: argparse.Namespace, way: str) -> Ours | Plain:
    """Return the way ``ours fp32``, ``ours bf16``, ``reference way fp32`` or ``reference way bf16``."""
    kind, precision = way.rsplit(" ", 1)
    return Ours(given, precision) if kind == "ours" else Plain(given, precision)


def ways(given: argparse.Namespace) -> list[str]:
    """Return what is measured, the reference way last."""
    return [*(f"ours {name}" for name in given.precision), f"reference way {given.reference_precision}"]


def batch_of(given: argparse.Namespace, rows: int = 0) -> tuple[Tensor, Tensor | None]:
    """Return standardised log-mels and, for M2D-CLAP, vectors of captions, on the device."""
    generator, rows = torch.Generator().manual_seed(0), rows or given.batch
    log_mel, text = torch.randn(rows, 1, 80, given.frames, generator=generator), None
    if given.objective == "m2d_clap":
        text = torch.randn(rows, TEXT, generator=generator).to(given.device)
    return log_mel.to(given.device), text


def same_losses(given: argparse.Namespace, steps: int = 3) -> str:
    """Return in words how far apart the two are over some steps in float32; an error if it is not rounding."""
    torch.backends.cudnn.allow_tf32 = False  # or the convolution of the reference way's patches rounds to ten bits
    ours, plain = Ours(given, "fp32"), Plain(given, "fp32")
    batch = batch_of(given, min(given.batch, 32))
    pairs = [(ours.step(*batch), plain.step(*batch)) for _ in range(steps)]
    apart = max(abs(a - b) / abs(b) for a, b in pairs)
    assert apart < AGREE.get(given.device, 1e-4), pairs
    first, last = pairs[0][1], pairs[-1][1]
    return f"losses of {steps} steps in float32: {apart:.1e} apart (relative), from {first:.4f} to {last:.4f}"


def without_loader(given: argparse.Namespace) -> Rounds:
    """Return seconds per step of each round, on a batch that is there."""
    batch, steppers = batch_of(given), {way: stepper(given, way) for way in ways(given)}

    def steps(one: Ours | Plain) -> Iterator[float]:
        return (one.step(*batch) for _ in range(given.steps))

    return in_turn(given, {way: partial(steps, one) for way, one in steppers.items()})


def in_turn(given: argparse.Namespace, work: dict[str, Callable[[], Iterator[float]]]) -> Rounds:
    """Return seconds per step in rounds of all ways in turn: a drift of the machine's speed meets all."""
    spent: Rounds = {way: [] for way in work}
    for number in range(given.rounds + 1):  # the first is lost
        for way, steps in work.items():
            seconds = seconds_of(steps(), given.device)
            if number:
                spent[way].append(seconds)
    return spent


def with_loader(given: argparse.Namespace, folder: Path) -> tuple[Rounds, float]:
    """Return seconds per step of whole epochs with the loaders, and the clips per second of ours alone."""
    clips, s, device = given.batch * given.steps, settings_of(given), torch.device(given.device)
    corpus, (captions, vectors) = corpus_of(folder, clips), captions_of(folder, clips)
    feed = PretrainFeed(corpus, s, STATS, device=device, workers=given.workers)
    plain_clips = PlainClips(folder / "lms", clips, given.frames, STATS, vectors)
    # Its processes stay from epoch to epoch, which is kind to it.
    keep = {"num_workers": given.workers, "persistent_workers": given.workers > 0, "pin_memory": device.type == "cuda"}
    loader = torch.utils.data.DataLoader(plain_clips, given.batch, shuffle=True, drop_last=True, **keep)
    ours, plain = (stepper(given, way) for way in (ways(given)[0], ways(given)[-1]))
    clap = given.objective == "m2d_clap"

    def our_epoch() -> Iterator[float]:
        for data in feed.epoch(epoch_batches(clips, s, 0), 0):
            drawn = captions.drawn(data.clips, SEED, ours.trainer.done)
            text = captions.embeddings(drawn).to(device, non_blocking=True) if clap else None
            yield ours.step(data.log_mel, text)

    def plain_epoch() -> Iterator[float]:
        for log_mel, text in loader:
            log_mel = log_mel.to(device, non_blocking=True)
            yield plain.step(log_mel, text.to(device, non_blocking=True) if clap else None)

    spent = in_turn(given, {ways(given)[0]: our_epoch, ways(given)[-1]: plain_epoch})
    alone = [rate(clips, lambda: feed.epoch(epoch_batches(clips, s, 0), 0), device) for _ in range(given.rounds)]
    return spent, statistics.median(alone)


def captions_of(folder: Path, clips: int) -> tuple[Captions, Tensor]:
    """Return random captions as the product keeps them, and the same vectors ``[clips, captions, E]`` in float32."""
    vectors = np.random.default_rng(0).standard_normal((clips * CAPTIONS, TEXT), np.float32).astype(np.float16)
    starts, rows = np.arange(0, len(vectors) + 1, CAPTIONS), np.arange(len(vectors), dtype=np.int32)
    names = tuple(f"{n}.wav" for n in range(clips))
    found = Captions(folder, {}, names, starts, rows, vectors)
    return found, torch.from_numpy(vectors.astype(np.float32)).unflatten(0, (clips, CAPTIONS))


def memory_of(given: argparse.Namespace) -> float:
    """Return the MiB that three steps add to a process that has everything else; run in a process of its own."""
    one, batch = stepper(given, given.memory), batch_of(given)
    gc.collect()
    gpu = given.device != "cpu"
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak is counted from here
    before = torch.cuda.memory_allocated() / 2**20 if gpu else resident("VmRSS")
    for _ in range(3):
        one.step(*batch)
    return (torch.cuda.max_memory_allocated() / 2**20 if gpu else resident("VmHWM")) - before


def memory_in_process(given: argparse.Namespace, way: str) -> float:
    words = []
    for name, value in vars(given).items():
        if name not in ("memory", "compile"):
            words.append(f"--{name}={','.join(value) if isinstance(value, list) else value}")
    words += ["--compile"] * given.compile
    output, _ = run(python("benchmarks/pretrain_step.py", *words, f"--memory={way}"))
    return float(json.loads(output.splitlines()[-1]))


def flops_of(s: PretrainSettings) -> float:
    """Return the FLOP per clip that a step cannot do without, from the sizes (MODELS 11): 2 per multiply-accumulate.

    Forward once and backward twice, the target network forward only, the patch embedding without its input's gradient.
    """
    patches, height_width = s.grid[0] * s.grid[1], s.patch_size[0] * s.patch_size[1]
    keep = int(patches * (1 - s.mask_ratio))

    def blocks(depth: int, tokens: int, dim: int) -> int:
        return depth * (12 * dim * dim * tokens + 2 * tokens * tokens * dim)

    online, target = blocks(s.depth, 1 + keep, s.dim), blocks(s.depth, 1 + patches - keep, s.dim)
    predictor = blocks(s.decoder_depth, 1 + patches, s.decoder_dim) + (1 + patches) * s.dim * s.decoder_dim
    return 2.0 * (2 * patches * height_width * s.dim + 3 * (online + predictor) + target)


def shares_of_matmul(given: argparse.Namespace, spent: Rounds) -> Iterator[str]:
    """Yield in words which part of the best measured matmul rate the product's steps reach."""
    flops = flops_of(settings_of(given))
    yield f"{flops / 1e9:.1f} GFLOP a clip"
    for precision in given.precision:
        seconds = statistics.median(wall for wall, _ in spent[f"ours {precision}"])
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        with torch.inference_mode():
            _, best = rates_of_matmul(given.device, dtype, 2048 if given.device == "cpu" else 8192)
        share = flops * given.batch / seconds / best
        yield f"{precision}: {share:.0%} of the best measured matmul rate here ({best / 1e9:,.0f} GFLOP/s)"


def rows_of(given: argparse.Namespace, what: str, spent: Rounds) -> list[list[object]]:
    """Return the table's lines: medians, and medians of the rounds' ratios to the reference way, which comes last."""
    plain, rows = list(spent.values())[-1], []
    for way, rounds in spent.items():
        seconds = statistics.median(wall for wall, _ in rounds)
        ratios = [statistics.median(b[i] / a[i] for a, b in zip(rounds, plain, strict=True)) for i in (0, 1)]
        rows.append([what, way, f"{seconds:.3f}", f"{given.batch / seconds:.0f}", *ratios])
    return rows


def arguments() -> argparse.Namespace:
    """Return the options, with what suits the device where they are not given."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--objective", choices=("m2d_clap", "m2d"), default="m2d_clap")
    for name in ("dim", "depth", "decoder_dim", "decoder_depth", "batch", "workers"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--frames", type=int, default=608)
    parser.add_argument("--precision", type=lambda text: text.split(","), help="of ours: fp32, bf16 or fp32,bf16")
    parser.add_argument("--reference_precision", choices=("fp32", "bf16"))
    parser.add_argument("--steps", type=int, default=4, help="per round; also batches in an epoch of the loader")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    given = parser.parse_args()
    small = {"dim": 192, "depth": 4, "decoder_depth": 2, "batch": 32, "workers": 1, "precision": ["fp32", "bf16"]}
    large = {"dim": 768, "depth": 12, "decoder_depth": 8, "batch": 512, "precision": ["bf16"]}
    large |= {"workers": min(8, os.cpu_count() or 1)}
    on_cpu = given.device == "cpu"
    fitting = (small if on_cpu else large) | {"reference_precision": "fp32" if on_cpu else "bf16"}
    for name, value in fitting.items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    given.decoder_dim = given.decoder_dim or (512 if given.dim >= 768 else given.dim // 2)
    return given


def main() -> None:
    given = arguments()
    if given.memory:
        print(json.dumps(memory_of(given)))
        return
    print(f"{torch.get_num_threads()} threads; {vars(given)}")
    print(same_losses(given))
    try:
        there = without_loader(given)
    except torch.OutOfMemoryError:
        raise SystemExit(f"a batch of {given.batch} clips does not fit the device both ways: lower --batch") from None
    with tempfile.TemporaryDirectory() as name:
        loaded, alone = with_loader(given, Path(name))
    # Processor seconds are of the process that trains: what other programs do meanwhile, and loader processes, is out.
    heads = ["step", "way", "seconds", "clips per s", "times faster", "in processor time"]
    print(table(rows_of(given, "batch is there", there) + rows_of(given, "with loader", loaded), heads))
    print("; ".join(shares_of_matmul(given, there)))
    fastest = max(given.batch / statistics.median(wall for wall, _ in rounds) for rounds in list(there.values())[:-1])
    enough = "at least twice" if alone >= 2 * fastest else "NOT twice"
    print(f"the loader alone feeds {alone:.0f} clips/s: {enough} what the step consumes ({alone / fastest:.1f} times)")
    memories = [memory_in_process(given, way) for way in ways(given)]
    print(table([["MiB of a step", *(f"{mib:.0f}" for mib in memories)]], ["peak memory", *ways(given)]))


if __name__ == "__main__":
    main()
