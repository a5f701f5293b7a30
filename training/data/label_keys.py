"""What the keys of labels say: which quantity, in which word, and of which family, as `REF_energy` and `forces_xtb`."""

from __future__ import annotations

import re

from mdpot.training.data.units import ENERGIES, PRESSURES, SPELLINGS

#: The words for a quantity in a key, the first ones best.
#: Dynamics write a total energy, the kinetic one in it, beside the potential energy.
ENERGY_WORDS = ("energy", "free_energy", "potential_energy", "total_energy", "tot_energy")
FORCES_WORDS = ("forces", "force", "atomic_forces", "atomic_force")
STRESS_WORDS = ("stress", "stresses", "cauchy_stress", "virial", "virials")
KINDS = {"energy": ENERGY_WORDS, "forces": FORCES_WORDS, "stress": STRESS_WORDS}
_WORDS = {word: kind for kind, words in KINDS.items() for word in words}
# Longest first: "free_energy" is not the energy of the family "free".
_KEY = re.compile(
    r"^(?:(?P<before>.+?)[_\-.: ])??(?P<word>"
    + "|".join(sorted(_WORDS, key=len, reverse=True))
    + r")(?:[_\-.: ](?P<after>.+))?$",
    re.I,
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
#: What a family name may not hold: numbers that belong to an energy or a force without being one.
_NOT_LABELS = re.compile(
    r"(?:^|_)(weights?|masks?|std|stdev|var|variance|error|err|uncertainty|norm|rms|rmse|mae|max|units?|key|kinetic|"
    r"formation|cohesive|per|binding|atomization|atomisation|hull|zero|point|normal|mode|correction|shift|dispersion|"
    r"interaction|relative|barrier|cutoff|conv|convergence|tolerance|tol|name|type|id|atom|peratom)(?:_|$)",
    re.I,
)

#: What units in keys begin with, and words in them that are none themselves.
_BEGIN_UNITS = {*ENERGIES, *PRESSURES}
_IN_UNITS = ("mol", "per", "3")


def family_of(key: str) -> tuple[str, str, str] | None:
    """Kind, word and family of a key: ("energy", "energy", "dft") for "DFT_energy"; None where it is no label's.

    Of units at its end, energies other than eV tell families apart: `energy_Ha` goes with `forces_Ha_bohr`, and not
    with `forces`, whose unit nobody knows.
    """
    bare, unit = apart(key)
    match = _KEY.match(_CAMEL.sub("_", bare))
    if match is None:
        return None
    word = match["word"].lower()
    family = "_".join(part for part in (match["before"], match["after"]) if part).lower()
    if _NOT_LABELS.search(re.sub(r"[\-.: ]", "_", family)) or is_per_atom(key):
        return None
    other = unit.lower() if unit in ENERGIES and unit != "eV" else ""
    return _WORDS[word], word, "_".join(filter(None, (family, other)))


def apart(key: str) -> tuple[str, str]:
    """A key without the unit that ends it, as in `energy_eV`, `forces_kcal_mol_A` and `stress (GPa)`, and the name of
    the energy or pressure with which that begins: `energy_A` may be that of a family of this name."""
    for begin in re.finditer(r"[\W_]+", key):
        first, *rest = [word for word in re.split(r"[\W_]+", key[begin.end() :].lower()) if word] or [""]
        unit = SPELLINGS.get(first, "")
        if unit in _BEGIN_UNITS and all(word.rstrip("3³") in SPELLINGS or word in _IN_UNITS for word in rest):
            return key[: begin.start()], unit
    return key, ""


#: Names that other programs have for energies and forces, or for the gradients of energies.
_OTHER_NAMES = re.compile(
    r"energ|force|^for$|stress|virial|gradient|(?:^|_)grad(?:_|$)|toten|(?:^|_)e_?tot(?:_|$)|^[eu](?:_?0|_wo_entrp)?$|^f[xyz]?$",
    re.I,
)


def looks_like_label(key: str) -> bool:
    """Whether a key speaks of an energy, a force or a stress, be it one or not; units of one do not."""
    return _OTHER_NAMES.search(key) is not None and not re.search(r"units?$|^units?_", key, re.I)


#: What says that an energy is divided by the number of atoms: per atom, or a unit over it.
_PER_ATOM = re.compile(
    r"(?:^|_|(?<=energy))(?:per_?at(?:oms?)?|(?:m?eV|m?Ha|Hartree|Ry|kcal|kJ|mol)_atoms?)(?=_|$)", re.I
)


def is_per_atom(key: str) -> bool:
    """Whether the key of an energy says that it is divided by the number of atoms."""
    return _whole(key) != key


def is_energy_per_atom(key: str) -> bool:
    """Whether a key is that of the energy of a frame, as `family_of` knows it, divided by the number of atoms."""
    known = family_of(_whole(key))
    return is_per_atom(key) and known is not None and known[0] == "energy"


def _whole(key: str) -> str:
    """A key without what says that its energy is divided by the number of atoms; as it is where nothing does."""
    plain = re.sub(r"\W", "_", key.replace("/", "_per_"))
    return next((bare for text in (plain, _CAMEL.sub("_", plain)) if (bare := _PER_ATOM.sub("", text)) != text), key)


#: Those of energies of motion, which dynamics write, and of settings of calculations; camel case apart.
_KINETIC = re.compile(r"(?:^|_)e?_?kin(?:etic)?(?:_|$)", re.I)
_SETTING = re.compile(r"cut_?off|conv|tol|thresh|max|min", re.I)


#: Those of parts of an electronic energy, beside which a kinetic energy is the electrons'.
_ELECTRONIC = re.compile(r"hartree|exchange|(?:^|_)xc(?:_|$)|ewald|coulomb|correlation", re.I)


def is_electronic(key: str) -> bool:
    """Whether a key speaks of a part of the energy of the electrons."""
    return _ELECTRONIC.search(_CAMEL.sub("_", key)) is not None


def is_kinetic(key: str) -> bool:
    """Whether a key speaks of a kinetic energy."""
    return _KINETIC.search(_CAMEL.sub("_", key)) is not None and not _SETTING.search(key)
