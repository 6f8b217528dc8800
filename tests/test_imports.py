"""Importing is cheap, and every module can be imported."""

import importlib
import pkgutil
import subprocess
import sys
import textwrap

import pytest

import bimix_tune

HEAVY = ("torch", "transformers", "tokenizers", "ray", "plotly", "datasets", "pyarrow")
MODULES = [m.name for m in pkgutil.walk_packages(bimix_tune.__path__, "bimix_tune.")]
# What a study with a mixture sampler needs; also free of the heavy libraries, one by one.
LIGHT = (
    "errors",
    "simplex",
    "space",
    "curves",
    "laws",
    "entropy",
    "early_stopping",
    "sampler",
    "pruner",
    "executors",
)


def run_python(code: str) -> str:
    """What the code prints in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def heavy_after(statement: str) -> list[str]:
    return run_python(f"""
        import sys
        {statement}
        print(*(name for name in {HEAVY!r} if name in sys.modules))
    """).split()


def test_the_check_itself_notices_a_heavy_import():
    assert heavy_after("import sys; sys.modules['ray'] = sys") == ["ray"]


def test_import_bimix_tune_loads_no_heavy_library():
    assert heavy_after("import bimix_tune") == []


def test_light_modules_load_no_heavy_library():
    assert heavy_after("import " + ", ".join(f"bimix_tune.{name}" for name in LIGHT)) == []


def test_the_command_line_loads_no_heavy_library_before_it_is_told_what_to_do():
    assert heavy_after("import bimix_tune.cli.app") == []


def test_trainings_are_timed_where_little_more_than_pytorch_is(tmp_path):
    """Machines with GPUs often have that, and no way to install the rest."""
    run_python(f"""
        import sys
        sys.modules |= dict.fromkeys(("optuna", "pydantic", "sqlalchemy", "ray", "datasets"))
        from pathlib import Path
        from bimix_tune.benchmark.training_speed import campaign, members, peer, text
        from bimix_tune.benchmark.training_speed.lean import lean, case_trainer
        case = campaign.CASES["0.1M"]
        corpus = text.write_text(Path({str(tmp_path / "text")!r}), case.vocabulary)
        losses = []
        lean(case_trainer(case, corpus, "cpu", "fp32", 512, 2, compile="never"))(losses.append)
        assert len(losses) == 2
        del sys.modules["pydantic"]  # which the newest typer needs
        import bimix_tune.cli.training_benchmark
    """)


def test_all_public_names_exist():
    names = getattr(bimix_tune, "__all__", [])
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(bimix_tune, name) is not None


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports_and_says_what_it_is_about(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"


def test_the_list_of_modules_is_the_packages():
    assert {"bimix_tune.space", "bimix_tune.executors.ray"} <= set(MODULES)
