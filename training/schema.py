"""What a recipe holds: every table and key of a run, typed, documented and checked before anything starts.

Reading a recipe, its presets and single keys is in `mdpot.training.config`.
"""

from __future__ import annotations

import math
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from ase.data import atomic_numbers
from ase.formula import Formula
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mdpot.training.data.labels import Asked
from mdpot.training.data.unit_statements import parse_units

# The upper ends are beyond all use; what lies past them overflows somewhere.
PositiveInt = Annotated[int, Field(ge=1, le=10**12, strict=True)]
NaturalInt = Annotated[int, Field(ge=0, le=10**12, strict=True)]
Positive = Annotated[float, Field(gt=0, le=1e6, strict=True)]
NonNegative = Annotated[float, Field(ge=0, le=1e9, strict=True)]
Distance = Annotated[float, Field(gt=0, le=100.0, strict=True)]
Share = Annotated[float, Field(gt=0, le=1, strict=True)]
Decay = Annotated[float, Field(gt=0, lt=1, strict=True)]


def _may_be_none(annotation: Any) -> bool:
    """Whether a field of this type takes None."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation)


def section_of(annotation: Any) -> type[Section] | None:
    """The table that a field of this type holds, also where that may be missing; None for a plain value."""
    for kind in get_args(annotation) or (annotation,):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


class Section(BaseModel):
    """A table of a recipe. Unknown keys are refused; the text "none" is what TOML lacks, a missing value."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        str_strip_whitespace=True,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _none_means_none(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        optional = {key for key, field in cls.model_fields.items() if _may_be_none(field.annotation)}
        return {k: None if k in optional and v == "none" else v for k, v in values.items()}


class DataConfig(Section):
    """Which frames, and which of them train, validate and test."""

    source: str
    """Name of the data source (`mdpot data list`), or "custom" for the file given by --data."""
    size: str | None = None
    """How much of a source that comes in sizes: "small" or "paper" of water-tip3p, which are computed where they are
    missing; "official" (950 training frames) or "paper" (50,000, of the full files) of rmd17-MOLECULE. "none": the
    default."""
    fractions: tuple[float, float, float] = (0.81, 0.09, 0.10)
    """Shares of the frames for training, validation and test; they add up to 1."""
    split_by: Literal["group", "frame"] = "group"
    """"group": frames of one source trajectory stay together; "frame": every frame for itself."""
    max_frames: PositiveInt | None = None
    """Take at most this many frames of the data, drawn at random for each seed, into all splits together; "none" takes
    all."""
    max_train_frames: PositiveInt | None = None
    """Finetune on at most this many frames, drawn from the training split; pretraining takes all its structures. "none"
    takes all."""
    fold: Annotated[int, Field(ge=1, le=100, strict=True)] | None = None
    """Test on this one of the official folds of the data (MatBench has five, from 1 on) and divide the others between
    training and validation as fractions has it; "none": fractions alone."""
    max_force: Positive | None = None
    """Use only frames in which no force is larger than this, eV/Å, e.g. 0.05 for relaxed structures; "none": all."""
    molecule: str | None = None
    """Formula of the molecules that masking may touch, e.g. "H2O"; "none": any with the masked element."""
    download: bool = False
    """Whether the public data set may be downloaded when it is found nowhere else."""
    energy_key: str | None = None
    """Key of the energies in a file of your own, e.g. "REF_energy"; "none": the program looks for it."""
    forces_key: str | None = None
    """Key of the forces; "none": the program looks for it."""
    stress_key: str | None = None
    """Key of the stress, or of a virial; "none": the program looks for it; "ignore" takes no stress."""
    property_key: str | None = None
    """Key of the property to learn, a number a structure, e.g. "band_gap"; "none": that of the source."""
    units: str | None = None
    """Units of a file of your own that states none: a system ("ase", "atomic", "vasp", "metal", "real") or
    quantity=unit, e.g. "energy=Hartree,length=bohr" or "stress=-kbar"; "none": what the file states, else ASE's."""
    check: Literal["on", "off"] = "on"
    """Whether labels that contradict physics are refused."""
    charge: Annotated[int, Field(ge=-100, le=100, strict=True)] | None = None
    """Total charge of the frames in a file of your own that states none, e; GFN2-xTB needs it, networks do not see it.
    "none": neutral."""
    multiplicity: Annotated[int, Field(ge=1, le=100, strict=True)] | None = None
    """Spin multiplicity, likewise: 2 of a radical; "none": the lowest that the number of electrons allows."""

    @property
    def labels(self) -> Asked:
        """What is said of keys, units and checks."""
        return Asked(
            self.energy_key,
            self.forces_key,
            self.stress_key,
            self.units,
            self.check == "on",
            self.property_key,
            self.charge,
            self.multiplicity,
        )

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        if self.units is not None:
            parse_units(self.units)
        if any(f < 0 for f in self.fractions) or not math.isclose(sum(self.fractions), 1.0, abs_tol=1e-6):
            raise ValueError(f"fractions must be three shares that add up to 1, got {list(self.fractions)}")
        if self.fractions[0] == 0 or self.fractions[1] == 0:
            raise ValueError("fractions must leave frames for training and for validation")
        if self.molecule is not None:
            try:
                known = set(Formula(self.molecule).count()) <= set(atomic_numbers) - {"X"}
            except ValueError:
                known = False
            if not known or not self.molecule:
                raise ValueError(f"molecule must be a chemical formula, got {self.molecule!r}")
        return self


class PretrainDataConfig(DataConfig):
    """Frames of their own to pretrain on; of those that test nothing is made."""

    path: str | None = None
    """File or folder with the frames; "none": they are looked for as those of any source."""


class ModelConfig(Section):
    """The network."""

    name: str = "tide"
    """Architecture, a key of `mdpot.MODELS`."""
    cutoff: Distance = 4.0
    """Range of the messages, Å."""
    repulsion: bool = True
    """Add a pair repulsion a little inside the smallest distances of the training frames; it is zero on all of them.
    For conservative models."""
    pair: bool = True
    """Start from a pair energy that is fitted to the forces of the training frames; the network learns the rest.
    For conservative models."""
    baseline: Literal["gfn2-xtb", "spcfw"] | None = None
    """A force field that the network corrects: it learns what the labels have beyond it (Δ-machine learning), and the
    potential is both together. That is more accurate from the same frames, costs the force field's time in dynamics,
    and runs with it, in ASE or OpenMM; "none": the network is the potential."""
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    """What else the architecture takes, by name; the rest keeps the architecture's own values."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The cutoff and the hyperparameters, as `mdpot.build_potential` takes them."""
        return {"cutoff": self.cutoff, **self.hyperparameters}


class Stage(Section):
    """How one of the two stages is optimized."""

    engine: Literal["auto", "kernels", "torch"] = "auto"
    """Who computes the network and its gradients: "auto", the fused kernels where they can, that is for a Tide on a CPU
    that learns energies and their derivatives, else torch; "kernels" insists on them."""
    optimizer: Literal["adamw", "soap"] = "adamw"
    """"adamw", or "soap": Adam in the eigenbasis of Shampoo's preconditioner, which needs far fewer steps."""
    epochs: PositiveInt | None = None
    """Length in passes over the training frames. Give this or max_steps."""
    max_steps: PositiveInt | None = None
    """Length in optimizer steps. Give this or epochs."""
    batch_frames: PositiveInt | None = None
    """Frames in a batch. Give this or batch_atoms."""
    batch_atoms: PositiveInt | None = None
    """Atoms in a batch, about: as many frames as come nearest. Give this or batch_frames."""
    lr: Positive = 1e-3
    """Learning rate after the warm-up; from there it falls along half a cosine."""
    lr_min: NonNegative = 0.0
    """Learning rate at the last step; at most lr."""
    warmup_steps: NaturalInt = 0
    """Steps over which the learning rate rises linearly to lr."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay."""
    clip_norm: Positive | None = None
    """Largest norm of the gradient of all weights together; "none" leaves it as it is."""
    ema_decay: Decay | None = None
    """Decay per step of the moving average of the weights, which is what is validated and kept; "none" keeps
    the weights themselves."""
    eval_every: PositiveInt | None = None
    """Steps between validations; "none" validates once an epoch."""
    patience: PositiveInt | None = None
    """Stop after this many validations without a better one; "none" never stops early."""

    @model_validator(mode="after")
    def _check(self) -> Stage:
        if getattr(self, "objective", None) == "none":
            return self
        for one, other in EXCLUSIVE:
            if (getattr(self, one) is None) == (getattr(self, other) is None):
                raise ValueError(f"give either {one} or {other}")
        if self.lr_min > self.lr:
            raise ValueError(f"lr_min must be at most lr ({self.lr:g}), got {self.lr_min:g}")
        return self


STAGES = ("pretrain", "finetune")
"""Tables of a recipe, in their order; a stage's folder has its name."""
EXCLUSIVE = (("epochs", "max_steps"), ("batch_frames", "batch_atoms"))
"""Keys of a stage of which exactly one holds; an override by one takes the place of the other."""


class LabelStage(Stage):
    """A stage that may learn from labels.

    The loss on them is energy_weight · l(ΔE / n_atoms) + force_weight · l(ΔF) + stress_weight · l(Δσ), each term
    averaged over its components, with errors in eV per atom, eV/Å and eV/Å^3.
    """

    loss: Literal["l1", "l2", "huber"] = "l1"
    """l, how errors of labels are scored: "l1", absolute; "l2", squared; "huber", squared below huber_delta and linear
    above."""
    huber_delta: Positive = 0.01
    """Where Huber's loss turns linear, in the unit of the error."""
    energy_weight: NonNegative | Literal["auto"] = 1.0
    """Weight of the energy (eV, see energy_per); "auto": 0.2, and 1 where the training frames have 20 compositions or
    more (the exponential of their entropy), whose energies the forces do not tell."""
    energy_per: Literal["atom", "structure"] = "atom"
    """Whether the energy's error is divided by the number of atoms before it is scored."""
    second_energy_weight: NonNegative | None = None
    """Weight of the energy in a second stage, the last quarter of the steps, and in all validations; "none": there is
    no second stage."""
    force_weight: NonNegative = 1.0
    """Weight of the force components (eV/Å)."""
    stress_weight: NonNegative = 0.0
    """Weight of the stress components (eV/Å^3), for the frames that have one."""

    @property
    def needed_labels(self) -> set[str]:
        """The labels that a frame must have to be trained on: those of a weight above zero; a stress only where it is
        all that is learned."""
        first = 1.0 if self.energy_weight == "auto" else self.energy_weight
        weights = {"energy": max(first, self.second_energy_weight or 0.0), "forces": self.force_weight}
        return {label for label, weight in weights.items() if weight > 0} or {"stress"}

    @model_validator(mode="after")
    def _check_weights(self) -> LabelStage:
        if self.energy_weight == self.force_weight == self.stress_weight == 0:
            raise ValueError("one of energy_weight, force_weight and stress_weight must be above 0")
        return self


class PretrainConfig(LabelStage):
    """The first stage: without labels, or on those of a cheap force field or of other data.

    The keys of the loss on labels, `loss` to `stress_weight`, are for the objectives "labels" and "forcefield" alone.
    """

    objective: Literal["mask", "denoise", "forcefield", "labels", "none"] = "none"
    """"mask": predict where removed atoms were; "denoise": predict the noise added to the positions; "forcefield":
    learn the energies and forces of a cheap force field; "labels": learn those of the data, as a rule those
    of [pretrain.data]; "none": no pretraining."""
    data: PretrainDataConfig | None = None
    """Frames of their own to pretrain on, a table [pretrain.data] with the keys of [data] and `path`; "none": the
    training frames of [data]."""
    element: str = "H"
    """Symbol of the element that is masked."""
    ratio: Share = 0.25
    """Share of the molecules, or of the atoms of the element, that is masked; see unit."""
    unit: Literal["molecule", "atom"] = "molecule"
    """What the ratio counts. "molecule": each molecule is masked with this probability and loses one atom, as in water;
    "atom": each atom of the element is removed with this probability, as in organic molecules."""
    target: Literal["nearest", "farthest"] = "nearest"
    """Which of several removed atoms of its molecule an atom points to: the one bonded to it or else the nearest, or
    else the farthest."""
    cosine: Literal["per-atom", "all"] = "per-atom"
    """The loss of masking is 1 - cosine, "per-atom": averaged over the marked atoms; "all": one cosine over all their
    components."""
    vector: Literal["derivative", "direct"] = "derivative"
    """What vectors are predicted by, forces among them: "derivative", the force -dE/dx; "direct", the network's vector
    head. A force-centric network learns forces by its vector head in any case."""
    sigma: Distance = 0.5
    """Standard deviation of the noise of denoising on each coordinate, Å; usual are 0.5 for water and 0.1 for
    crystals."""
    gamma: Positive = 1.0
    """What denoising multiplies the predicted vector by before it is compared with the noise over sigma (Å/eV where
    that is a derivative). Whatever it is, the readout learns its size; it sets how large energies become."""
    forcefield: Literal["spcfw", "gfn2-xtb"] = "spcfw"
    """The force field of the objective "forcefield": "spcfw", flexible water; "gfn2-xtb", tight binding for any
    molecules."""
    dynamics: PositiveInt | None = None
    """With the objective "forcefield": learn this many structures of dynamics by the force field, which begins at the
    training frames, 20 structures a trajectory of 0.1 ps; "none": the training frames themselves."""
    temperature: tuple[Positive, Positive] = (400.0, 1100.0)
    """Lowest and highest temperature, K, of that dynamics; each trajectory has its own."""

    @model_validator(mode="after")
    def _check_values(self) -> PretrainConfig:
        if atomic_numbers.get(self.element, 0) < 1:
            raise ValueError(f"element must be a chemical symbol, got {self.element!r}")
        if self.temperature[0] > self.temperature[1]:
            raise ValueError(f"temperature must be the lowest, then the highest; got {list(self.temperature)}")
        return self


class FinetuneConfig(LabelStage):
    """The second stage, on labels."""

    readout: Literal["auto", "pretrained", "new"] = "auto"
    """Where the readout begins: "pretrained", from what was pretrained; "new", from random weights; "auto": from a
    finished potential, or what learned the energies of a force field, else from random weights. That of a property is
    always new."""
    transferred_rate: Annotated[float, Field(ge=0, le=1, strict=True)] = 1.0
    """Learning rate of transferred weights, as a share of `lr`, which new ones have; 0 freezes all but the readout."""


class PropertyConfig(Section):
    """A number a structure that is learned in place of energy and forces; how, is in [finetune].

    The loss is that of finetuning, `loss` and `huber_delta`, on the targets less their mean and over their spread.
    """

    pooling: Literal["sum", "mean"] = "sum"
    """Whether the features of the atoms are added or averaged: "mean" for what does not grow with the cell."""


class Recipe(Section):
    """A complete run."""

    name: str
    """Name of the recipe; without it, that of its file."""
    description: str = ""
    """One line on what comes out."""
    preset: str = "plain"
    """Which preset was applied; "plain" is none. Set when a recipe is loaded."""
    data: DataConfig
    """Frames and splits."""
    model: ModelConfig = Field(default_factory=ModelConfig)
    """Network."""
    pretrain: PretrainConfig = Field(default_factory=PretrainConfig)
    """First stage."""
    finetune: FinetuneConfig
    """Second stage, on energies, forces and stress, or on a property."""
    property: PropertyConfig | None = None
    """The property that is learned, where it is no potential; "none": energy and its derivatives."""

    @model_validator(mode="after")
    def _check_property(self) -> Recipe:
        if self.data.property_key is not None and self.property is None:
            raise ValueError(
                "data.property_key is for recipes with a table [property], such as custom-property; "
                f"{self.name!r} has none"
            )
        return self

    @model_validator(mode="after")
    def _check_baseline(self) -> Recipe:
        if self.model.baseline is None:
            return self
        if self.property is not None:
            raise ValueError("model.baseline is for energies and forces; a property has none")
        if self.pretrain.objective in ("forcefield", "labels"):
            raise ValueError(
                "with model.baseline a network learns what a force field lacks, and other labels first would teach it "
                f"something else: set pretrain.objective to none, denoise or mask; got {self.pretrain.objective!r}"
            )
        return self
