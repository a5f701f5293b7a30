"""`MLPotential("mdpot", modelPath=...)`: what openmm-ml finds by the entry points openmmml.potentials.

openmm-ml loads every entry point when it is imported, so this module must import without anything else.
"""

from __future__ import annotations

from typing import Any


class MDPotImplFactory:
    """Makes the implementation of `MLPotential("mdpot", modelPath=...)`.

    It derives from nothing, because openmm-ml is half imported when it loads this module.
    """

    def createImpl(self, name: str, modelPath: Any = None, **options: Any) -> Any:
        """The implementation.

        Args:
            name: what the potential was asked for by, "mdpot".
            modelPath: as `ckpt` of `mdpot.openmm.create_force`.
            options: backend, dtype, device, skin, charge and multiplicity of `mdpot.openmm.create_force`.

        Raises:
            MdpotError: no modelPath, or an unknown option.
        """
        from mdpot.openmm.mlpotential import MDPotImpl

        return MDPotImpl(modelPath, **options)
