"""Water at constant volume with OpenMM: the potential as the one force of a System.

Run it with `python examples/openmm_nvt.py`; `--backend python` needs no openmmtorch.
"""

# pyright: basic, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false
import argparse
import sys

import numpy as np
import openmm
from openmm import app, unit

from mdpot.openmm import create_system
from mdpot.simulate import water_box
from mdpot.simulate.engine_openmm import make_topology

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="water-rpbe-small", help="potential file, folder of a run, or name of the zoo")
parser.add_argument("--backend", default="auto")
parser.add_argument("--steps", type=int, default=200)
arguments = parser.parse_args()

atoms = water_box(32, np.random.default_rng(0))
topology = make_topology(atoms)
system = create_system(topology, arguments.model, backend=arguments.backend)
print("force:", system.getForce(0).getName())

integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 10 / unit.picosecond, 0.5 * unit.femtosecond)
simulation = app.Simulation(topology, system, integrator)
simulation.context.setPositions(atoms.positions * unit.angstrom)
simulation.minimizeEnergy(maxIterations=20)
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 0)
simulation.reporters.append(
    app.StateDataReporter(sys.stdout, 50, step=True, temperature=True, potentialEnergy=True, speed=True)
)
simulation.step(arguments.steps)
