"""Exit with 1 if this environment lacks a requirement of the project (with the extras named), or the project itself."""

import re
import sys
from importlib import metadata
from pathlib import Path

NAME = "evar-harness"
extras = set(filter(None, sys.argv[1].split(",")))
try:
    distribution = metadata.distribution(NAME)
except metadata.PackageNotFoundError:
    sys.exit(1)
if "dev-interop" in extras:
    extras |= {"dev"}
if "dev" in extras:
    extras |= {"archives", "grid", "hf", "maps", "parquet", "plots", "pocket"}
for line in distribution.requires or []:
    requirement, _, marker = line.partition(";")
    needed = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker)
    if (needed and needed[1] not in extras) or NAME in requirement:
        continue
    try:
        metadata.distribution(re.match(r"[\w.-]+", requirement)[0])
    except metadata.PackageNotFoundError:
        sys.exit(1)
sys.path[:] = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]
import evar  # noqa: E402

sys.exit(Path(evar.__file__).resolve().parent.parent != Path(__file__).resolve().parent.parent)
