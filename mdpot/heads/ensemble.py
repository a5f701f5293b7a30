"""Several models that answer together: their mean, and how far they are apart."""

# Not `from __future__ import annotations`: TorchScript reads the types of the buffers, and only as types.
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mdpot.errors import MdpotError, name_elements
from mdpot.heads.potential import OUTPUTS, Potential
from mdpot.heads.property import PropertyModel

SPREADS = ("energy_std", "forces_std")
"""What an ensemble of potentials offers by name beside the outputs of a potential."""


class PotentialEnsemble(nn.Module):
    """The mean of several potentials; it takes the place of a `Potential` wherever one is run.

    A mean of energies whose forces are their gradients has the mean forces as its gradient, so energy is conserved.
    The spread between the members, trained with different seeds, tells where they left their training data.

    Args:
        members: two or more, for the same elements, all conservative or none. Cutoffs may differ; edges within the
            largest are needed.

    Raises:
        MdpotError: members that do not go together.
    """

    lookup: Tensor
    shift: Tensor

    def __init__(self, members: Sequence[Potential]) -> None:
        super().__init__()
        _check_members(members)
        if len({member.conservative for member in members}) > 1:
            raise MdpotError("members must all have forces that are the gradient of the energy, or all predict them.")
        self.model, self.hyperparameters = "ensemble", {}
        self.members = nn.ModuleList(members)
        self.cutoff = max(member.cutoff for member in members)
        self.conservative = members[0].conservative
        self.elements = list(members[0].elements)
        self.known_outputs = [*OUTPUTS, *SPREADS]
        self.register_buffer("lookup", members[0].lookup.clone(), persistent=False)
        shift = torch.stack([member.shift for member in members]).mean(0)
        self.register_buffer("shift", shift, persistent=False)

    def _apply(self, fn, recurse=True):
        shift = self.shift  # in float64, as that of each member
        super()._apply(fn, recurse)
        self.shift = shift.to(self.lookup.device)
        return self

    def forward(
        self,
        numbers: Tensor,
        positions: Tensor,
        cell: Tensor,
        system: Tensor,
        edge_index: Tensor,
        shifts: Tensor,
        marks: Tensor | None = None,
        outputs: list[str] | None = None,
    ) -> dict[str, Tensor]:
        """The means of what `Potential.forward` gives, with its arguments, and where asked for by name

        - "energy_std" [n_systems] float64 eV/atom, the standard deviation over the members (divided by their number)
          of the energy per atom;
        - "forces_std" [n_atoms, 3] eV/Å, that of each component of the forces.

        Raises:
            MdpotError: an unknown output.
        """
        wanted = ["energy", "forces"] if outputs is None else outputs
        asked: list[str] = []
        for name in wanted:
            if name not in self.known_outputs:
                raise MdpotError("unknown output " + name + ". Known: " + ", ".join(self.known_outputs) + ".")
            single = name.replace("_std", "")
            if single not in asked:
                asked.append(single)
        found: dict[str, list[Tensor]] = {}
        for member in self.members:
            out = member(numbers, positions, cell, system, edge_index, shifts, marks, asked)
            for name, value in out.items():
                if name not in found:
                    found[name] = []
                found[name].append(value)
        mean: dict[str, Tensor] = {}
        for name, values in found.items():
            mean[name] = torch.stack(values).mean(0)
        if "energy_std" in wanted:
            sizes = torch.zeros_like(mean["energy"]).index_add(0, system, torch.ones_like(mean["energies"]))
            mean["energy_std"] = torch.stack(found["energy"]).std(0, unbiased=False) / sizes
        if "forces_std" in wanted:
            mean["forces_std"] = torch.stack(found["forces"]).std(0, unbiased=False)
        return mean


AnyPotential = Potential | PotentialEnsemble


class PropertyEnsemble(nn.Module):
    """The mean of several models of the same property.

    Args:
        members: two or more, of one property in one unit, for the same elements.

    Raises:
        MdpotError: members that do not go together.
    """

    def __init__(self, members: Sequence[PropertyModel]) -> None:
        super().__init__()
        _check_members(members)
        if len({(member.name, member.unit) for member in members}) > 1:
            named = ", ".join(f"{member.name} in {member.unit or 'no unit'}" for member in members)
            raise MdpotError(f"members must predict the same property; got {named}.")
        self.model, self.hyperparameters = "ensemble", {}
        self.members = nn.ModuleList(members)
        self.cutoff = max(member.cutoff for member in members)
        self.elements = list(members[0].elements)
        self.name, self.unit = members[0].name, members[0].unit

    def forward(
        self,
        numbers: Tensor,
        positions: Tensor,
        cell: Tensor,
        system: Tensor,
        edge_index: Tensor,
        shifts: Tensor,
    ) -> dict[str, Tensor]:
        """Mean and spread over the members; arguments as `PropertyModel.forward`.

        Returns:
            "property" and "property_std" [n_systems] float64, in `unit`; the deviation is divided by the number of
            members, not by one less.
        """
        values: list[Tensor] = []
        for member in self.members:
            values.append(member(numbers, positions, cell, system, edge_index, shifts)["property"])
        together = torch.stack(values)
        return {"property": together.mean(0), "property_std": together.std(0, unbiased=False)}


def build_ensemble(members: Sequence[nn.Module]) -> PotentialEnsemble | PropertyEnsemble:
    """The ensemble of some potentials, or of some models of a property.

    Raises:
        MdpotError: they do not go together.
    """
    potentials = [member for member in members if isinstance(member, Potential)]
    properties = [member for member in members if isinstance(member, PropertyModel)]
    if len(potentials) == len(members):
        return PotentialEnsemble(potentials)
    if len(properties) == len(members):
        return PropertyEnsemble(properties)
    raise MdpotError("members must all be potentials or all models of a property, and no ensembles themselves.")


def _check_members(members: Sequence[Potential] | Sequence[PropertyModel]) -> None:
    if len(members) < 2:
        raise MdpotError(f"members: an ensemble needs two or more; got {len(members)}.")
    for member in members:
        if member.elements != members[0].elements:
            known = " and ".join(name_elements(one.elements) for one in (members[0], member))
            raise MdpotError(f"members must know the same elements; got {known}.")
    dtypes = {str(next(member.parameters()).dtype).removeprefix("torch.") for member in members}
    if len(dtypes) > 1:
        raise MdpotError(f"members must be of one dtype; got {', '.join(sorted(dtypes))}.")
