"""Run a test file's ``main`` in several processes joined by gloo, as torchrun would, and fetch what rank 0 saved."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

HOME = Path(__file__).resolve().parents[1]


def launch(file, folder, world=2):
    """Run ``python file folder`` as ``world`` ranks; return the contents of ``folder/rank<r>.pt``, in rank order."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HOME), str(HOME / "tests")]),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    started = [
        subprocess.Popen(
            [sys.executable, str(file), str(folder)],
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(process.returncode == 0 for process in started), "\n".join(said)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(world)]
