"""The command line: help without heavy imports, arguments handed on, one line for what goes wrong."""

from __future__ import annotations

import inspect
import io
import json
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from mdpot import build_potential, save_potential
from mdpot.cli import main
from mdpot.modelfile import save_ensemble
from mdpot.training.config import list_recipes, load_recipe
from mdpot.training.schema import Recipe

FILES = Path(__file__).parent / "files"


def commands() -> list[list[str]]:
    """Every command, as the words that call it."""

    def walk(command: click.Command, words: list[str]) -> list[list[str]]:
        inner = command.commands if isinstance(command, click.Group) else {}
        return [words, *(path for name, sub in inner.items() for path in walk(sub, [*words, name]))]

    return walk(main, [])


def run(*args: str) -> Result:
    return CliRunner().invoke(main, list(args))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, tuple, dict[str, Any]]]:
    """Puts recorders in the place of whole runs, and changes to a folder of its own."""
    recorded: list[tuple[str, tuple, dict[str, Any]]] = []

    def recorder(name: str) -> Any:
        def record(*args: Any, **keywords: Any) -> dict[str, Any]:
            recorded.append((name, args, keywords))
            return {}

        return record

    for module, names in {
        "mdpot.training.run": ("run_train", "run_pretrain", "run_finetune", "run_property", "run_evaluate"),
        "mdpot.training.compare": ("run_compare",),
    }.items():
        fake = types.ModuleType(module)
        for name in names:
            setattr(fake, name, recorder(name))
        monkeypatch.setitem(sys.modules, module, fake)
    monkeypatch.chdir(tmp_path)
    return recorded


@pytest.fixture(scope="module")
def potential_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "potential.safetensors"
    potential = build_potential("egnn", {"cutoff": 3.0, "width": 8, "layers": 1}, [1, 8], [-1.0, -2.0], 1.0)
    save_potential(path, potential, {"provenance": {"recipe": {"name": "test", "preset": "standard"}, "seed": 7}})
    return path


def test_help_needs_nothing_heavy() -> None:
    """Rendering every help text leaves torch and the like unimported; so it answers at once."""
    code = f"""
import sys
from mdpot.cli import main
for words in {commands()!r}:
    try:
        main([*words, "--help"])
    except SystemExit as stop:
        assert stop.code == 0, words
heavy = {{"torch", "ase", "numpy", "scipy", "matplotlib", "openmm", "pydantic", "rich"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_is_complete(words: list[str]) -> None:
    result = run(*words, "--help")
    assert result.exit_code == 0
    command: click.Command = main
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{words} {parameter.name} has no help"
        else:
            assert parameter.human_readable_name in command.help


def test_help_names_every_shipped_recipe() -> None:
    for command in ("train", "pretrain", "finetune", "finetune-property"):
        text = " ".join(run(command, "--help").output.split())
        assert ", ".join(list_recipes()) in text


def test_handed_on_arguments_exist() -> None:
    """What the commands hand on is what the functions take."""
    from mdpot.training.compare import run_compare
    from mdpot.training.run import run_finetune, run_pretrain, run_property, run_train

    shared = {"data", "out", "seed", "device", "resume", "listener", "team"}
    for function, more in (
        (run_train, set()),
        (run_pretrain, set()),
        (run_finetune, {"from_file"}),
        (run_property, {"from_file"}),
        (run_compare, {"seeds"}),
    ):
        takes = set(inspect.signature(function).parameters)
        assert takes == {"recipe"} | shared | more, function.__name__


def test_compare_hands_everything_on(calls: list) -> None:
    result = run(
        *[
            "train",
            "water-rpbe",
            "--preset",
            "quick",
            "--set",
            "finetune.lr=1e-3",
            "--set",
            "data.molecule=none",
        ],
        *["--seed", "3", "--device", "cpu", "--out", "here", "--resume", "--data", "frames.xyz"],
        *["--compare-scratch", "--seeds", "4"],
    )
    assert result.exit_code == 0, result.output
    from mdpot.training.together import SOLO

    ((name, (recipe,), keywords),) = calls
    assert name == "run_compare"
    assert isinstance(recipe, Recipe)
    assert (recipe.preset, recipe.finetune.lr, recipe.data.molecule) == ("quick", 1e-3, None)
    assert keywords == {
        "data": Path("frames.xyz"),
        "out": Path("here"),
        "seed": 3,
        "device": "cpu",
        "resume": True,
        "team": SOLO,
        "seeds": 4,
        "listener": keywords["listener"],
    }


def test_defaults(calls: list) -> None:
    assert run("train", "water-rpbe").exit_code == 0
    assert run("pretrain", "water-rpbe", "--preset", "paper", "--seed", "1").exit_code == 0
    assert run("finetune", "custom", "--from", "water-rpbe-small").exit_code == 0
    (_, (recipe,), train), (_, _, pretrain), (_, _, finetune) = calls
    assert recipe.preset == "quick"
    assert train["out"] == Path("runs/water-rpbe-quick-seed0")
    assert (train["seed"], train["device"], train["resume"], train["data"]) == (0, None, False, None)
    assert pretrain["out"] == Path("runs/water-rpbe-paper-pretrain-seed1")
    assert finetune["out"] == Path("runs/custom-quick-finetune-seed0")
    assert finetune["from_file"] == Path("water-rpbe-small")


@pytest.mark.parametrize("preset", ["quick", "full"])
@pytest.mark.parametrize("command", ["finetune", "finetune-property"])
def test_finetuning_takes_the_network_of_its_file(calls: list, command: str, preset: str) -> None:
    """Unless another is asked for; what is no part of the network stays the recipe's."""
    name = "custom" if command == "finetune" else "matbench-jdft2d"
    start = (command, name, "--preset", preset, "--from", "rmd17-ethanol")
    for changes in (
        (),
        ("--set", "finetune.lr=1e-3", "--set", "model.repulsion=false"),
        ("--set", "model.cutoff=4.5"),
        ("--set", "model . hyperparameters={ size = 'small' }"),
        ("--set", "model={ name = 'egnn' }"),
        ("--model", "egnn"),
    ):
        assert run(*start, *changes).exit_code == 0
    networks = [recipe.model for _, (recipe,), _ in calls]
    own = load_recipe(name, preset).model
    ethanol = {"size": "medium", "layers": 3, "order": 3, "sent_order": 2}
    for network, repulsion in zip(networks[:2], (own.repulsion, False), strict=True):
        assert (network.name, network.cutoff, network.hyperparameters) == ("tide", 5.0, ethanol)
        assert network.repulsion is repulsion
    assert networks[2] == own.model_copy(update={"cutoff": 4.5})
    assert networks[3].hyperparameters == {**own.hyperparameters, "size": "small"}
    assert [network.name for network in networks[4:]] == ["egnn", "egnn"]


def test_finetuning_takes_what_its_recipe_has_for_the_network_of_the_file(calls: list) -> None:
    file = FILES / "version1.safetensors"  # an EGNN, 8 wide, of 3.3 Å
    assert run("finetune", "custom", "--from", str(file)).exit_code == 0
    ((_, (recipe,), _),) = calls
    assert recipe.finetune == load_recipe("custom", model="egnn").finetune
    assert (recipe.model.name, recipe.model.cutoff, recipe.model.hyperparameters["width"]) == ("egnn", 3.3, 8)
    assert "avg_neighbors" not in recipe.model.hyperparameters


def test_finetuning_from_an_ensemble_names_what_to_do(calls: list, tmp_path: Path) -> None:
    save_ensemble(tmp_path / "two.safetensors", ["rmd17-ethanol", "rmd17-aspirin"])
    result = run("finetune", "custom", "--from", str(tmp_path / "two.safetensors"))
    assert result.exit_code == 2
    assert "holds an ensemble" in result.stderr
    assert not calls


def test_print_recipe_explains_every_key_and_runs_nothing(calls: list, tmp_path: Path) -> None:
    result = run("train", "water-rpbe", "--print-recipe", "--set", "finetune.lr=0.5")
    assert result.exit_code == 0
    assert "# Learning rate after the warm-up" in result.output
    assert not calls
    written = tmp_path / "mine.toml"
    written.write_text(result.output, encoding="utf-8")
    assert run("train", str(written)).exit_code == 0
    assert calls[0][1][0].finetune.lr == 0.5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian"], "No such command 'trian'"),
        (["train"], "Missing argument 'RECIPE'"),
        (["train", "water-rpbe", "--sed", "3"], "No such option"),
        (["train", "water-rpbe", "--seed", "x"], "'--seed'"),
        (["train", "water-rpb"], "Did you mean 'water-rpbe'?"),
        (["train", "water-rpbe", "--preset", "quik"], "Did you mean 'quick'?"),
        (["train", "water-rpbe", "--set", "finetune.lrr=1"], "Did you mean 'lr'?"),
        (["train", "nowhere.toml"], "is not there"),
        (["train", "water-rpbe", "--seeds", "3"], "--seeds needs --compare-scratch"),
        (["train", "water-rpbe", "--device", "gpu9"], "--device 'gpu9' cannot be used here"),
        (["pretrain", "water-rpbe", "--set", "pretrain.objective=none"], "pretrains nothing"),
        (["finetune", "water-rpbe"], "'--from'"),
        (["finetune", "water-rpbe", "--from", "nowhere.safetensors"], "'nowhere.safetensors' is not there"),
        (["info", "nowhere.safetensors"], "is not there"),
        (["info"], "Missing argument 'FILE'"),
    ],
)
def test_bad_input_is_one_line_and_code_2(calls: list, args: list[str], message: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not calls


def test_several_files_are_asked_for_as_a_pattern(calls: list) -> None:
    """A shell makes two words of a pattern without quotes, and click would take the last of two options."""
    Path("b.xyz").touch()
    for words in (["--data", "a.xyz", "b.xyz"], ["--data", "a.xyz", "--data", "b.xyz"]):
        result = run("train", "custom", *words)
        assert result.exit_code == 2
        assert 'a pattern in quotes, such as "runs/*.xyz"' in result.output
        assert "Give files by --data" not in result.output
    assert not calls


def test_files_without_their_option(calls: list) -> None:
    for name in ("a.xyz", "b.xyz"):
        Path(name).touch()
    for words, several in ((["a.xyz"], False), (["a.xyz", "b.xyz"], True)):
        result = run("train", "custom", *words)
        assert result.exit_code == 2
        assert "Give files by --data, as in --data a.xyz." in result.stderr
        assert ("a pattern in quotes" in result.stderr) == several
    assert not calls


def test_system_errors_and_missing_extras_are_one_line(calls: list, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_with(error: BaseException) -> Result:
        def raise_it(*args: Any, **keywords: Any) -> None:
            raise error

        monkeypatch.setattr(sys.modules["mdpot.training.run"], "run_train", raise_it)
        return run("train", "water-rpbe", "--seed", "5")

    result = fail_with(PermissionError(13, "Permission denied", "runs"))
    assert (result.exit_code, result.stderr) == (2, "error: Permission denied: runs\n")
    result = fail_with(ModuleNotFoundError("No module named 'tensorboard'", name="tensorboard"))
    assert result.exit_code == 2
    assert 'pip install "mdpot[tensorboard]"' in result.stderr
    result = fail_with(KeyboardInterrupt("stopped at step 3 of 10."))
    assert result.exit_code == 130
    assert result.stderr == (
        "interrupted: stopped at step 3 of 10. Go on with: mdpot train water-rpbe --seed 5 --resume\n"
    )
    for name, command in main.commands.items():
        takes = any(parameter.name == "resume" for parameter in command.params) and name != "md"  # which says it itself
        assert ("--resume" in main._remedy([name, "x"])) == takes, name
    # A fault of ours keeps its traceback, in a file that the line names.
    for error in (ZeroDivisionError("by zero"), ModuleNotFoundError(name="nonsense")):
        result = fail_with(error)
        assert (result.exit_code, result.stderr.count("\n")) == (70, 1)
        file = re.search(r"\S*mdpot-error-\S*\.txt", result.stderr)
        assert file is not None
        told = Path(file[0]).read_text()
        Path(file[0]).unlink()
        assert f"{type(error).__name__}" in told
        assert "raise_it" in told


def test_info_prints_the_header(potential_file: Path) -> None:
    result = run("info", str(potential_file))
    assert result.exit_code == 0
    for text in ("egnn", "H O", "width 8", "seed", "test standard"):
        assert text in result.output
    assert run("info", str(potential_file.parent)).exit_code == 0
    header = json.loads(run("info", str(potential_file), "--json").output)
    assert header["elements"] == [1, 8]
    assert header["provenance"]["seed"] == 7


def test_info_refuses_other_files(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"nothing of the sort")
    result = run("info", str(file))
    assert result.exit_code == 2
    assert "damaged or of another format" in result.stderr


def test_version() -> None:
    from mdpot import __version__

    assert run("--version").output == f"mdpot, version {__version__}\n"


def test_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "mdpot", "--version"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "version" in done.stdout


def test_a_run_shows_its_progress() -> None:
    from rich.console import Console

    from mdpot.cli.progress import TerminalListener
    from mdpot.training.trainer import Report

    console = Console(record=True, width=120, file=io.StringIO())
    with TerminalListener(console) as listener:
        listener.note("data: [1000] frames")
        listener.progress("pretrain", Report(100, 400, 50.0, {"train/cosine": 0.25}))
        listener.progress("pretrain", Report(200, 400, 100.0, {"train/cosine": 0.3, "val/cosine": 0.5}))
        listener.progress("finetune", Report(400, 400, 100.0, {"val/force_rmse": 120.04, "val/energy_mae": 2.5}))
    lines = console.export_text().splitlines()
    assert lines == [
        "data: [1000] frames",
        "pretrain     200 of 400  cosine 0.500  2 steps/s, 1:40 min left",
        "finetune     400 of 400  force RMSE 120.0 meV/Å, energy MAE 2.50 meV/atom  4 steps/s",
    ]


def test_results_are_printed_as_a_table(calls: list, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {"energy_rmse": 1.234, "force_rmse": 99.96, "n_frames": 1000.0}
    module = sys.modules["mdpot.training.run"]
    monkeypatch.setattr(module, "run_train", lambda *a, **k: {"errors": {"train": errors, "test": errors}})
    monkeypatch.setattr(module, "run_evaluate", lambda *a, **k: {"labels": "DFT", "frames.xyz": errors})
    for output in (run("train", "water-rpbe").stdout, run("evaluate", "f", "frames.xyz").stdout):
        assert "force RMSE (meV/Å)" in output
        assert "100.0" in output
        assert "1,000" in output
        assert "stress" not in output
    assert json.loads(run("evaluate", "f", "x", "--json").stdout)["frames.xyz"] == errors


def test_a_comparison_is_printed_with_its_standard_errors(calls: list, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = {
        "pretrained": {"mean": 100.0, "standard_error": 2.0},
        "difference": {"mean": -20.0, "standard_error": None},
    }
    module = sys.modules["mdpot.training.compare"]
    monkeypatch.setattr(module, "run_compare", lambda *a, **k: {"test": {"force_rmse": arms}})
    output = run("train", "water-rpbe", "--compare-scratch").stdout
    assert "pretrained" in output
    assert "100.0 ± 2.0" in output
    assert "-20.0 " in output


@pytest.mark.parametrize(("result", "name"), [({}, "potential"), ({"property": {"key": "gap"}}, "model")])
def test_what_came_out_is_called_what_it_is(
    result: dict, name: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from mdpot.cli.train import _print_result

    (tmp_path / "potential.safetensors").touch()
    _print_result(tmp_path, result)
    assert capsys.readouterr().out == f"{name}: {tmp_path / 'potential.safetensors'}\n"
