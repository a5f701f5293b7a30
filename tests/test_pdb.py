"""PDB files: models, cells, formal charges, and what is cut off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mdpot.electrons import stated_electrons
from mdpot.errors import MdpotError
from mdpot.structures import read_structures

PDB = "HETATM{:5}  {:3} HOH A   1    {:8.3f}{:8.3f}{:8.3f}  1.00  0.00          {:>2}{}"


def model(charge: str = "", shift: float = 0.0) -> str:
    water = (("O", (shift, 0, 0), charge), ("H1", (shift + 0.96, 0, 0), ""), ("H2", (shift - 0.24, 0.93, 0), ""))
    return "\n".join(PDB.format(k + 1, name, *at, name[0], said) for k, (name, at, said) in enumerate(water))


def cryst(*lengths: float) -> str:
    return "CRYST1{:9.3f}{:9.3f}{:9.3f}  90.00  90.00  90.00 P 1           1".format(*lengths)


def test_models_of_a_pdb_file(tmp_path: Path) -> None:
    """One CRYST1 is for all of them, as OpenMM writes it; END after the last is no other."""
    path = tmp_path / "models.pdb"
    path.write_text(
        "\n".join([cryst(9, 10, 11), "MODEL 1", model(), "ENDMDL", "MODEL 2", model("", 2), "ENDMDL", "END"])
    )
    first, second = read_structures(path)
    for atoms in (first, second):
        assert atoms.get_chemical_formula() == "H2O"
        assert atoms.pbc.all()
        np.testing.assert_allclose(atoms.cell.lengths(), [9, 10, 11])
    np.testing.assert_allclose(second.positions - first.positions, [[2, 0, 0]] * 3, atol=1e-9)


def test_a_pdb_file_with_a_cell_in_each_frame(tmp_path: Path) -> None:
    frames = [cryst(9, 9, 9), model(), "END", cryst(1, 1, 1), model(), "END", cryst(8, 8, 8), model(), "END"]
    (tmp_path / "frames.pdb").write_text("\n".join(frames))
    assert [atoms.cell.lengths()[0] for atoms in read_structures(tmp_path / "frames.pdb")] == [9, 0, 8]
    (tmp_path / "frame.pdb").write_text(model())
    (atoms,) = read_structures(tmp_path / "frame.pdb")
    assert len(atoms) == 3
    assert not atoms.pbc.any()


@pytest.mark.parametrize(("said", "charge"), [("2-", -2), ("+1", 1), ("1+", 1), ("", None), ("  ", None), ("0+", None)])
def test_formal_charges_of_a_pdb_file(tmp_path: Path, said: str, charge: int | None) -> None:
    (tmp_path / "ion.pdb").write_text("\n".join([model(), "ENDMDL", model(said), "ENDMDL", "END"]))
    first, ion = read_structures(tmp_path / "ion.pdb")
    assert "charge" not in first.info
    assert stated_electrons(ion).charge == charge


@pytest.mark.parametrize("n_lines", [1, 3])
def test_a_pdb_file_that_is_cut_off(tmp_path: Path, n_lines: int) -> None:
    """ASE passes over atoms after the last ENDMDL."""
    last = "\n".join(model().split("\n")[:n_lines])
    (tmp_path / "models.pdb").write_text("\n".join(["MODEL 1", model(), "ENDMDL", "MODEL 2", last]))
    with pytest.raises(MdpotError, match=r"models\.pdb: truncated: nothing ends the last of its 2 models"):
        read_structures(tmp_path / "models.pdb")
