"""Outputs of VASP with the labels of given frames, all of copper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

KBAR = 0.1 / 160.21766208  # eV/Å³
NELM = 5  # cycles of an OUTCAR
HEAD = (
    " vasp.6.4.2 20Jul23\n POTCAR:    PAW_PBE Cu 22Jun2005\n POTCAR:    PAW_PBE Cu 22Jun2005\n"
    "   ions per type =               4\n   k-points           NKPTS =      1   k-points in BZ     NKDIM =   1   "
    "number of bands    NBANDS=     4\n k-points in reciprocal lattice and weights: G\n   0.0 0.0 0.0    1.000\n"
    f"   ISPIN  =      1    spin polarized calculation?\n   NELM   =    {NELM};   NELMIN=  2; NELMDL= -5\n"
)


def rows(array: np.ndarray, before: str = "", behind: str = "") -> str:
    """Each row of numbers in a line."""
    return "".join(f"{before}{' '.join(f'{x:.8f}' for x in row)}{behind}\n" for row in array)


def outcar(frames: list[Atoms], cycles: Sequence[int] | None = None, entropy: float = 0.0, done: bool = True) -> str:
    """An OUTCAR of these frames.

    Args:
        cycles: electronic cycles of each step, one by default; five of them failed to converge.
        entropy: eV, by which the free energy is below the energy.
        done: whether the calculation came to its end.
    """
    text = HEAD
    for n, (atoms, count) in enumerate(zip(frames, cycles or [1] * len(frames), strict=True), 1):
        for cycle in range(1, count + 1):
            text += f"------- Iteration {n:4d}({cycle:4d})  -------\n"
        said = "because EDIFF is reached" if count < NELM else "EDIFF was not reached (unconverged)"
        text += f"------- aborting loop {said} -------\n"
        xx, yy, zz, yz, xz, xy = -atoms.get_stress() / KBAR
        text += f"  in kB {xx:.5f} {yy:.5f} {zz:.5f} {xy:.5f} {yz:.5f} {xz:.5f}\n"
        text += "      direct lattice vectors                 reciprocal lattice vectors\n"
        text += rows(np.hstack([atoms.cell.array, np.zeros((3, 3))]))
        text += f" POSITION                                       TOTAL-FORCE (eV/Angst)\n {'-' * 83}\n"
        text += rows(np.hstack([atoms.positions, atoms.get_forces()]))
        energy = atoms.get_potential_energy()
        text += (
            "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  ---------------------------------------------------\n"
            f"  free  energy   TOTEN  =     {energy:.8f} eV\n\n"
            f"  energy  without entropy=    {energy + entropy:.8f}  energy(sigma->0) =    {energy + entropy / 2:.8f}\n"
        )
    return text + "  General timing and accounting informations for this job:\n" * done


def vasprun(
    frames: list[Atoms], changes: Sequence[float] | None = None, entropy: float = 0.0, done: bool = True
) -> str:
    """A vasprun.xml of these frames, of three cycles a step, which are as many as are allowed.

    Args:
        changes: by how much the last cycle of each step changed the energy, eV; nothing by default.
        entropy: eV, by which the free energy is below the energy.
        done: whether the calculation came to its end.
    """

    def varray(name: str, array: np.ndarray) -> str:
        return f'<varray name="{name}">\n{rows(array, "<v> ", " </v>")}</varray>\n'

    def structure(atoms: Atoms, name: str = "") -> str:
        crystal = f"<crystal>\n{varray('basis', atoms.cell.array)}</crystal>\n"
        places = varray("positions", atoms.get_scaled_positions(wrap=False))
        return f"<structure{name}>\n{crystal}{places}</structure>\n"

    def energies(value: float) -> str:
        both = f'<i name="e_fr_energy"> {value:.9f} </i>\n<i name="e_0_energy"> {value + entropy / 2:.9f} </i>\n'
        return f"<energy>\n{both}</energy>\n"

    kpoints = varray("kpointlist", np.zeros((1, 3))) + '<varray name="weights">\n<v> 1 </v>\n</varray>\n'
    settings = '<i type="int" name="NELM">3</i>\n<i name="EDIFF"> 0.00001</i>\n'
    kinds = "<rc><c>Cu</c><c>1</c></rc>\n" * len(frames[0])
    text = (
        f'<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n<kpoints>\n{kpoints}</kpoints>\n'
        f"<parameters>\n{settings}</parameters>\n"
        f'<atominfo>\n<array name="atoms">\n<set>\n{kinds}</set>\n</array>\n</atominfo>\n'
        + structure(frames[0], ' name="initialpos"')
    )
    for atoms, change in zip(frames, changes or [0.0] * len(frames), strict=True):
        energy = atoms.get_potential_energy()
        cycles = [energies(energy + change * left) for left in reversed(range(3))]
        text += "<calculation>\n" + "".join(f"<scstep>\n{cycle}</scstep>\n" for cycle in cycles)
        text += structure(atoms) + varray("forces", atoms.get_forces())
        text += varray("stress", -atoms.get_stress(voigt=False) / KBAR)
        text += energies(energy) + "</calculation>\n"
    return text + "</modeling>\n" * done
