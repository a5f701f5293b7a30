"""The implementation behind `MLPotential("mdpot", modelPath=...)` of openmm-ml."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from openmmml.mlpotential import MLPotentialImpl

from mdpot.errors import MdpotError, unknown
from mdpot.openmm.forces import create_force
from mdpot.openmm.topology import add_molecules, has_box, repartition

if TYPE_CHECKING:
    import openmm
    import openmm.app

OPTIONS = ("backend", "dtype", "device", "skin", "charge", "multiplicity")
# Options of createSystem and createMixedSystem that are for openmm-ml itself.
FOREIGN = ("mlLongRange", "linkAtomDistances")


class MDPotImpl(MLPotentialImpl):
    """Adds a potential to the System of openmm-ml, for all atoms or for the ML region of a mixed System.

    Args:
        model_path: as `ckpt` of `mdpot.openmm.create_force`.
        options: backend, dtype, device, skin, charge and multiplicity of `mdpot.openmm.create_force`; they can also be
            given to createSystem and createMixedSystem.
    """

    def __init__(self, model_path: Any, **options: Any):
        if model_path is None:
            raise MdpotError("modelPath: MLPotential('mdpot') needs modelPath=, the potential file.")
        self.model_path = model_path
        self.options = _known(options)

    def addForces(
        self,
        topology: openmm.app.Topology,
        system: openmm.System,
        atoms: Iterable[int] | None,
        forceGroup: int,
        **args: Any,
    ) -> None:
        """Adds the force, and the molecules that it is for; called by openmm-ml.

        createSystem takes `hydrogenMass`, as `mdpot.openmm.create_system` does.
        """
        hydrogen_mass = args.pop("hydrogenMass", None)
        options = {**self.options, **_known({k: v for k, v in args.items() if k not in FOREIGN})}
        periodic = has_box(topology) or system.usesPeriodicBoundaryConditions()
        chosen = None if atoms is None else list(atoms)
        if hydrogen_mass is not None:
            if chosen is not None:
                raise MdpotError(
                    "hydrogenMass: a mixed System has the masses of the one that it is made from. Give it to "
                    "ForceField.createSystem."
                )
            repartition(system, topology, hydrogen_mass)
        system.addForce(
            create_force(self.model_path, topology, atoms=chosen, periodic=periodic, force_group=forceGroup, **options)
        )
        add_molecules(system, topology, chosen)

    def getMLLongRange(self) -> bool:
        """False: atoms beyond the cutoff do not interact."""
        return False


def _known(options: dict[str, Any]) -> dict[str, Any]:
    for name in options:
        if name not in OPTIONS:
            raise unknown("option of MLPotential('mdpot')", name, OPTIONS)
    return options
