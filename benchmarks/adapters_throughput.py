"""Speed, size and memory of every adapter, untrained, in the published size: a Markdown table.

python benchmarks/adapters_throughput.py [NAME ...] [--seconds=10] [--threads=1] [--largest=32] [--budget=60]

Each adapter runs in a process of its own. Its batch size is found by measurement: doubled as long as that makes it
faster by 3 % or more. Seconds are those of the processor, so that other work on the machine disturbs little; with one
thread they are the seconds of one core. Memory is the peak of a process that embeds one batch of that size, Python
and torch included. OMP_NUM_THREADS and HF_HUB_OFFLINE are set for the processes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from measure import python, run, table

NOT_ALONE = ("finetuned", "tag_text", "caption_map", "hf", "mteb")
"""Models that are another one's, or one of a hub's."""
HEADS = ("model", "sample rate", "dims", "parameters (M)", "best batch", "audio s per s", "peak MiB")
WORTH_IT = 1.03


def build(name: str):
    """Return the untrained adapter; statistics that it would take from a task are given."""
    from evar.convert import keyword_parameters
    from model_adapters.registry import adapter_class, load_model

    cls = adapter_class(name)[0]
    parameters = keyword_parameters(cls)
    options = {"norm_stats": "-7.0,4.0"} if "norm_stats" in parameters and "prepare" in vars(cls) else {}
    return load_model(name, "random" if "weights" in parameters else None, options).adapter


def seconds_per_batch(adapter, batch: int, seconds: float, threads: int) -> float:
    """Return the lesser processor time of two passes over a batch, shared among the threads."""
    import torch

    samples = int(adapter.sample_rate * seconds)
    clips = 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(0))
    lengths = torch.full((batch,), samples)
    spent = []
    for _ in range(2):
        begin = time.process_time()
        with torch.inference_mode():
            adapter.embed(clips, lengths)
        spent.append(time.process_time() - begin)
    return min(spent) / threads


def search(name: str, given: argparse.Namespace) -> dict[str, float]:
    """Return rate, dimensions, parameters, the best batch size and its speed."""
    adapter = build(name)
    seconds_per_batch(adapter, 1, 1.0, given.threads)  # what is made on the first call
    best, speed, batch, begin = 1, 0.0, 1, time.perf_counter()
    while batch <= given.largest and time.perf_counter() - begin < given.budget:
        now = batch * given.seconds / seconds_per_batch(adapter, batch, given.seconds, given.threads)
        if now < speed * WORTH_IT:
            break
        best, speed, batch = batch, now, 2 * batch
    millions = sum(p.numel() for p in adapter.parameters()) / 1e6
    facts = {"rate": adapter.sample_rate, "dims": adapter.embedding_dim, "millions": millions}
    return facts | {"batch": best, "speed": speed}


def child(name: str, given: argparse.Namespace) -> None:
    """Do one process's work: the search, or (with a batch size) one pass for the peak of memory."""
    import torch

    torch.set_num_threads(given.threads)
    if not given.batch:
        print(json.dumps(search(name, given)))
        return
    adapter, samples = build(name), 0
    samples = int(adapter.sample_rate * given.seconds)
    with torch.inference_mode():
        adapter.embed(torch.zeros(given.batch, samples), torch.full((given.batch,), samples))
    print("{}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--largest", type=int, default=32)
    parser.add_argument("--budget", type=float, default=60.0, help="seconds after which no larger batch is tried")
    parser.add_argument("--child", action="store_true")
    parser.add_argument("--batch", type=int, default=0)
    given = parser.parse_args()
    if given.child:
        child(given.names[0], given)
        return
    from model_adapters.registry import model_names

    names = given.names or [name for name in model_names() if name not in NOT_ALONE]
    same = [f"--{k}={getattr(given, k)}" for k in ("seconds", "threads", "largest", "budget")]
    environment = {"OMP_NUM_THREADS": str(given.threads), "HF_HUB_OFFLINE": "1"}
    rows = []
    for name in names:
        command = python(__file__, name, "--child", *same)
        try:
            found = json.loads(run(command, environment)[0].splitlines()[-1])
            peak = run([*command, f"--batch={found['batch']}"], environment)[1].peak_mib
        except SystemExit as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        rows.append((name, found["rate"], found["dims"], f"{found['millions']:.1f}", found["batch"],
                     f"{found['speed']:.1f}", f"{peak:.0f}"))  # fmt: skip
        print(" ".join(map(str, rows[-1])), file=sys.stderr, flush=True)
    print(table(rows, HEADS))


if __name__ == "__main__":
    main()
