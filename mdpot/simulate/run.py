"""One run of molecular dynamics: how it is started and resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write as write_atoms

from mdpot import __version__
from mdpot.electrons import of_multiplicity, stated_electrons
from mdpot.errors import MdpotError, name_elements
from mdpot.files import atomic, locked, write_text
from mdpot.modelfile import ModelFile, open_model
from mdpot.simulate.box import read_start
from mdpot.simulate.driver import LAST_GOOD, LOG, RESTART, STRUCK, Driver, Observer, Silent, trajectory_name
from mdpot.simulate.engine import Engine, maxwell_boltzmann, repartition
from mdpot.simulate.engines import ENGINES, Forces, ModelFacts, read_facts
from mdpot.simulate.log import read_log
from mdpot.simulate.restart import cut_back, damaged, load_restart
from mdpot.simulate.settings import TRAJECTORIES, Settings, settings_of
from mdpot.simulate.summary import Summary, is_summarized, summarize
from mdpot.simulate.watch import Limits, Watch

MINIMIZE_STEPS = 300
SETTINGS, START, LOCK = "run.json", "start.xyz", ".lock"
TRAINING = "recipe.toml"  # what only the folder of a training run holds; its run.json is another


def run_md(
    settings: Settings,
    out: Path | str,
    *,
    forces: Forces | None = None,
    limits: Limits | None = None,
    observer: Observer | None = None,
) -> Summary:
    """Runs molecular dynamics from its start into a new folder.

    The folder then holds run.json (settings), start.xyz, log.csv, the trajectory, restart.npz, summary.json,
    pictures and, for a periodic structure, rdf.csv. When the watch strikes, also last_good.xyz and
    struck.xyz.

    Args:
        settings: what to do.
        out: folder; it is made.
        forces: in place of the model's: an ASE calculator (engine ase), or a function that makes an OpenMM
            system of an OpenMM topology (engine openmm).
        limits: of the watch.
        observer: is told how it goes.

    Returns:
        The outcome; `stopped` says whether it ended early, and why.

    Raises:
        MdpotError: settings out of range, no such start or model, elements the model does not know, no full
            cell for NPT, or a folder that holds another run or is in use by one.
    """
    settings.check()
    out = Path(out)
    _check_folder(out)
    observer = observer or Silent()
    box, velocities, thermostat = np.random.SeedSequence(settings.seed).spawn(3)
    atoms = read_start(settings.start, np.random.default_rng(box))
    forces = open_model(settings.model) if forces is None else forces
    facts = read_facts(forces)
    check_structure(atoms, settings, facts)
    settings = _with_electrons(settings, atoms, forces)
    if settings.hydrogen_mass is not None:
        atoms.set_array("masses", repartition(atoms, settings.hydrogen_mass), float, ())
    observer.phase("loading")
    engine = ENGINES[settings.engine](atoms, settings, _seed(thermostat), forces)
    with _alone(out):
        _check_folder(out)
        _clear(out)
        _write_settings(out, settings, forces)
        with atomic(out / START) as temporary:
            write_atoms(temporary, engine.atoms, format="extxyz")
        if settings.minimize:
            observer.phase("minimizing")
            engine.minimize(MINIMIZE_STEPS)
        rng = np.random.default_rng(velocities)
        engine.set_velocities(maxwell_boltzmann(engine.atoms.get_masses(), settings.temperature, rng))
        watch = _watch(engine, settings, facts, limits)
        return _finish(Driver(engine, settings, out, watch, observer), resumed=False)


def resume_md(
    out: Path | str,
    changes: Mapping[str, Any] | None = None,
    *,
    forces: Forces | None = None,
    limits: Limits | None = None,
    observer: Observer | None = None,
) -> Summary:
    """Carries a run on from its restart file, as if it had not been interrupted.

    What was written to the log and the trajectory after the restart file is taken off first. Where no step is left but
    the summary, as after a kill at the end, it is made.

    Args:
        out: folder of the run.
        changes: settings by name; only `steps`, `device`, `backend` and the path of the model may differ.
        forces: as in `run_md`.
        limits: of the watch.
        observer: is told how it goes.

    Raises:
        MdpotError: no run in the folder or one that is at work, damaged files, another setting or another model, or
            nothing left to do.
    """
    out = Path(out)
    if not (out / SETTINGS).is_file():
        raise MdpotError(f"out {str(out)!r} holds no run to resume. Leave --resume out to start one.")
    with _alone(out):
        return _resume(out, changes or {}, forces, limits, observer or Silent())


def _resume(
    out: Path, changes: Mapping[str, Any], forces: Forces | None, limits: Limits | None, observer: Observer
) -> Summary:
    stored, fingerprint = _read_settings(out)
    settings = stored.resumed(changes)
    settings.check()
    forces = open_model(settings.model) if forces is None else forces
    facts = read_facts(forces)
    if _fingerprint(forces) != fingerprint:
        raise MdpotError(f"model {settings.model!r} is not the one that the run in {str(out)!r} began with.")
    restart = load_restart(out / RESTART, (LOG, trajectory_name(settings)))
    if restart.step > settings.steps or (restart.step == settings.steps and is_summarized(out, restart.step)):
        raise MdpotError(
            f"the run in {str(out)!r} already has {restart.step} steps. Ask for more with --steps, which "
            "counts them all from the start."
        )
    atoms = Atoms(
        restart.numbers,
        restart.start_positions,
        cell=restart.start_cell,
        pbc=restart.pbc,
        masses=restart.masses,
        info=settings.electrons,
    )
    observer.phase("loading")
    thermostat = np.random.SeedSequence(settings.seed).spawn(3)[2]
    engine = ENGINES[settings.engine](atoms, settings, _seed(thermostat), forces)
    try:
        engine.restore(restart.arrays)
    except (KeyError, ValueError, TypeError) as error:
        raise MdpotError(damaged(out / RESTART, error)) from error
    cut_back(out, restart.sizes)
    read_log(out / LOG)  # refuses a damaged one now, not at the end
    for name in (LAST_GOOD, STRUCK):
        (out / name).unlink(missing_ok=True)
    _write_settings(out, settings, forces)
    watch = _watch(engine, settings, facts, limits)
    watch.recall(restart.memory)
    return _finish(Driver(engine, settings, out, watch, observer), resumed=True)


def _with_electrons(settings: Settings, atoms: Atoms, forces: Forces) -> Settings:
    """The settings with what the structure states of its electrons, and the structure with what the settings do.

    Raises:
        MdpotError: charge or multiplicity for a potential that knows of neither.
    """
    if not isinstance(forces, ModelFile) or forces.baseline is None:
        if settings.electrons:
            raise MdpotError(
                f"{' and '.join(settings.electrons)}: for a potential that corrects a force field; {settings.model!r} "
                "does not, and sees neither."
            )
        atoms.info.clear()
        return settings
    said = of_multiplicity(settings.charge, settings.multiplicity).or_else(stated_electrons(atoms))
    settings = replace(settings, **said.options(atoms.numbers))
    atoms.info = settings.electrons
    return settings


def check_structure(atoms: Atoms, settings: Settings, facts: ModelFacts) -> None:
    """Checks that a structure can be moved, and that it goes with the model and the ensemble.

    Raises:
        MdpotError: it does not.
    """
    if facts.elements is not None:
        strangers = sorted(set(atoms.numbers.tolist()) - set(facts.elements))
        if strangers:
            raise MdpotError(
                f"START holds {name_elements(strangers)}, but the model knows only {name_elements(facts.elements)}. "
                "Train one that knows both."
            )
    masses = atoms.get_masses()
    if not (np.isfinite(masses) & (masses > 0)).all():
        wrong = int(np.argmin(np.isfinite(masses) & (masses > 0)))
        raise MdpotError(
            f"START gives atom {wrong} ({atoms.symbols[wrong]}) a mass of {masses[wrong]:g} u; it must be positive."
        )
    periodic = atoms.cell.array[atoms.pbc]
    if not np.isfinite(periodic).all() or np.linalg.matrix_rank(periodic) < len(periodic):
        raise MdpotError(
            f"START is periodic, pbc = {atoms.pbc.tolist()}, but its cell {atoms.cell.array.tolist()} has no lattice "
            "vectors for that. Give it a cell, or make it aperiodic."
        )
    if settings.ensemble != "npt":
        return
    if not atoms.pbc.all() or np.linalg.det(atoms.cell.array) == 0:
        raise MdpotError(
            f"ensemble npt needs a cell that is periodic in all directions; START has pbc = "
            f"{atoms.pbc.tolist()}. Give it a cell, or take nvt."
        )
    if not facts.conservative:
        raise MdpotError(
            "ensemble npt needs forces that are the gradient of an energy; this model predicts forces "
            "directly. Take nvt."
        )


def _finish(driver: Driver, resumed: bool) -> Summary:
    stopped = driver.run(resumed)
    driver.observer.phase("analyzing")
    s = driver.settings
    return summarize(
        driver.out,
        driver.trajectory.path,
        driver.atoms,
        s.ensemble,
        s.temperature,
        driver.engine.description,
        stopped,
        driver.interrupted,
    )


def _watch(engine: Engine, settings: Settings, facts: ModelFacts, limits: Limits | None) -> Watch:
    # The thermostat needs some times its own time scale to take the strain of the start out.
    limits = limits or Limits(equilibration=max(5.0, 10.0 / settings.friction))
    return Watch(engine.atoms, settings.ensemble, settings.temperature, facts.min_distances, limits)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Makes the folder, and holds its lock while the block runs; a process that dies lets it go."""
    with locked(out / LOCK, wait=False) as free:
        if not free:
            raise MdpotError(f"out {str(out)!r} is in use by another run. Wait for it, or choose another folder.")
        yield


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise MdpotError(f"out {str(out)!r} is a file. Choose a folder.")
    if (out / TRAINING).exists():
        raise MdpotError(f"out {str(out)!r} holds a training run. Choose another folder.")
    begun = (out / SETTINGS).exists()
    names = [RESTART] if begun else [SETTINGS, RESTART, START, *_written()]
    if any((out / name).exists() for name in names):
        raise MdpotError(f"out {str(out)!r} holds another run. Carry it on with --resume, or choose another folder.")


def _clear(out: Path) -> None:
    """Removes what a run left that ended before its first restart file."""
    for name in _written():
        (out / name).unlink(missing_ok=True)


def _written() -> list[str]:
    return [LOG, LAST_GOOD, STRUCK, *(f"trajectory.{kind}" for kind in TRAJECTORIES)]


def _write_settings(out: Path, settings: Settings, forces: Forces) -> None:
    content = {
        "settings": settings.to_dict(),
        "model_sha256": _fingerprint(forces),
        "mdpot_version": __version__,
    }
    write_text(out / SETTINGS, json.dumps(content, indent=2) + "\n")


def _read_settings(out: Path) -> tuple[Settings, str | None]:
    """The settings of the run in a folder, and the checksum of its model."""
    path = out / SETTINGS
    if (out / TRAINING).exists():
        raise MdpotError(f"out {str(out)!r} holds a training run, not one of mdpot md. Choose another folder.")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        settings = settings_of(stored["settings"])
        settings.check()
        return settings, stored["model_sha256"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MdpotError(damaged(path, error)) from None


def _fingerprint(forces: Forces) -> str | None:
    return forces.sha256 if isinstance(forces, ModelFile) else None


def _seed(sequence: np.random.SeedSequence) -> int:
    return int(sequence.generate_state(1)[0])
