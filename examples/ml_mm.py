"""A few waters by the potential, the rest by a classical force field (ML/MM), with openmm-ml.

The bonded and nonbonded terms inside the ML region are taken over by the potential; its interaction with the
surroundings stays classical (mechanical embedding). Run it with `python examples/ml_mm.py`.
"""

# pyright: basic, reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false
import argparse

import openmm
from openmm import app, unit
from openmmml import MLPotential

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="water-rpbe-small", help="potential file, folder of a run, or name of the zoo")
parser.add_argument("--steps", type=int, default=200)
arguments = parser.parse_args()

forcefield = app.ForceField("spce.xml")
modeller = app.Modeller(app.Topology(), [])
modeller.addSolvent(forcefield, model="spce", boxSize=openmm.Vec3(1.9, 1.9, 1.9) * unit.nanometer)
topology, positions = modeller.topology, modeller.positions
classical = forcefield.createSystem(
    topology, nonbondedMethod=app.PME, nonbondedCutoff=0.8 * unit.nanometer, constraints=None, rigidWater=False
)
inside = [atom.index for residue in list(topology.residues())[:4] for atom in residue.atoms()]

potential = MLPotential("mdpot", modelPath=arguments.model)
system = potential.createMixedSystem(topology, classical, inside)
print(f"{len(inside)} of {topology.getNumAtoms()} atoms by the potential")

integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 10 / unit.picosecond, 0.5 * unit.femtosecond)
simulation = app.Simulation(topology, system, integrator)
simulation.context.setPositions(positions)
simulation.minimizeEnergy(maxIterations=50)
simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 0)
simulation.step(arguments.steps)
print(simulation.context.getState(energy=True).getPotentialEnergy())
