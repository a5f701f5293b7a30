"""Water at constant pressure with OpenMM's Monte Carlo barostat.

The barostat moves whole molecules, which it finds by the bonds of the topology. Without bonds, it would stretch every
molecule with the box and accept only tiny changes. The force follows the box. Run it with
`python examples/openmm_npt.py`.
"""

# pyright: basic, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false
import argparse

import numpy as np
import openmm
from openmm import app, unit

from mdpot.openmm import create_system
from mdpot.simulate import water_box
from mdpot.simulate.engine_openmm import make_topology, molecule_bonds

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="water-rpbe-small", help="potential file, folder of a run, or name of the zoo")
parser.add_argument("--backend", default="auto")
parser.add_argument("--steps", type=int, default=200)
arguments = parser.parse_args()

atoms = water_box(32, np.random.default_rng(0))
topology = make_topology(atoms)
members = list(topology.atoms())
for i, j in molecule_bonds(atoms):
    topology.addBond(members[i], members[j])
system = create_system(topology, arguments.model, backend=arguments.backend)
system.addForce(openmm.MonteCarloBarostat(1 * unit.bar, 300 * unit.kelvin, 10))

integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 10 / unit.picosecond, 0.5 * unit.femtosecond)
simulation = app.Simulation(topology, system, integrator)
simulation.context.setPositions(atoms.positions * unit.angstrom)
print(f"{len(simulation.context.getMolecules())} molecules")
simulation.minimizeEnergy(maxIterations=20)
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 0)
for _ in range(4):
    simulation.step(arguments.steps // 4)
    state = simulation.context.getState(energy=True)
    volume = state.getPeriodicBoxVolume().value_in_unit(unit.nanometer**3)
    density = 32 * 18.015 / 602.214 / volume
    print(f"step {simulation.currentStep:6d}  {density:.3f} g/cc  {state.getPotentialEnergy()}")
