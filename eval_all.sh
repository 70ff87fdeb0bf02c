#!/usr/bin/env bash
# From nothing to the papers' tables.
#   ./eval_all.sh --pocket                       the embedded pocket suite: no downloads, seconds to a few minutes
#   ./eval_all.sh MODEL [WEIGHTS] [options]      Tables 3, 4 and 5 of the M2D-CLAP paper with the published rows beside
#   ./eval_all.sh MODEL TASK[,TASK] [options]    these tasks only: linear evaluation, zero-shot where the model can
#   ./eval_all.sh --plan=FILE.toml [options]     a study: many models, tasks, protocols (docs/grid.md)
# A killed run goes on where it was; --dry_run prints the plan; python -m evar.grid --help lists the options.
# Sets up an environment (.venv) if none is active.
set -eu
ROOT=$(cd "$(dirname "$0")" && pwd)
. "$ROOT/.ci/environment.sh"
usage() { sed -n '2,7s/^# \{0,1\}//p' "$0"; }
case "${1:-}" in
    "" ) usage >&2; exit 2 ;;
    -h | --help ) usage; exit 0 ;;
    --pocket )
        shift
        evar_environment pocket,plots
        exec "$PYTHON" -m evar.pocket "$@" ;;
esac
extras=pocket,plots
case " $* " in
    *" --launcher=ray "* | *" --launcher=slurm "* | *" --launcher ray "* | *" --launcher slurm "* ) extras=$extras,grid ;;
esac
evar_environment "$extras"
exec "$PYTHON" -m evar.grid "$@"
