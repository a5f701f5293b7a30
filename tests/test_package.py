"""The package: public names, what importing costs, what is installed, and that the files around it agree."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from importlib.metadata import distribution, distributions
from pathlib import Path

import pytest

import mdpot

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]


def python(code: str) -> str:
    # Not in the checkout, whose mdpot/ would shadow the installed one.
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tempfile.gettempdir(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", mdpot.__all__)
def test_public_name_is_there(name: str) -> None:
    assert getattr(mdpot, name) is not None
    assert name in dir(mdpot)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = mdpot.nonsense  # type: ignore[attr-defined]


def test_import_is_light() -> None:
    loaded = python("import sys, mdpot, mdpot.cli; print(*sys.modules)").split()
    assert not {"torch", "ase", "numpy", "matplotlib", "openmm", "pydantic"} & set(loaded)


def test_nothing_else_of_a_checkout_is_in_the_package(checkout: Path) -> None:
    """Not its other folders, and not itself once more, with a second copy of every class."""
    others = sorted(path.stem for path in checkout.iterdir() if path.is_dir() or path.suffix == ".py")
    code = (
        "import importlib.util, sys\n"
        f"sys.path.insert(0, {str(checkout)!r})\n"
        "import mdpot\n"
        f"print(*[name for name in {others!r} if name.isidentifier() and importlib.util.find_spec('mdpot.' + name)])\n"
    )
    assert {"tests", "mdpot", "docs"} <= set(others)
    assert python(code).split() == ["cli", "training"]


def test_what_runs_a_potential_needs_nothing_optional() -> None:
    """Every public name imports where matplotlib and OpenMM are missing, and without the trainer."""
    python(
        "import sys\n"
        "for name in ('matplotlib', 'openmm', 'openmmtorch', 'openmmml', 'tensorboard'):\n"
        "    sys.modules[name] = None\n"
        "import mdpot\n"
        "[getattr(mdpot, name) for name in mdpot.__all__]\n"
        "inside = [m for m in sys.modules if m.startswith(('mdpot.training', 'mdpot.cli'))]\n"
        "assert not inside, inside\n"
    )


def test_imports_run_one_way(checkout: Path) -> None:
    """cli -> training -> mdpot, and never back."""
    importing = re.compile(r"^\s*(?:from|import)\s+(mdpot\.(?:cli|training))\b", re.MULTILINE)
    for path in (checkout / "mdpot").rglob("*.py"):
        if path.name != "__main__.py":
            assert not importing.search(path.read_text(encoding="utf-8")), path
    for path in (checkout / "training").rglob("*.py"):
        assert "mdpot.cli" not in importing.findall(path.read_text(encoding="utf-8")), path


def test_only_mdpot_is_installed() -> None:
    # `python -m pytest` also sees the checkout's egg-info, a list of sources rather than of what was installed.
    installed = [d for d in distributions(name="mdpot") if d.read_text("RECORD")]
    assert installed
    files = installed[0].files or []
    tops = {file.parts[0] for file in files if ".." not in file.parts}
    assert {t for t in tops if not t.startswith(("mdpot", "__editable__", "__pycache__"))} == set()


def test_entry_points() -> None:
    points = {(p.group, p.name): p.value for p in distribution("mdpot").entry_points}
    assert points["console_scripts", "mdpot"] == "mdpot.cli:main"
    assert points["openmmml.potentials", "mdpot"] == "mdpot.openmm.plugin:MDPotImplFactory"


def test_every_package_is_listed(checkout: Path) -> None:
    """setuptools installs what pyproject.toml names, and nothing else."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    roots = {"mdpot": "mdpot", "cli": "mdpot.cli", "training": "mdpot.training"}
    found = {
        ".".join([roots[root], *path.parent.relative_to(checkout / root).parts])
        for root in roots
        for path in (checkout / root).rglob("__init__.py")
    }
    assert set(project["tool"]["setuptools"]["packages"]) == found


def test_versions_agree(checkout: Path) -> None:
    for name, pattern in {
        "pyproject.toml": r'^version = "(.*)"',
        "CITATION.cff": r"^version: (.*)",
        "CHANGELOG.md": r"^## ([\d.]+)",
    }.items():
        text = (checkout / name).read_text(encoding="utf-8")
        found = re.search(pattern, text, re.MULTILINE)
        assert found, name
        assert found[1] == mdpot.__version__, name


def test_readme_starts_with_the_two_lines(checkout: Path) -> None:
    """`.ci/run` takes the install line and the test line from here."""
    readme = (checkout / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```\w*\n(.*?)```", readme, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("pip install")]
    assert lines[0].split(" && ")[0].strip() == lines[1].split(" && ")[0].strip() == 'pip install -e ".[all]"'
    assert re.match(r"mdpot train water-rpbe --preset quick", lines[0].split(" && ")[1])
    assert re.match(r"pytest\b", lines[1].split(" && ")[1])
