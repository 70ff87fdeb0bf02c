# Sourced by eval_all.sh and tests/run.sh: sets PYTHON to an interpreter that has what the project needs.
# An environment that is active (venv, conda) is used, and only what it lacks is installed into it; otherwise one is
# made in the checkout (.venv, or the folder named by EVAR_VENV) with the pinned set of a constraints file.

evar_environment() {
    extras=$1
    constraints=${2:-$ROOT/constraints.txt}
    active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
    if [ -n "$active" ] && [ -z "${EVAR_VENV:-}" ]; then
        PYTHON=$active/bin/python
        [ -x "$PYTHON" ] || PYTHON=$active/python.exe
        if ! "$PYTHON" "$ROOT/.ci/missing.py" "$extras"; then
            echo "installing what is missing into $active" >&2
            "$PYTHON" -m pip install --quiet --disable-pip-version-check -e "$ROOT[$extras]" || return 1
        fi
        return 0
    fi
    venv=${EVAR_VENV:-$ROOT/.venv}
    PYTHON=$venv/bin/python
    files=$(cat "$ROOT/pyproject.toml" "$constraints" | cksum)
    wanted=$files-$extras
    if [ -x "$PYTHON" ]; then
        case "$(cat "$venv/.evar-installed" 2>/dev/null)" in
            "$wanted" | "$files-dev" | "$files-dev-interop") return 0 ;;  # dev has everything that the other commands need
        esac
    fi
    base=$(evar_python) || return 1
    echo "making the environment $venv (once; some minutes)" >&2
    [ -x "$PYTHON" ] || "$base" -m venv "$venv" || return 1
    pip="$PYTHON -m pip install --quiet --disable-pip-version-check --constraint $constraints"
    # torch first, by itself: named with its exact release it is found where only that release is offered.
    $pip "$(grep '^torch==' "$constraints")" || return 1
    $pip -e "$ROOT[$extras]" || return 1
    echo "$wanted" > "$venv/.evar-installed"
}

evar_python() {
    for candidate in python3.11 python3.12 python3.13 python3.10 python3 python; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$candidate"
            return 0
        fi
    done
    echo "Python 3.10 or newer with the venv module is needed, and none was found" >&2
    return 1
}
