"""Whether the labels of a file can be what they are taken for: in these units, with this sign.

Nothing in a file of numbers says that its stress is in GPa or its positions in bohr, but such numbers contradict each
other. Each comparison is silent where the frames do not tell:

- nearest neighbors against the sum of covalent radii;
- the forces of a frame against those of others, which differ where distances do;
- the torque of forces on a molecule, which is zero, and the forces on hydrogen, which follow the length of its bond;
- the stiffness of bonds to hydrogen, which is much the same in all molecules, and the size of the forces;
- the work of forces and stress between two like frames against the difference of their energies;
- where no two are alike, energies against a pair energy that is fitted to the forces;
- energies of one composition against what binds atoms;
- the shear part of the stress against that of a pair energy that is fitted to the forces.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from ase.symbols import Symbols

from mdpot.training.data.comparisons import (
    Line,
    bonds_to_hydrogen,
    edges,
    nearest_neighbors,
    pair_energies,
    push_and_turn,
    repeated_forces,
    sample,
    shear,
    stiffness,
    strength,
    work,
)
from mdpot.training.data.frames import Frame
from mdpot.training.data.units import ASE, ENERGIES, PRESSURES, RYDBERG, Units
from mdpot.units import BOHR, HARTREE, KCAL_PER_MOL, KJ_PER_MOL

#: Median over atoms of the distance to the nearest neighbor, in sums of covalent radii. Crystals at 150 GPa have 0.72
#: and more, and no set of twenty has more than 1.05; Å taken for bohr give about 0.5 and bohr taken for Å about 1.8.
NEAREST = (0.62, 1.4)
#: Stiffness of a bond to hydrogen, eV/Å^2; C-H, N-H and O-H have 26 to 56 in a dozen sets of data.
STIFFNESS = (12.0, 120.0)
#: Median torque, see `push_and_turn`. Thirteen sets of molecules have 2e-7 to 2e-3; in another order of the atoms they
#: have 0.13 to 0.5, turned at random 0.04 to 0.5. The field of charges around pushes as well; a homogeneous one of
#: 0.5 V/Å gives water 0.04, noise whose mean was taken off 0.08.
TURNING = 0.1
#: Å, the scatter of bonds that vibrate, at 100 K; those at rest differ by their surroundings, and their forces by what
#: they were relaxed with.
VIBRATING = 0.015
#: Correlation of bonds and forces that have nothing to do with each other. A dozen sets have 0.88 to 0.99, less than
#: -0.88 where gradients stand for forces; forces in another order of the atoms have -0.3 to 0.37.
FOLLOWING = (-0.8, 0.5)
#: Å; hydrogen with another C, N or O as near is shared, and rests where its other neighbor has it.
SHARED = 1.8
STIFF = 35.0  # eV/Å², a bond to hydrogen
LARGEST_TYPICAL_FORCE = 60.0  # eV/Å, the median of the norms
STRONG = 0.05  # eV/Å, a typical force; relaxed crystals have less, and their stress is none of a pair energy's
#: No atom is bound by more than this, eV: tungsten has 9.
MOST_BINDING = 20.0
#: Frames that make a level of energies; strained crystals and dimers have any energy, but one after the other.
LEVEL = 4
#: Frames from elsewhere are looked for in parts of at least so many frames, and in so many kinds or files; fewer frames
#: tell less, so that the least correlation there is higher.
LEAST_PART, MOST_PARTS, SURE = 6, 10, 0.85
#: What is off by less is said of all frames alone, and a stress that no usual unit explains of so many frames.
FAR_OFF, MANY = 4.0, 50
#: Slopes of energies over pair energies; two dozen sets have 0.4 to 2.9.
PAIR_SLOPES = (0.2, 8.0)
#: Frames, and the correlation, from which on these are believed: of 15 frames of InP in a row the slope is -0.4.
PAIRS_TELL = (30, 0.95)
AGREEMENT, WEAK_AGREEMENT = 0.75, 0.4  # least correlation at which a slope says something, and says that it is huge


@dataclass(frozen=True)
class _Doubt:
    """A sentence on what contradicts physics; whether a usual unit, the sign, or a usual mistake explains it; and how
    many times too large the numbers are, negative with the other sign, where that is known."""

    text: str
    explained: bool = False
    factor: float = 0.0

    @property
    def sure(self) -> bool:
        """Whether a few frames are enough to say so: steps of a relaxation are long, and as good as twice off."""
        return self.explained and not 1 / FAR_OFF < self.factor < FAR_OFF


def contradictions(frames: Sequence[Frame], names: Mapping[str, str], units: Units = ASE) -> list[str]:
    """What in the frames contradicts physics, a sentence each, with the likely cause and the remedy; or what does in
    some of them, which may be from elsewhere: those of a kind or of a file, or a stretch of the frames.

    Args:
        frames: in eV and Å; labels may be absent.
        names: the keys of "energy", "forces" and "stress" in the file, for the messages.
        units: what the numbers in the file were taken to be in.

    Returns:
        The sentences; none where nothing is found.
    """
    frames = [frame for frame in frames if len(frame) > 1]
    if found := _doubts(frames, names, units):
        return [doubt.text for doubt in found]
    for which, part in _parts(frames):
        for doubt in _doubts(part, names, units, SURE):
            if doubt.sure:
                return [f"{which}: {doubt.text} Mend these alone: --units is of all frames, and the others are right."]
    return []


def _parts(frames: Sequence[Frame]) -> Iterator[tuple[str, list[Frame]]]:
    """The frames that may be from elsewhere than the others, and what they are called."""
    for of in ("kind", "file"):
        members = defaultdict(list)
        for frame in frames:
            members[getattr(frame, of)].append(frame)
        large = sorted(members, key=lambda name: -len(members[name]))[:MOST_PARTS]
        for name in large if len(members) > 1 else []:
            if len(members[name]) >= LEAST_PART:
                yield f"in the {len(members[name])} frames of {name or 'no name'}", members[name]
    n = next((n for n in (4, 2) if len(frames) >= n * LEAST_PART), 0)
    for k in range(n):
        part = list(frames[k * len(frames) // n : (k + 1) * len(frames) // n])
        yield f"from {part[0].place} to {part[-1].place}", part


def _doubts(frames: Sequence[Frame], names: Mapping[str, str], units: Units, least: float = 0.0) -> list[_Doubt]:
    """What `contradictions` finds in all frames together, where no correlation that it rests on is below `least`."""
    some = sample(frames)
    found = [_lengths(some, units.length)]
    if found[0] is None:  # else everything that follows is wrong as well
        key = names.get("forces", "forces")
        forces = _together(some, key) or _forces(some, key, units, least)
        energies = (_energies(frames, names, units, not least) if forces is None else None) or _levels(frames, names)
        found += [forces, energies]
        if forces is energies is None:  # else the stress would contradict them whatever its unit is
            found.append(_stress(frames, names.get("stress", "stress"), units, least))
    return [doubt for doubt in found if doubt is not None]


def _lengths(frames: Sequence[Frame], unit: str) -> _Doubt | None:
    nearest = nearest_neighbors(frames)
    if len(nearest) < 2:
        return None
    middle = float(np.median(nearest))
    taken = f"{_shortest(frames)} ({unit} was taken for the unit of length)."
    if middle < NEAREST[0]:
        if unit == "bohr" and middle > 0.4:
            taken += (
                " They are likely in Å: --units ase if energies and forces are in eV and Å too, else --units length=Å."
            )
        return _Doubt(
            f"atoms are far too close: half of them have a neighbor within {middle:.2f} of the sum of the covalent "
            f"radii, {taken}"
        )
    if middle > NEAREST[1] and np.quantile(nearest, 0.05, method="lower") > 0.85 * NEAREST[1]:
        if unit == "Å" and middle < 2.1:
            taken += (
                " They are likely in bohr: --units atomic if energies and forces are in Hartree and bohr too, else "
                "--units length=bohr."
            )
        within = f"{middle:.2f} times the sum of the covalent radii" if np.isfinite(middle) else "6 Å"
        return _Doubt(f"atoms are far apart: half of them have no neighbor within {within}, {taken}")
    return None


def _shortest(frames: Sequence[Frame]) -> str:
    """The smallest distance between two elements of the first frame, as text."""
    frame = frames[0]
    (i, j), distances, _ = edges(frame, 6.0)
    if not len(distances):
        return "e.g. no pair within 6 Å"
    k = int(distances.argmin())
    return f"e.g. {chemical_symbols[frame.numbers[i[k]]]}–{chemical_symbols[frame.numbers[j[k]]]} {distances[k]:.2f} Å"


def _together(frames: Sequence[Frame], key: str) -> _Doubt | None:
    """What says that forces are not those of the atoms at these positions."""
    said = f"the forces in {key!r} do not belong to the positions beside them: "
    repeated, labeled = repeated_forces(frames), sum(frame.forces is not None for frame in frames)
    if repeated and 2 * repeated >= labeled:
        return _Doubt(
            f"{said}in {repeated} of {labeled} frames looked at, they are those of another frame to the last digit. "
            "ASE leaves that in extended XYZ where frames share a calculator: give each frame its own, or a "
            "SinglePointCalculator with its results, before they are written.",
            explained=True,
        )
    found = push_and_turn(frames)
    if len(found) >= 3:
        push, turn = np.median(found, axis=0)
        if turn > TURNING and push < turn / 10:
            return _Doubt(
                f"{said}they would turn the molecules as a whole, with {turn:.2g} of the largest torque there could "
                "be, where it must be 0. They are in another order of the atoms, or in another orientation, or the "
                "frames are periodic and the file has no cell."
            )
    x, y = bonds_to_hydrogen(frames, SHARED)
    if len(x) > 100 and x.std() > VIBRATING and y.std() > STIFFNESS[0] * x.std():
        correlation = float(np.corrcoef(x, y)[0, 1])
        if FOLLOWING[0] < correlation < FOLLOWING[1]:
            return _Doubt(
                f"{said}the force on hydrogen does not follow the length of its bond (a correlation of "
                f"{correlation:.2f}, where C–H, N–H and O–H have 0.9). They are in another order of the atoms, or of "
                "other frames."
            )
    return None


def _forces(frames: Sequence[Frame], key: str, taken: Units, least: float) -> _Doubt | None:
    norms = [np.linalg.norm(frame.forces, axis=1) for frame in frames if frame.forces is not None]
    if not norms:
        return None
    typical = float(np.median(np.concatenate(norms)))
    line, enough = stiffness(frames), max(0.6, least)
    if line.n_points > 30 and line.correlation > enough and not STIFFNESS[0] < line.slope < STIFFNESS[1]:
        units = {"kcal/mol": KCAL_PER_MOL, "kJ/mol": KJ_PER_MOL, "energy=Hartree,force=Hartree/bohr": HARTREE / BOHR}
        units |= {"energy=Rydberg,force=Rydberg/bohr": RYDBERG / BOHR, "energy=Hartree,force=Hartree/Å": HARTREE}
        units |= {"force=meV/Å": 1e-3, "force=eV/bohr": 1 / BOHR, "ase": 1.0}
        slope = line.slope / taken.to_ev_per_angstrom  # in the numbers of the file
        likely = _or(_near({name: slope * value for name, value in units.items()}, STIFF))
        hint = f" Likely: --units {likely}, energies included." if likely else " No usual unit explains it."
        return _Doubt(
            f"the forces in {key!r} are not in {taken.force}: bonds to hydrogen would have a stiffness of "
            f"{line.slope:.3g} eV/Å², and C–H, N–H and O–H have 25 to 60.{hint}",
            bool(likely),
            line.slope / STIFF,
        )
    if line.n_points > 30 and line.correlation < -enough:
        return _Doubt(
            f"the forces in {key!r} have the wrong sign: they push bonds to hydrogen apart. If they are gradients of "
            f"the energy: --units force={_turned(taken.force)}.",
            True,
            -1.0,
        )
    if typical > LARGEST_TYPICAL_FORCE:
        hint = " They are likely in meV/Å: --units force=meV/Å." if typical < 1e4 and taken.are_ours else ""
        return _Doubt(f"the forces in {key!r} are far too large: half of them above {typical:.3g} eV/Å.{hint}")
    return None


def _energies(frames: Sequence[Frame], names: Mapping[str, str], taken: Units, whole: bool) -> _Doubt | None:
    """By the work of the forces where there are similar frames; else, of `whole` files, by a pair energy."""
    line, sizes = work(frames, with_cell=False)
    which, right, off = "similar frames", (0.6, 1.6), (1.2, 1.1)
    if whole and not _tells(line):
        line = pair_energies(frames)
        if not _tells(line, *PAIRS_TELL):
            return None
        sizes = np.array([len(frame) for frame in frames])
        which, right, off = "frames of one composition", PAIR_SLOPES, (2.0, 2.0)
    if not _tells(line) or right[0] < line.slope < right[1]:
        return None
    energy, forces = names.get("energy"), names.get("forces")
    said = f"energies ({energy}) and forces ({forces}) contradict each other: between {which}"
    if line.correlation < 0:
        return _Doubt(
            f"{said} the energy rises where the forces pull. If they are gradients of the energy: --units "
            f"force={_turned(taken.force)}.",
            True,
            -1.0,
        )
    factor = {
        "energy=Hartree": 1 / HARTREE,
        "energy=Rydberg": 1 / RYDBERG,
        "energy=kcal/mol": 1 / KCAL_PER_MOL,
        "energy=kJ/mol": 1 / KJ_PER_MOL,
        "energy=meV": 1e3,
        "energy=eV/atom": float(np.mean(1 / sizes)),
        "force=Hartree/bohr": HARTREE / BOHR,
        "force=Rydberg/bohr": RYDBERG / BOHR,
        "force=kcal/mol/Å": KCAL_PER_MOL,
        "force=meV/Å": 1e-3,
        "energy=Hartree,force=Hartree/bohr": 1 / BOHR,
        "energy=Rydberg,force=Rydberg/bohr": 1 / BOHR,
        "length=bohr": BOHR,
    }
    likely = _or(_near(factor, line.slope, *off)) if taken.are_ours else None
    hint = f" Likely: --units {likely}." if likely else " Name their units with --units."
    text = f"{said} the energy differs by {line.slope:.3g} times what the forces say.{hint}"
    return _Doubt(text, bool(likely), line.slope)


def _tells(line: Line, n_points: int = 10, correlation: float = 0.9) -> bool:
    """Whether energies and forces have something to do with each other."""
    return line.n_points >= n_points and abs(line.correlation) >= correlation


def _levels(frames: Sequence[Frame], names: Mapping[str, str]) -> _Doubt | None:
    """What says that energies of one composition are of several methods or units: there are two levels of them, with
    some frames on each, and nothing between."""
    known: dict[bytes, list[Frame]] = defaultdict(list)
    for frame in frames:
        if frame.energy is not None:
            known[np.sort(frame.numbers).tobytes()].append(frame)
    for group in known.values():
        group.sort(key=_energy_per_atom)
        energies = np.array([_energy_per_atom(frame) for frame in group])
        gaps = np.diff(energies)[LEVEL - 1 : 1 - LEVEL]
        if not len(gaps):
            continue
        k = LEVEL - 1 + int(gaps.argmax())
        # A steep wall has gaps, too, and the energies above are as far apart.
        if gaps.max() > max(MOST_BINDING, energies[k] - energies[0], energies[-1] - energies[k + 1]):
            low, high = group[k], group[k + 1]
            return _Doubt(
                f"energies ({names.get('energy')}) of {Symbols(low.numbers).get_chemical_formula()} lie on two levels, "
                f"{gaps.max():.3g} eV per atom apart, e.g. those of {low.place} and {high.place}: they are in several "
                "units, or of several programs or methods. Take those of one."
            )
    return None


def _energy_per_atom(frame: Frame) -> float:
    return (frame.energy or 0.0) / len(frame)


def _turned(unit: str) -> str:
    """A unit with the other sign."""
    return unit.removeprefix("-") if unit.startswith("-") else f"-{unit}"


def _stress(frames: Sequence[Frame], key: str, taken: Units, least: float) -> _Doubt | None:
    """By the work of the stress where frames with one cell and another tell, else by the shear."""
    line, _ = work(frames, with_cell=True)
    ratio = 1 / line.slope if line.n_points >= 10 and abs(line.correlation) > 0.9 and line.slope else math.nan
    against = "the work of deforming the cell"
    if not math.isfinite(ratio):
        line = shear(frames)
        # A pair energy that describes little still has the right size: a factor of a hundred is none of its errors.
        # So it has the right sign, where there are forces worth the name.
        sure = line.n_points > 50 and (
            abs(line.slope) > 20 or (line.slope < -0.2 and np.median(strength(frames)) > STRONG)
        )
        enough = max(least, WEAK_AGREEMENT if sure else AGREEMENT)
        if line.n_points < 20 or abs(line.correlation) < enough:
            return None
        ratio, against = line.slope, "the virial that the forces imply"
    if 0.2 < ratio < 5:
        return None
    atomic = {"Hartree/bohr³": HARTREE / BOHR**3} if taken.energy == "Hartree" else {}
    what, units, now = "stress", {**PRESSURES, "eV/Å³": 1.0, **atomic}, taken.to_ev_per_cubic_angstrom
    if "virial" in key.lower():
        what, units, now = "virial", ENERGIES, taken.virial_to_ev
    right = now / ratio  # what the numbers of the file are to be multiplied by
    signed = {f"{sign}{name}": (-size if sign else size) for name, size in units.items() for sign in ("", "-")}
    likely = next(iter(_near(signed, right, alike=1.0)), None)
    hint = f" It is likely in {likely.lstrip('-')}" if likely else ""
    if likely and likely.startswith("-"):
        hint += f", with the sign of {'the stress' if what == 'virial' else 'a pressure'}"
    remedy = f"{hint}: --units {what}={likely}." if likely else " Name its unit with --units."
    if not likely and len(frames) < MANY:
        return None
    return _Doubt(
        f"stress ({key}) and forces contradict each other: the stress is {ratio:.3g} times what {against} says "
        f"(eV/Å³, tension positive).{remedy} Without the stress: --stress-key ignore.",
        likely is not None,
        ratio,
    )


def _near(candidates: Mapping[str, float], value: float, most: float = 1.5, alike: float = 1.1) -> list[str]:
    """The candidates nearest to a value of the same sign, within a factor of `most`: the nearest one, and those that
    cannot be told from it, being within a factor of `alike` of it."""
    off = {name: abs(math.log(abs(size / value))) for name, size in candidates.items() if size * value > 0}
    best = min(off, key=lambda name: off[name], default=None)
    if best is None or off[best] >= math.log(most):
        return []
    same = [n for n in off if n != best and abs(math.log(candidates[n] / candidates[best])) < math.log(alike)]
    return [best, *same]


def _or(names: Sequence[str]) -> str:
    """Units for a hint: the likeliest, and others that would look the same."""
    return " or --units ".join(names)
