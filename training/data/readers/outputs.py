"""What ASE's readers leave out of a file, or take to be in other units, by format; the structures are those of ASE."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import ase.db
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.formats import filetype
from ase.units import Hartree

from mdpot.errors import MdpotError, unknown
from mdpot.packed import head
from mdpot.structures import decode, read_bytes, read_structures, without_learned
from mdpot.training.data.label_keys import family_of
from mdpot.training.data.readers.abinit import is_abinit, read_abinit
from mdpot.training.data.readers.cp2k import UNITS as CP2K_UNITS
from mdpot.training.data.readers.cp2k import add_forces, is_cp2k, is_forces
from mdpot.training.data.readers.gaussian import jobs_of_gaussian
from mdpot.training.data.readers.ipi import add_labels, quantity_of
from mdpot.training.data.readers.jobs import (
    converge_espresso,
    drop_trials_of_nwchem,
    jobs_of_orca,
    steps_of_gamess,
    structures_of,
)
from mdpot.training.data.readers.qcschema import is_qcschema, read_qcschema
from mdpot.training.data.readers.settings import jobs_notes
from mdpot.training.data.unit_statements import canonical
from mdpot.training.data.units import ASE, ATOMIC, SYSTEMS, Units
from mdpot.xyz import blocks, columns_unread, is_xyz

#: Units of LAMMPS by the name of its command `units`.
LAMMPS = {"metal": SYSTEMS["metal"], "real": SYSTEMS["real"], "electron": ATOMIC}
#: Keys of SchNetPack's metadata.
_OF_PROPERTIES, _OF_LENGTHS = "_property_unit_dict", "_distance_unit"
_AENET = re.compile(r"^\s*#\s*total energy\s*=\s*([-+\d.eEdD]+)", re.I | re.M)
#: An energy in a comment of XYZ and the word behind it, in parentheses or not, which may be its unit.
_WITH_UNIT = re.compile(r"(?<!\S)(\w+)\s*=\s*[-+]?\d[\d.eEdD+-]*\s+[(\[]?([A-Za-z][\w./]*)[)\]]?(?=[\s,]|$)")
#: The key of ORCA's dynamics.
_ORCA = "E_Pot"
_STEP = "FREE ENERGIE OF THE ION-ELECTRON SYSTEM"
_POTENTIALS, _COUNTS = re.compile(r"^ POTCAR: +(.*\S)", re.M), re.compile(r"^ +ions per type = +(.*\S)", re.M)
_ITERATION = re.compile(r"Iteration\s+\d+\(\s*(\d+)\)")
_REACHED = "aborting loop because EDIFF is reached"
_ELECTRONS_OF_ORCA = {
    "charge": re.compile(r"^ *Total Charge +Charge +\.{2,} *(-?\d+)", re.M),
    "multiplicity": re.compile(r"^ *Multiplicity +Mult +\.{2,} *(\d+)", re.M),
}
#: Units that an output of CASTEP states: of energies, of lengths, and of forces or stress.
_UNITS_OF_CASTEP = re.compile(
    r"^ *Final (?:free )?energy.*= *\S+ +(\S+) *$|Real Lattice\((\S+)\)|Cartesian components \((\S+)\)", re.M
)
_CASTEP = {"eV", "A", "eV/A", "GPa"}
_FREE_ENERGY = re.compile(r'<i name="e_fr_energy">\s*(\S+)\s*</i>')


@dataclass
class Outputs:
    """The structures of a file and what holds for all of them.

    Attributes:
        structures: with labels in the calculator's results, in `info` and in `arrays`.
        units: of the format, or that the file states for all its labels.
        units_of: the unit of single keys, and under "length" that of positions and cell, as the file states them.
        notes: what the user should know of the reading, a sentence each.
    """

    structures: list[Atoms]
    units: Units = ASE
    units_of: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_outputs(path: Path) -> Outputs:
    """The structures of a file that ASE reads, with what its reader leaves out.

    - Energies in the comments of XYZ may have their unit behind them. Columns that a comment does not name are noted.
    - i-PI's positions have the forces and energies of the files beside them, see `mdpot.training.data.readers.ipi`.
    - CP2K's positions have the forces and cells of the files beside them, see `mdpot.training.data.readers.cp2k`.
    - SDF files have all of their molecules.
    - Databases have their key-value pairs, their data, and the units in their metadata, as SchNetPack writes them.
    - XSF files of aenet have the energy of their first line, and forces in eV/Å.
    - Qbox and DL_POLY are in their own units, which ASE does not turn into its own.
    - A LAMMPS dump states its units after `dump_modify ID units yes`.
    - Steps of VASP whose electrons did not converge have no labels.
    - Outputs of Gaussian and ORCA have the charge and the multiplicity.
    - Outputs of Gaussian have all of their jobs, and their forces belong to positions in the input orientation.
    - Outputs of FHI-aims that broke off have the steps before.
    - Outputs of GPAW have the free energy, whose derivative the forces are.
    - Outputs of CASTEP have their correction for dispersion in the energy, as in the forces.
    - Outputs of Quantum ESPRESSO with exact exchange have the energy with it; steps that did not converge, no labels.
    - Outputs of ABINIT and QCSchema are read by modules of their own.
    - Outputs of ORCA and GAMESS have all of their jobs and steps.

    Raises:
        MdpotError: as `read_structures`; CP2K's file of forces; a dump in units that are not known here; a Gaussian
            output without the positions of its forces; an OUTCAR of several systems.
    """
    kind = _kind(path)
    found = _interrupted_aims(path) if kind == "aims-output" else None
    if kind == "abinit-out":
        found = _abinit(path)
    if kind == "qcschema":
        found = _qcschema(path)
    found = found or Outputs(read_structures(path))
    mend = _MENDERS.get(kind)
    try:
        if mend is not None:
            mend(path, found)
    except MdpotError:
        raise
    except (ValueError, LookupError) as error:  # asterisks for numbers, tables that are cut off
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise MdpotError(f"{path}: cannot be read ({reason[:200]}). Check the file, or convert it.") from None
    return found


def _interrupted_aims(path: Path) -> Outputs | None:
    """The complete steps of FHI-aims where the calculation did not come to its end, which ASE refuses; else None.

    Raises:
        MdpotError: no step is complete, or the file cannot be read.
    """
    if "Have a nice day." in decode(read_bytes(path)):
        return None
    # Of a step that is cut off, ASE takes a number of another unit for the energy.
    structures = structures_of(path, "aims-output", non_convergence_ok=True)[:-1]
    if not structures:
        raise MdpotError(f"{path}: the calculation did not come to its end, and no step of it is complete.")
    return Outputs(structures, notes=["the calculation did not come to its end: the step it broke off in is left out."])


def _abinit(path: Path) -> Outputs:
    structures, n_others = read_abinit(path, decode(read_bytes(path)))
    n = len(structures) + n_others
    note = f"datasets that are no ground state (optdriver is not 0) are left out: {n_others} of {n}."
    return Outputs(structures, notes=[note] if n_others else [])


def _qcschema(path: Path) -> Outputs:
    structures, notes = read_qcschema(path)
    return Outputs(structures, replace(ATOMIC, source="of the format"), notes=notes)


def _xyz(path: Path, found: Outputs) -> None:
    comments, n_unread = [], 0
    for _, comment, rows in blocks(path, decode(read_bytes(path))):
        if not comments:  # the first frame stands for all
            n_unread = columns_unread(comment, rows[0])
        comments.append(comment)
    units = [_units_after(comment) for comment in comments]
    for index, there in enumerate(units):
        if there != units[0]:
            one, other = (", ".join(f"{key} in {unit}" for key, unit in said.items()) for said in (units[0], there))
            raise MdpotError(
                f"{path}: frame 0 has {one or 'no unit'}, and frame {index} {other or 'none'}. Write all in one unit."
            )
    found.units_of |= units[0]
    if n_unread:
        found.notes.append(
            f"each atom has {n_unread} columns that are not read, for its comment does not name them: write, for "
            'forces, "Properties=species:S:1:pos:R:3:forces:R:3" there, and "energy=" before an energy.'
        )
    if held := quantity_of(comments[0]):
        if held not in ("positions", "x_centroid"):
            raise MdpotError(
                f"{path}: i-PI writes {held} as if they were positions. Give the file of the positions, as "
                "simulation.pos_0.xyz, with that of the forces, as simulation.for_0.xyz, beside it."
            )
        units_of, note = add_labels(path, found.structures, comments) if held == "positions" else ({}, "")
        found.units_of |= units_of
        found.notes += [note] if note else []
    if not all(is_cp2k(comment) for comment in comments):
        return
    if is_forces(path):
        raise MdpotError(
            f"{path}: CP2K writes forces and velocities as if they were positions. Give the file of the positions, "
            "…-pos-1.xyz, with that of the forces, …-frc-1.xyz, beside it: see CP2K in docs/own-data.md."
        )
    found.units_of |= CP2K_UNITS
    if note := add_forces(path, found.structures, comments):
        found.notes.append(note)


def _units_after(comment: str) -> dict[str, str]:
    """The units behind the energies of a comment, as in "energy = -76.3 Hartree", by the key of these."""
    units = {}
    for key, word in _WITH_UNIT.findall(comment):
        kind = family_of(key)
        if key in ("E", _ORCA) or (kind is not None and kind[0] == "energy"):
            with suppress(MdpotError):
                units[key] = canonical("energy", word)
    return units


def _sdf(path: Path, found: Outputs) -> None:
    """ASE reads the first molecule."""
    for block in decode(read_bytes(path)).split("$$$$\n")[1:]:
        if block.strip():
            found.structures += structures_of(path, "sdf", block)


def _kind(path: Path) -> str:
    """ASE's name of the format; "xyz" for all of XYZ, which is read here, and "" for what ASE does not tell."""
    if is_qcschema(path):
        return "qcschema"
    start = head(path)
    if is_xyz(start):
        return "xyz"
    if is_abinit(start):  # ASE takes it for an input
        return "abinit-out"
    try:
        return filetype(str(path), guess=True)
    except Exception:  # whatever a damaged file raises; its reader says what is wrong
        return ""


def _database(path: Path, found: Outputs) -> None:
    database = ase.db.connect(str(path), serial=True)
    for atoms, row in zip(found.structures, database.select(), strict=True):
        atoms.info |= row.key_value_pairs
        if row.data:
            atoms.info["data"] = dict(row.data)
    metadata = database.metadata
    units = metadata.get(_OF_PROPERTIES)
    found.units_of |= {str(key): str(unit) for key, unit in units.items()} if isinstance(units, dict) else {}
    if metadata.get(_OF_LENGTHS):
        found.units_of["length"] = str(metadata[_OF_LENGTHS])


def _xsf(path: Path, found: Outputs) -> None:
    """XCrySDen's own forces are in Hartree/Å, which ASE reads; aenet's are in eV/Å."""
    match = _AENET.search(decode(read_bytes(path)))
    if match is None:
        return
    (atoms,) = found.structures
    results = {"energy": float(match[1].replace("D", "e").replace("d", "e"))}
    if atoms.calc is not None and "forces" in atoms.calc.results:
        results["forces"] = atoms.calc.results["forces"] / Hartree
    atoms.calc = SinglePointCalculator(atoms, **results)


def _qbox(path: Path, found: Outputs) -> None:
    found.units = replace(ATOMIC, source="of the format")
    taken = [atoms.calc.results.pop("stress", None) for atoms in found.structures if atoms.calc is not None]
    if any(stress is not None for stress in taken):
        found.notes.append("the stress of Qbox is not read.")


def _dl_poly(path: Path, found: Outputs) -> None:
    found.units = replace(ASE, force="Hartree/bohr", source="of the format")


def _lammps(path: Path, found: Outputs) -> None:
    text = decode(read_bytes(path))
    stated = sorted({name.split()[0] for name in re.findall(r"^ITEM: UNITS\n(.+)$", text, re.M)})
    for name in stated:
        if name not in LAMMPS or len(stated) > 1:
            raise MdpotError(f"{path}: {unknown('units of a LAMMPS dump', ', '.join(stated), LAMMPS)}")
        found.units = replace(LAMMPS[name], source="stated in the file")


def _gpaw(path: Path, found: Outputs) -> None:
    """The forces are the derivative of the free energy; the energy is extrapolated to no smearing."""
    for atoms in found.structures:
        free = getattr(atoms.calc, "energy_contributions", {}).get("free energy")
        if atoms.calc is not None and free is not None and "uncorrected_energy" not in atoms.calc.parameters:
            atoms.calc.results["free_energy"] = free


def _outcar(path: Path, found: Outputs) -> None:
    text = without_learned(decode(read_bytes(path)))
    systems = {
        (*_POTENTIALS.findall(run), *_COUNTS.findall(run)) for run in re.split(r"^ vasp\.\d", text, flags=re.M)[1:]
    }
    if len(systems) > 1:
        raise MdpotError(
            f"{path}: outputs of several systems, one after the other, are in it, and ASE takes all for the first. "
            "Convert each for itself to extended XYZ, and join these."
        )
    most = re.search(r"^\s*NELM\s*=\s*(\d+)", text, re.M)
    steps = text.split(_STEP)[:-1]
    if most is None:
        return
    bad = []
    for n, step in enumerate(steps):
        cycles = [int(cycle) for cycle in _ITERATION.findall(step)]
        if cycles and cycles[-1] >= int(most[1]) and _REACHED not in step:
            bad.append(n)
    _drop_unconverged(found, bad, "NELM")


def _vasprun(path: Path, found: Outputs) -> None:
    text = decode(read_bytes(path))
    most, least = (re.search(rf'<i[^>]*name="{name}">\s*(\S+)\s*</i>', text) for name in ("NELM", "EDIFF"))
    if most is None or least is None:
        return
    bad = []
    for n, step in enumerate(text.split("<calculation>")[1:]):
        cycles = step.split("<scstep>")[1:]
        energies = [float(match[1]) for cycle in cycles if (match := _FREE_ENERGY.search(cycle)) is not None]
        changes = [abs(after - before) for before, after in pairwise(energies)]
        if len(cycles) >= int(most[1]) and changes and changes[-1] > float(least[1]):
            bad.append(n)
    _drop_unconverged(found, bad, "NELM")


def _drop_unconverged(found: Outputs, steps: Sequence[int], most: str) -> None:
    steps = [n for n in steps if n < len(found.structures)]
    for n in steps:
        found.structures[n].calc = None
    if steps:
        found.notes.append(
            f"the electrons did not converge within {most} cycles in {len(steps)} of {len(found.structures)} steps, "
            f"the first of them step {steps[0]}; their labels are not used."
        )


def _espresso(path: Path, found: Outputs) -> None:
    bad = converge_espresso(path, decode(read_bytes(path)), found.structures)
    _drop_unconverged(found, bad, "electron_maxstep")


def _gamess(path: Path, found: Outputs) -> None:
    found.structures = steps_of_gamess(path, decode(read_bytes(path))) or found.structures


def _nwchem(path: Path, found: Outputs) -> None:
    if n := drop_trials_of_nwchem(found.structures):
        found.notes.append(f"{n} energies without forces, of trial steps of an optimization, are not used.")


def _castep(path: Path, found: Outputs) -> None:
    """Forces and stress have the correction for dispersion, and the energies that ASE takes have not. Units are as the
    user wants them, and ASE takes them for CASTEP's own."""
    text = decode(read_bytes(path))
    if others := sorted({unit for match in _UNITS_OF_CASTEP.findall(text) for unit in match if unit} - _CASTEP):
        raise MdpotError(
            f"{path}: it is in {', '.join(others)}, and ASE takes it to be in {', '.join(sorted(_CASTEP))}. Run CASTEP "
            "without the keywords that change its units, or convert the file to extended XYZ."
        )
    for atoms in found.structures:
        results = {} if atoms.calc is None else atoms.calc.results
        for key in ("energy_with_dispersion_correlation", "free_energy_with_dispersion_correlation"):
            if key in results:
                results |= {"energy": results[key], "free_energy": results[key]}
    if n := text.count("system has not reached the groundstate"):
        found.notes.append(
            f"{n} times the electrons did not converge within max_scf_cycles; CASTEP's output does not tell in which "
            "of its steps, so that their labels are taken."
        )


def _gaussian(path: Path, found: Outputs) -> None:
    text = decode(read_bytes(path))
    found.structures = jobs_of_gaussian(path, text, found.structures)
    found.notes += jobs_notes("Gaussian", text)


def _orca(path: Path, found: Outputs) -> None:
    """Of a compound job with several charges or multiplicities, nothing says which are those of a structure."""
    text = decode(read_bytes(path))
    found.structures = jobs_of_orca(path, text) or found.structures
    found.notes += jobs_notes("ORCA", text)
    for key, pattern in _ELECTRONS_OF_ORCA.items():
        if len(said := set(pattern.findall(text))) == 1:
            for atoms in found.structures:
                atoms.info[key] = int(next(iter(said)))


_MENDERS: dict[str, Callable[[Path, Outputs], None]] = {
    "xyz": _xyz,
    "sdf": _sdf,
    "db": _database,
    "json": _database,
    "xsf": _xsf,
    "qbox": _qbox,
    "dlp4": _dl_poly,
    "dlp-history": _dl_poly,
    "lammps-dump-text": _lammps,
    "vasp-out": _outcar,
    "vasp-xml": _vasprun,
    "castep-castep": _castep,
    "espresso-out": _espresso,
    "gamess-us-out": _gamess,
    "nwchem-out": _nwchem,
    "gaussian-out": _gaussian,
    "orca-output": _orca,
    "gpaw-out": _gpaw,
}
