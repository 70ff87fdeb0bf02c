"""(c): M2D ViT-Base encoding as a share of this machine's fp32 matrix-multiplication rate; and what bf16 changes.

python benchmarks/encode_m2d.py [--device=cpu] [--batch=8] [--seconds=10]
"""

from __future__ import annotations

import argparse
import time

import torch
from measure import table
from torch.utils.flop_counter import FlopCounterMode

from model_adapters.networks.dense import linear
from model_adapters.registry import load_model


def rates_of_matmul(device: str, dtype: torch.dtype, size: int) -> tuple[float, float]:
    """Return the best measured FLOP/s of a square product: by ``torch.mm``, and by the fastest library in torch.

    On a CPU ``torch.mm`` in float32 goes to MKL, which leaves AVX-512 unused on AMD; a 1x1 convolution is the same
    product and goes to oneDNN. The second figure, the harder one, is what the share is taken of.
    """
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    by_mm = max(2 * size**3 / timed(lambda: a @ b, device) for _ in range(5))
    # The shape of a ViT-Base layer at this batch, where oneDNN is at its best.
    rows, wide = torch.randn(1528, 768, device=device, dtype=dtype), torch.randn(3072, 768, device=device, dtype=dtype)
    by_onednn = max(2 * 1528 * 768 * 3072 / timed(lambda: linear(rows, wide), device) for _ in range(20))
    return by_mm, max(by_mm, by_onednn)


def timed(work, device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    adapter = load_model("m2d", "random").adapter.to(given.device)
    samples = int(adapter.sample_rate * given.seconds)
    waves = 0.1 * torch.randn(given.batch, samples, generator=torch.Generator().manual_seed(0)).to(given.device)
    lengths = torch.full((given.batch,), samples, device=given.device)
    size = 3072 if given.device == "cpu" else 8192
    rows = []
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            full = adapter.embed(waves, lengths)
        flops = counter.get_total_flops()
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            shares, seconds = [], []
            for _ in range(given.repeats):  # in turn, so that a drift of the machine's speed meets both
                by_mm, rate = rates_of_matmul(given.device, dtype, size)
                with torch.autocast(given.device, dtype=torch.bfloat16, enabled=name == "bf16"):
                    spent = timed(lambda: adapter.embed(waves, lengths), given.device)
                    found = adapter.embed(waves, lengths)
                shares.append(flops / spent / rate)
                seconds.append(spent)
            cosine = torch.nn.functional.cosine_similarity(full.float(), found.float()).min().item()
            middle = sorted(shares)[len(shares) // 2]
            speed = given.batch * given.seconds / sorted(seconds)[len(seconds) // 2]
            rows.append((name, by_mm / 1e9, rate / 1e9, f"{100 * middle:.0f} %", speed, f"{cosine:.6f}"))
    heads = ("precision", "torch.mm GFLOP/s", "best matmul GFLOP/s", "share of best", "audio s per s", "least cosine")
    print(table(rows, heads))


if __name__ == "__main__":
    main()
