"""Makes the frames that `molecules-xtb-small` is trained on: random organic molecules and clusters, by GFN2-xTB.

    pip install -e ".[xtb]" rdkit
    python benchmarks/molecules.py --out molecules.extxyz

Molecules are cores with random substituents, clusters are small molecules in contact. Of each GFN2-xTB makes a short,
hot trajectory (`mdpot.training.forcefield_dynamics`). Frames have the number of their molecule as `group`, so that
molecules are either trained on or tested on.
"""

from __future__ import annotations

import argparse
import re
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from rdkit import Chem, RDLogger
from rdkit.Chem import AllChem

from mdpot.errors import MdpotError
from mdpot.training.config import load_recipe
from mdpot.training.data.frames import Frame
from mdpot.training.forcefield_dynamics import sample_dynamics
from mdpot.training.relabel import describes

CORES = """
c1c(*)c(*)ccc1 c1c(*)cc(*)cc1 c1c(*)ccc(*)c1 c1(*)c(*)c(*)ccc1 c1ccc2cc(*)ccc2c1 c1ccc(cc1)c1ccc(*)cc1
n1c(*)c(*)ccc1 n1cc(*)cc(*)c1 n1c(*)nc(*)cc1 n1c(*)cnc(*)c1 n1nc(*)ccc1 n1c(*)nc(*)nc1* o1c(*)ccc1* s1c(*)c(*)cc1
s1c(*)ccc1* [nH]1c(*)c(*)cc1 n1(*)cccc1* n1(*)cnc(*)c1 n1(*)nc(*)cc1 o1cnc(*)c1* s1cnc(*)c1* o1nc(*)cc1* n1(*)nncc1*
n1(*)ncnc1* n1(*)nnnc1* c1c(*)cc2[nH]cc(*)c2c1 c1cc2nc(*)n(*)c2cc1 c1c(*)cc2nc(*)ccc2c1 c1nc(*)c2ncn(*)c2n1
O=c1[nH]c(=O)n(*)cc1* Nc1nc(=O)n(*)cc1* O=C1C=CC(=O)C(*)=C1* c1ccc(cc1*)N=Nc1ccc(*)cc1 c1ccc(cc1*)C=Cc1ccc(*)cc1
C1C(*)C1* C1CC(*)C1* C1CCC(*)C1* C1CC(*)CC(*)C1 C1CC=C(*)CC1* N1(*)CCC(*)CC1 N1(*)CCOCC1* N1(*)CCN(*)CC1 C1CC(*)OC1*
O1CC(*)OCC1* O1CC1* N1(*)CC1* S1CC1* O=C1N(*)CC1* O=C1N(*)CCC1* O=C1OCCC1* O=C1OCC(*)O1 C1CC2CC1C(*)C2* O1CCC(*)C1*
C(*)(*)=C(*)* C(*)(*)=C C(*)C#CC(*) C(*)=C=C* C(*)=CC=C* C(*)(*)=N* C(*)=NO C(*)=NN* C(*)#N C(*)C(*)(*)* C(*)(*)(*)*
*CC* *CCC* *CCCC* *C(*)CC(*)* *CCCCCC* *CC(*)(C)CC* *OCCO* *OCCOCCO* *CSC* *CSSC* *N(*)C* *C(=O)* *C(=O)C(=O)* *C(=O)O*
*C(=O)N(*)* *NC(=O)N* *OC(=O)N* *OC(=O)O* *C(=O)OC(=O)* *C(=O)S* *C(=S)N* *S(=O)* *S(=O)(=O)* *S(=O)(=O)N* *OS(=O)(=O)O*
*P(*)* *P(=O)(*)* *OP(=O)(O*)O* *[Si](*)(*)* *[Si](C)(C)O[Si](C)(C)* *B(*)* *B(O)O *B1OCCO1 *ON(*)* *NN* *N=N* *OO*
CC(=O)NC(*)C(=O)NC CC(=O)NC(*)C(=O)NC CC(=O)N1CCCC1C(=O)NC NC(*)C(=O)O NC(*)C(=O)OC NC(*)C(=O)NC(*)C(=O)O
OC1C(O)C(*)OC(*)C1O OCC1OC(*)C(*)C1O *OCC(O)CO* *C(=O)OCC(*)CO* *c1ccccc1C(=O)O* *C1=CC(=O)C=CC1=O *n1ccnc1C
""".split()  # noqa: SIM905
"""SMILES whose stars are replaced by substituents."""

SUBSTITUENTS = """
[H] [H] [H] [H] [H] [H] [H] C C C C CC CCC C(C)C C(C)(C)C CCCC O O OC OCC OC(C)C CO CCO COC N N NC N(C)C CN CN(C)C F F
C(F)(F)F OC(F)(F)F C(F)F Cl Cl CCl C(Cl)Cl Br CBr I C#N CC#N [N+](=O)[O-] N=[N+]=[N-] N=C=O N=C=S C=O C(C)=O C(=O)O
C(=O)O C(=O)OC CC(=O)O C(=O)N C(=O)NC C(=O)N(C)C NC(C)=O NC=O OC=O OC(C)=O NC(=O)N NC(=N)N C(=N)N S SC CS CCSC S(C)=O
S(C)(=O)=O S(=O)(=O)N S(F)(F)(F)(F)F C=C C#C CC=C OO ON P(C)C P(=O)(OC)OC OP(=O)(O)O [Si](C)(C)C [SiH3] B(O)O
c1ccccc1 Cc1ccccc1 c1ccc(O)cc1 c1ccncc1 c1ccco1 c1cccs1 Cc1c[nH]cn1 C1CC1 C1CCOC1 N1CCOCC1 C1CCCCC1 Cc1c[nH]c2ccccc12
""".split()  # noqa: SIM905

SMALL = """
O O O O O CO CO CCO CC(C)O CC#N CC#N CC(C)=O CS(C)=O CN(C)C=O NC=O CC(=O)O OC=O N N CN CNC S CS C=O CC=O CO C C CC C=C
C#C CCC CCCCCC c1ccccc1 c1ccccc1 Cc1ccccc1 c1ccncc1 C1CCOC1 COCCOC O=C1OCCO1 CC1COC(=O)O1 COC(=O)OC CCOC(=O)OC ClCCl
ClC(Cl)Cl ClC(Cl)(Cl)Cl FC(F)(F)F FC(F)F O=C=O O=C=O [C-]#[O+] C#N N#N O=S=O F Cl Br I [H][H] NC(N)=O c1c[nH]cn1
Oc1ccccc1 Nc1ccccc1 NCC(=O)O CC(=O)NC CC(=O)OC COC CSC NO NN OO C1CCCCC1 CCN(CC)CC c1ccsc1 c1ccoc1 CI CBr CF CCl
C[Si](C)(C)C O[Si](O)(O)O COP(=O)(OC)OC OP(=O)(O)O OS(=O)(=O)O O[N+](=O)[O-] C[N+](=O)[O-] OB(O)O FB(F)F S=C=S
[Li+].F[P-](F)(F)(F)(F)F [Li+].F[B-](F)(F)F [Li+].[Cl-] [Na+].[Cl-] [K+].[Br-] [Na+].CC(=O)[O-] [Li+].[OH-]
[NH4+].[Cl-] C[N+](C)(C)C.[Br-] [Na+].F[P-](F)(F)(F)(F)F [K+].O=[N+]([O-])[O-] [Li+].[O-]C(=O)OC [NH3+]CC(=O)[O-]
""".split()  # noqa: SIM905
"""What clusters are made of; the ions of a salt come together."""

FIRST = re.compile(r"^\*(\[[^]]+\]\d*|[A-Za-z]\d*)")
"""What stands before the first atom is put behind it: there it is a branch."""

FRAMES = 4
MOST_ATOMS = 36
SHARE_OF_CLUSTERS = 0.35
CONTACT = (1.7, 3.0)
"""Å, the range from which the shortest distance between two molecules of a cluster is drawn."""
TRIES = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--molecules", type=int, default=5000, help=f"each gives {FRAMES} frames, or fewer where it falls apart")
    add("--jobs", type=int, default=1, help="processes")
    add("--work", type=Path, default=Path("runs/molecules"), help="keeps what is done")
    add("--out", type=Path, required=True, help="extended XYZ")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(args.jobs) as pool:
        made = pool.map(partial(trajectory, work=args.work), range(args.molecules))
        frames = [atoms for trajectory in made for atoms in trajectory]
    np.random.default_rng(0).shuffle(frames)  # type: ignore[arg-type]
    ase.io.write(args.out, frames)


def trajectory(number: int, work: Path) -> list[Atoms]:
    """The frames of a molecule, by its number; none where it falls apart at once."""
    rng = np.random.default_rng(number)
    name, atoms = cluster(rng) if rng.random() < SHARE_OF_CLUSTERS else molecule(rng)
    if not len(atoms) or sum(atoms.numbers) % 2:
        return []
    start = Frame(atoms.numbers.astype(np.int64), atoms.positions, np.zeros((3, 3)), np.zeros(3, bool))
    if not describes("gfn2-xtb", [start]):
        return []
    stage = load_recipe("custom", "xtb", ["pretrain.temperature=[200, 1000]"]).pretrain
    try:
        found = sample_dynamics([start], FRAMES, stage, (number,), work / f"{number}.npz")
    except MdpotError:
        return []
    return [labeled(frame, f"{number:05}", name) for frame in found[:FRAMES]]


def labeled(frame: Frame, group: str, name: str) -> Atoms:
    atoms = Atoms(frame.numbers, frame.positions, info={"group": group, "smiles": name})
    atoms.calc = SinglePointCalculator(atoms, energy=frame.energy, forces=frame.forces)
    return atoms


def molecule(rng: np.random.Generator) -> tuple[str, Atoms]:
    """A core with random substituents: its SMILES and its structure."""
    for _ in range(1000):
        smiles = FIRST.sub(r"\1*", str(rng.choice(CORES)).replace("(*)", "*"))
        while "*" in smiles:
            smiles = smiles.replace("*", f"({rng.choice(SUBSTITUENTS)})", 1)
        atoms = structure(smiles, rng)
        if atoms is not None and len(atoms) <= MOST_ATOMS:
            return smiles, atoms
    raise SystemExit("no molecule was found")


def cluster(rng: np.random.Generator) -> tuple[str, Atoms]:
    """Two to six small molecules in contact."""
    names, atoms = [], Atoms()
    for _ in range(rng.integers(2, 7)):
        name = str(rng.choice(SMALL))
        parts = [structure(part, rng) for part in name.split(".")]
        found = [part for part in parts if part is not None]
        if len(found) == len(parts) and len(atoms) + sum(map(len, found)) <= MOST_ATOMS:
            names.append(name)
            for part in found:
                atoms = beside(atoms, part, rng)
    return ".".join(names), atoms


def beside(atoms: Atoms, new: Atoms, rng: np.random.Generator) -> Atoms:
    """Both, the second one turned at random and brought near from a random direction."""
    turned = new.positions @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    if not len(atoms):
        return Atoms(new.numbers, turned)
    direction, contact = rng.normal(size=3), rng.uniform(*CONTACT)
    direction /= np.linalg.norm(direction)
    turned -= turned.mean(0)
    for distance in np.arange(40.0, 0.0, -0.1):
        moved = turned + atoms.positions.mean(0) + distance * direction
        if np.linalg.norm(moved[:, None] - atoms.positions, axis=-1).min() < contact:
            break
    return atoms + Atoms(new.numbers, moved + 0.1 * direction)


def structure(smiles: str, rng: np.random.Generator) -> Atoms | None:
    """A conformer; None where RDKit makes none."""
    read = Chem.MolFromSmiles(smiles)
    if read is None:
        return None
    whole = Chem.AddHs(read)
    parameters = AllChem.ETKDGv3()
    parameters.randomSeed = int(rng.integers(2**31 - 1))
    parameters.maxIterations = TRIES
    if AllChem.EmbedMolecule(whole, parameters):
        return None
    if AllChem.UFFHasAllMoleculeParams(whole):
        AllChem.UFFOptimizeMolecule(whole)
    return Atoms([atom.GetAtomicNum() for atom in whole.GetAtoms()], whole.GetConformer().GetPositions())


RDLogger.DisableLog("rdApp.*")

if __name__ == "__main__":
    main()
