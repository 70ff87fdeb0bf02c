"""The house keeps its plan: imports go one way, tasks know nothing of torch, our short names are not shadowed."""

import ast
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[2]
PROTOCOLS = {"evar.lineareval", "evar.zeroshot", "evar.finetune", "evar.retrieval"}
ORCHESTRATORS = {"evar.pocket", "evar.grid.__main__", "evar.pretrain.__main__", "evar.pretrain.side_eval"}
"""What runs several protocols in a row; nothing else imports these."""


def modules():
    """Return the syntax tree of every module of the product by its dotted name."""
    files = [path for package in ("evar", "model_adapters", "tasks") for path in (HOME / package).rglob("*.py")]
    names = {path: ".".join(path.relative_to(HOME).with_suffix("").parts).removesuffix(".__init__") for path in files}
    return {name: ast.parse(path.read_text()) for path, name in names.items()}


MODULES = modules()


def imports(name):
    """Return what a module imports anywhere in it, ``from x import y`` as both ``x`` and ``x.y``."""
    found = set()
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_the_walk_sees_imports():
    assert {"evar.clips", "evar.extract", "model_adapters.registry"} <= imports("evar.lineareval")
    assert PROTOCOLS & set(MODULES) >= {"evar.lineareval", "evar.zeroshot"}


@pytest.mark.parametrize("name", sorted(set(MODULES) - ORCHESTRATORS))
def test_no_module_imports_a_protocol_but_the_orchestrators(name):
    assert not imports(name) & (PROTOCOLS | ORCHESTRATORS)


@pytest.mark.parametrize("name", sorted(n for n in MODULES if n.split(".")[0] == "tasks"))
def test_tasks_import_no_torch_and_no_models(name):
    assert not {module.split(".")[0] for module in imports(name)} & {"torch", "model_adapters", "transformers"}


def test_adapters_do_not_know_the_tasks():
    for name in (n for n in MODULES if n.split(".")[0] == "model_adapters"):
        assert not {module.split(".")[0] for module in imports(name)} & {"tasks"}, name


def python(*argv, cwd=HOME):
    environment = os.environ | {"PYTHONPATH": str(HOME)}
    return subprocess.run(
        [sys.executable, *argv], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


def test_reading_all_tasks_loads_no_torch():
    code = "import sys; from tasks.base import all_tasks; all_tasks(); print('torch' in sys.modules)"
    done = python("-c", code)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize("stray", ["tasks.py", "tasks/__init__.py", "model_adapters/__init__.py"])
def test_a_stray_file_with_our_name_gives_one_clear_line(tmp_path, stray):
    name = stray.split("/")[0].removesuffix(".py")
    (tmp_path / stray).parent.mkdir(exist_ok=True)
    (tmp_path / stray).write_text("raise RuntimeError('not to be imported')\n")
    done = python("-m", "evar.tasks", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line == (
        f"evar: error: Python finds {tmp_path / stray} under the name '{name}', which hides the harness's own package: "
        "rename that file or run from another folder"
    )


def test_a_stray_file_is_an_import_error_in_a_program(tmp_path):
    (tmp_path / "tasks.py").touch()
    done = python("-c", "import evar", cwd=tmp_path)
    assert done.stderr.splitlines()[-1].startswith("ImportError: Python finds ")


@pytest.mark.parametrize("folder", ["tasks", "model_adapters", "data"])
def test_a_folder_without_python_in_it_is_in_nobodys_way(tmp_path, folder):
    (tmp_path / folder).mkdir()
    done = python("-m", "evar.tasks", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_the_list_of_commands_names_modules_that_are_there():
    done = python("-m", "evar")
    named = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  evar.")]
    assert set(named) >= {"evar.prepare", "evar.lineareval", "evar.zeroshot", "evar.report", "evar.embed"}
    assert set(named) <= set(MODULES)


def span(node):
    """Return the lines of a function's code, its docstring left out."""
    first = node.body[1] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body[0]
    signature = node.body[0].lineno - node.lineno
    return signature + node.end_lineno - first.lineno + 1


def test_modules_and_functions_stay_small():
    files = {name: tree.body[-1].end_lineno for name, tree in MODULES.items() if tree.body}
    assert statistics.median(files.values()) <= 150
    assert {name: lines for name, lines in files.items() if lines > 500} == {}
    functions = {
        f"{name}.{node.name}": span(node)
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    assert {name: lines for name, lines in functions.items() if lines > 60} == {}


FORBIDDEN_CALLS = {"eval", "exec"}


def test_nothing_from_outside_is_run_as_code():
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            assert not (isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS), f"{name}:{node.lineno}"
            given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            assert given.get("weights_only") is not False, f"{name}:{node.lineno}"
            assert given.get("allow_pickle") is not True, f"{name}:{node.lineno}"
            torch_load = isinstance(node.func, ast.Attribute) and ast.unparse(node.func) == "torch.load"
            assert not torch_load or given.get("weights_only") is True, f"{name}:{node.lineno}"


def test_no_path_of_a_developers_machine_is_in_the_product():
    for name, tree in MODULES.items():
        texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        assert not [t for t in texts if any(part in t for part in ("/work", "/tmp", "../shared"))], name
