#!/usr/bin/env bash
# Installed without -e, run from an empty folder: lineareval and report work, the papers' tables are package data,
# results go to ./results/runs, a stray tasks.py gives one clear line.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
BASE=${EVAR_PYTHON:-$ROOT/.venv/bin/python}
case $BASE in /*) ;; *) BASE=$ROOT/$BASE ;; esac
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
# A second environment that sees the first one's packages, so that only the project itself is installed anew.
"$BASE" -m venv "$WORK/venv"
SITE=$("$WORK/venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')
"$BASE" -c 'import site; print("\n".join(site.getsitepackages()))' > "$WORK/base"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$ROOT"
# addsitedir would run the first environment's .pth of the editable install; plain path lines do not.
cp "$WORK/base" "$SITE/zz-base-packages.pth"
mkdir "$WORK/empty" && cd "$WORK/empty"
export EVAR_CACHE=$WORK/cache HF_HUB_OFFLINE=1
PY=$WORK/venv/bin/python
"$PY" -c 'import evar, sys; assert "'"$WORK"'" in evar.__file__, evar.__file__'
"$PY" -m evar.lineareval log_mel_stats pocket_pitch --seeds=2 --max_epochs=20
"$PY" -m evar.report | grep -q log_mel_stats
test -n "$(ls results/runs/*.json)"
"$PY" -c 'from evar.paper import published; assert len(published()) > 500'
touch tasks.py
code=0
"$PY" -m evar.lineareval log_mel_stats pocket_pitch > out 2> err || code=$?
test "$code" = 2 && test "$(wc -l < err)" = 1 && grep -q "tasks.py" err
echo "installed package: 5 passed, 0 failed"
