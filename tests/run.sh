#!/usr/bin/env bash
# The test command: sets up an environment if none is active, then lint, types and tests.
#   tests/run.sh                  the pinned set of constraints.txt
#   tests/run.sh --lowest         the lowest supported set, in an environment of its own (.venv-lowest)
#   tests/run.sh tests/evar -k x  anything else goes to pytest
set -eu
ROOT=$(cd "$(dirname "$0")/.." && pwd)
cd "$ROOT"
. .ci/environment.sh
lowest=
if [ "${1:-}" = --lowest ]; then
    lowest=yes
    shift
    EVAR_VENV=${EVAR_VENV:-$ROOT/.venv-lowest}
    evar_environment dev "$ROOT/.ci/constraints-lowest.txt"
else
    evar_environment dev-interop
fi
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
if [ -z "$lowest" ] && [ $# -eq 0 ]; then
    "$PYTHON" -m ruff check .
    "$PYTHON" -m ruff format --check .
    "$PYTHON" -m mypy
fi
# One process per core, one thread each: many small computations side by side.
exec env OMP_NUM_THREADS=1 "$PYTHON" -m pytest -n "${EVAR_TEST_PROCESSES:-auto}" --dist worksteal "$@"
