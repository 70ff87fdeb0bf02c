"""A stand-in for a protocol's command: says what it did in a file, fails or waits as its model's name says.

``python grid_stub.py RECORD evar.PROTOCOL MODEL TASK options…``; options as ``--results=DIR``.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    record, command, model, task, *options = sys.argv[1:]
    folder = Path(next(word.partition("=")[2] for word in options if word.startswith("--results=")))
    place = folder / f"{model}__{task}__{command.removeprefix('evar.')}__0123456789.json"
    with open(folder / "calls.txt", "a") as calls:
        calls.write(f"{model} {task} {command} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')}\n")
    if model == "waits":
        (folder / f"waiting-{task}").write_text(str(os.getpid()))
        time.sleep(60)
    if model == "refuses":
        sys.stderr.write("a remark\nevar.lineareval: error: there is no such file\n")
        sys.exit(2)
    if model == "raises":
        raise ValueError("first line\nsecond line")
    if model == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if model == "silent":
        return
    time.sleep(0.05)
    there = place.is_file()
    place.write_text(json.dumps({"timings": {"total": 2.5}}))
    Path(record).write_text(json.dumps({"path": str(place), "mean": 0.5, "there": there}))


main()
