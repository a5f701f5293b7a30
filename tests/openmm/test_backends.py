"""Which backend is taken, and what is said where one is missing or does not fit."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mdpot.errors import MdpotError
from mdpot.openmm import backends, choose_backend, create_force

from .conftest import make_atoms, make_potential, reference, topology_of

PIN = r"pip install 'torch==2\.9\.\*' 'openmm>=8\.5,<8\.6' openmmtorch==1\.5"


@pytest.fixture
def installed(monkeypatch):
    """Pretends that such versions are installed."""

    def pretend(openmm="8.5.2", openmmtorch="1.5", torch_="2.9.1", cuda="12.8", has_python_torch=False):
        def version(name):
            if openmmtorch is None:
                raise backends.PackageNotFoundError(name)
            return openmmtorch

        module = SimpleNamespace(TorchForce=object)
        if has_python_torch:
            module.PythonTorchForce = object
        fake = SimpleNamespace(
            __version__=openmm,
            Platform=SimpleNamespace(getPluginLoadFailures=lambda: ()),
            OpenMMException=Exception,
        )
        modules = {"openmm": fake, "openmmtorch": module}
        monkeypatch.setattr(backends, "version", version)
        monkeypatch.setattr(backends, "import_module", lambda name: modules[name])
        monkeypatch.setattr(torch, "__version__", torch_)
        monkeypatch.setattr(torch.version, "cuda", cuda)

    return pretend


def test_auto_takes_the_fastest_that_works_and_says_which(installed, caplog):
    caplog.set_level(logging.INFO, "mdpot.openmm")
    installed()
    assert choose_backend() == "torchforce"
    assert "backend 'auto' takes 'torchforce'" in caplog.text
    installed(openmmtorch=None)
    assert choose_backend() == "python"
    assert "not torchforce: openmmtorch is not installed" in caplog.text
    installed(openmm="8.6.1")
    assert choose_backend() == "python"
    assert "reading it from XML, kills the process" in caplog.text
    installed(openmm="8.6.1", has_python_torch=True)
    assert choose_backend() == "pythontorch"
    installed(openmm="8.7.0", openmmtorch="1.6", torch_="2.13.0", cuda=None)
    assert choose_backend() == "torchforce"


@pytest.mark.parametrize(
    ("torch_", "cuda", "build"),
    [
        ("2.8.0", "12.6", "CUDA 12.6"),
        ("2.10.0", "12.8", "CUDA 12.8"),
        ("2.9.1", "13.0", "CUDA 13.0"),
        ("2.9.1", None, "CPU"),
    ],
)
def test_mismatched_torch_is_named(installed, torch_, cuda, build):
    installed(torch_=torch_, cuda=cuda)
    with pytest.raises(
        MdpotError, match=rf"needs torch 2\.9\.x, CUDA 12 build.*torch {torch_} \({build} build\) is.*{PIN}"
    ):
        choose_backend("torchforce")


def test_missing_openmmtorch_is_named(installed):
    installed(openmmtorch=None)
    with pytest.raises(
        MdpotError, match=rf"backend 'torchforce': openmmtorch is not installed.*{PIN}.*backend='python'"
    ):
        choose_backend("torchforce")
    installed()
    with pytest.raises(MdpotError, match=r"backend 'pythontorch': openmmtorch 1\.5 has no PythonTorchForce"):
        choose_backend("pythontorch")


def test_old_openmm_is_named(installed):
    installed(openmm="8.4.0")
    with pytest.raises(MdpotError, match=r"OpenMM 8\.5 or later is needed; 8\.4\.0 is installed"):
        choose_backend()


def test_openmm_is_needed_only_when_used(alone):
    program = """
import sys
sys.modules["openmm"] = None
import mdpot.openmm
from mdpot.openmm.plugin import MDPotImplFactory
try:
    mdpot.openmm.choose_backend()
except mdpot.MdpotError as error:
    print(error)
"""
    assert "Install it: pip install 'openmm>=8.5'" in alone(program)


def test_torch_after_openmm(alone):
    """OpenMM can't load openmmtorch's plugins where it is imported before torch; they are loaded later."""
    pytest.importorskip("openmm")
    if reason := backends.obstacle("torchforce"):
        pytest.skip(reason)
    program = """
import warnings
warnings.simplefilter("ignore")
import openmm
from mdpot.heads import build_potential
from mdpot.openmm import create_force
potential = build_potential("egnn", {"width": 8, "layers": 1}, [8], [0.0], 1.0).eval()
system = openmm.System()
system.addParticle(16)
system.addForce(create_force(potential, [8], "torchforce", periodic=False, check=False))
context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("CPU"))
context.setPositions([[0, 0, 0]])
print(context.getState(getEnergy=True).getPotentialEnergy())
"""
    assert "kJ/mol" in alone(program)


class FakePythonTorchForce:
    """Stands in for the class of a later openmmtorch."""

    def __init__(self, computation):
        self.computation = computation
        self.particles, self.periodic = [], False

    def setParticles(self, particles):
        self.particles = particles

    def setUsesPeriodicBoundaryConditions(self, periodic):
        self.periodic = periodic

    def setForceGroup(self, group):
        pass

    def setName(self, name):
        self.name = name


def test_pythontorch_passes_tensors(monkeypatch):
    pytest.importorskip("openmm")
    from mdpot.openmm import forces

    fake = SimpleNamespace(PythonTorchForce=FakePythonTorchForce)
    monkeypatch.setattr(forces, "import_openmmtorch", lambda: fake)
    monkeypatch.setattr(forces, "choose_backend", lambda backend: backend)
    potential, atoms = make_potential().double(), make_atoms("triclinic")
    force: Any = create_force(potential, topology_of(atoms), "pythontorch", atoms=[4, 1, 7])
    assert (force.name, force.periodic, force.particles) == ("mdpot pythontorch", True, [1, 4, 7])
    box = SimpleNamespace(_value=atoms.cell.array / 10)
    state = SimpleNamespace(getPeriodicBoxVectors=lambda asNumpy: box)
    part = atoms[[1, 4, 7]]
    energy, found = force.computation(state, torch.tensor(part.positions / 10))
    expected = reference(potential, part)
    assert float(energy) * 0.0103642696 == pytest.approx(expected[0], rel=1e-8)
    np.testing.assert_allclose(found * 0.00103642696, expected[1], atol=1e-7)


def test_importing_mdpot_does_not_import_openmm(alone):
    assert alone("import sys, mdpot.openmm; print('openmm' in sys.modules)").strip() == "False"
    assert sys.executable
