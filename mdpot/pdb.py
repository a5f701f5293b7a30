"""What ASE's reader of PDB files passes over: one CRYST1 for all models, and formal charges."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ase import Atoms

from mdpot.errors import MdpotError

_ATOM = re.compile(r"^(?:ATOM|HETATM).*$", re.M)


def complete_pdb(path: Path, structures: Sequence[Atoms], text: str) -> list[Atoms]:
    """The structures of a PDB file with all that it says of them.

    A cell holds until the next, for CRYST1 stands once before all models. Formal charges add up to `info["charge"]`.
    What ASE makes of END after the last ENDMDL, a structure without atoms, is left out.

    Args:
        path: for messages.
        structures: as ASE reads them, one for each line that begins with END, at least one.
        text: of the file.

    Raises:
        MdpotError: atoms after the last END, which ASE passes over.
    """
    *parts, rest = re.split(r"^END.*$", text, flags=re.M)
    if parts and _ATOM.search(rest):
        raise MdpotError(f"{path}: truncated: nothing ends the last of its {len(parts) + 1} models. Copy it again.")
    found, cell = [], None
    for atoms, part in zip(structures, parts or [rest], strict=False):
        if atoms.pbc.any():
            cell = atoms.cell
        elif cell is not None:
            atoms.set_cell(cell)
            atoms.pbc = True
        charge = sum(map(_formal_charge, _ATOM.findall(part)))
        if charge:
            atoms.info["charge"] = charge
        if len(atoms):
            found.append(atoms)
    return found


def _formal_charge(line: str) -> int:
    """Of an atom, in columns 79 and 80: "1-" or, as some programs write it, "-1"; 0 where there is none."""
    match = re.fullmatch(r"(\d)([+-])|([+-])(\d)", line[78:80])
    if match is None:
        return 0
    digit, sign = (match[1], match[2]) if match[1] else (match[4], match[3])
    return int(sign + digit)
