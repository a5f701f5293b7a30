"""Molecular dynamics of water with ASE: relax, then Langevin dynamics at 300 K.

Run it with `python examples/ase_dynamics.py`; give it more --steps for something to look at.
"""

import argparse

import numpy as np
from ase import units
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.velocitydistribution import thermalize_momenta
from ase.optimize import FIRE

from mdpot import MaskedGNNCalculator
from mdpot.simulate import water_box

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="water-rpbe-small", help="potential file, folder of a run, or name of the zoo")
parser.add_argument("--steps", type=int, default=200)
arguments = parser.parse_args()

rng = np.random.default_rng(0)
atoms = water_box(32, rng)
atoms.calc = MaskedGNNCalculator(arguments.model)

FIRE(atoms).run(fmax=1.0, steps=50)
thermalize_momenta(atoms, 300, rng=rng)
dynamics = LangevinBAOAB(atoms, timestep=0.5 * units.fs, temperature_K=300, T_tau=100 * units.fs, rng=rng)
for _ in dynamics.irun(arguments.steps):
    if dynamics.get_number_of_steps() % 50 == 0:
        step, energy = dynamics.get_number_of_steps(), atoms.get_potential_energy()
        print(f"step {step:6d}  {atoms.get_temperature():6.1f} K  {energy / len(atoms):.5f} eV/atom")
