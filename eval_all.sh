#!/usr/bin/env bash
# From nothing to a table and a plot.
#   ./eval_all.sh --pocket                       the embedded pocket suite: no downloads, seconds to a few minutes
#   ./eval_all.sh MODEL TASK[,TASK] [options]    prepare, linear evaluation, zero-shot where the model can, report
# Sets up an environment (.venv) if none is active.
set -eu
ROOT=$(cd "$(dirname "$0")" && pwd)
. "$ROOT/.ci/environment.sh"
usage() { sed -n '2,5s/^# \{0,1\}//p' "$0"; }
case "${1:-}" in
    "" ) usage >&2; exit 2 ;;
    -h | --help ) usage; exit 0 ;;
    --pocket )
        shift
        evar_environment pocket,plots
        exec "$PYTHON" -m evar.pocket "$@" ;;
    --* ) echo "eval_all.sh: error: there is no option $1; see ./eval_all.sh --help" >&2; exit 2 ;;
esac
if [ $# -lt 2 ]; then
    echo "eval_all.sh: error: TASK is missing: ./eval_all.sh MODEL TASK[,TASK] [options]" >&2
    exit 2
fi
evar_environment pocket,plots
"$PYTHON" -m evar.lineareval "$@"
if "$PYTHON" -m evar.models "$1" | grep -q zero-shot; then
    "$PYTHON" -m evar.zeroshot "$@"
fi
