"""What a run is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from mdpot.errors import MdpotError, unknown
from mdpot.simulate.engine import ENSEMBLES, Dynamics

ENGINES = ("ase", "openmm")
TRAJECTORIES = ("xyz", "dcd")
# Smallest and largest value of each number, and its unit: beyond them there is a slip of the pen, not a simulation.
RANGES: dict[str, tuple[float, float, str]] = {
    "temperature": (0.0, 1e5, "K"),
    "pressure": (-1e7, 1e7, "bar"),
    "dt": (1e-6, 100.0, "fs"),
    "steps": (1, 10**12, ""),
    "every": (1, 2**31 - 1, ""),
    "friction": (1e-6, 1e4, "1/ps"),
    "seed": (0, 2**63 - 1, ""),
    "hydrogen_mass": (0.1, 20.0, "u"),
    "charge": (-100, 100, ""),
    "multiplicity": (1, 100, ""),
}
OPTIONAL = ("hydrogen_mass", "charge", "multiplicity")
# What may be another when a run is resumed: it does not change what is simulated.
FREE = ("steps", "model", "device", "backend")


@dataclass(frozen=True)
class Settings:
    """One run of molecular dynamics.

    Attributes:
        start: structure file, or "water:N".
        model: potential file.
        engine: "ase" or "openmm".
        ensemble: "nve", "nvt" or "npt".
        temperature: K; of the initial velocities, and of the thermostat if there is one.
        pressure: bar; for NPT.
        dt: fs, time step.
        steps: to be done in all, those before a resume included.
        every: steps between lines of the log, frames of the trajectory and restart files.
        friction: 1/ps, of the Langevin thermostat.
        minimize: relax the positions first.
        seed: of everything random.
        trajectory: "xyz" (extended XYZ) or "dcd".
        hydrogen_mass: u; makes hydrogens heavier at the expense of what they are bonded to.
        charge, multiplicity: of the structure, for a potential that corrects a force field; None is what `start`
            states, or else what the potential was trained on.
        device: of the network, e.g. "cuda"; None is for the engine to choose.
        dtype: of the network, "float32" or "float64"; None is that of the file.
        backend: of the calculator or the OpenMM force; None is their default.
    """

    start: str
    model: str
    engine: str = "ase"
    ensemble: str = "nvt"
    temperature: float = 300.0
    pressure: float = 1.0
    dt: float = 0.5
    steps: int = 20_000
    every: int = 100
    friction: float = 2.0
    minimize: bool = False
    seed: int = 0
    trajectory: str = "xyz"
    hydrogen_mass: float | None = None
    charge: int | None = None
    multiplicity: int | None = None
    device: str | None = None
    dtype: str | None = None
    backend: str | None = None

    def check(self) -> None:
        """Checks values.

        Raises:
            MdpotError: one is out of its range.
        """
        known = {"engine": ENGINES, "ensemble": ENSEMBLES, "trajectory": TRAJECTORIES}
        for name, options in known.items():
            if getattr(self, name) not in options:
                raise unknown(name, getattr(self, name), options)
        if self.dtype not in (None, "float32", "float64"):
            raise unknown("dtype", self.dtype or "", ("float32", "float64"))
        for name, (least, most, unit) in RANGES.items():
            value = getattr(self, name)
            if value is None and name in OPTIONAL:
                continue
            kind = int if isinstance(least, int) else (int, float)
            if isinstance(value, bool) or not isinstance(value, kind):
                raise MdpotError(f"{name} must be a number{'' if unit else ' without a fraction'}; got {value!r}.")
            if not least <= value <= most:  # NaN is not either
                raise MdpotError(f"{name} must be from {least} to {most} {unit}".rstrip() + f"; got {value}.")
        if self.temperature == 0 and self.ensemble != "nve":
            raise MdpotError("temperature must be positive; got 0 K.")
        for name in ("start", "model"):
            if not isinstance(getattr(self, name), str):
                raise MdpotError(f"{name} must be a text; got {getattr(self, name)!r}.")

    @property
    def electrons(self) -> dict[str, Any]:
        """Charge and multiplicity, where they are given, by name."""
        both = {"charge": self.charge, "multiplicity": self.multiplicity}
        return {name: value for name, value in both.items() if value is not None}

    def dynamics(self, seed: int) -> Dynamics:
        """What the engine needs of it."""
        return Dynamics(
            ensemble=self.ensemble,
            dt=self.dt,
            temperature=self.temperature,
            pressure=self.pressure,
            friction=self.friction,
            seed=seed,
        )

    def to_dict(self) -> dict[str, Any]:
        """All settings by name, ready for JSON."""
        return asdict(self)

    def resumed(self, changes: Mapping[str, Any]) -> Settings:
        """These settings of an earlier run, with changes for its continuation.

        Raises:
            MdpotError: a setting that makes another run of it differs.
        """
        for name, value in changes.items():
            old = getattr(self, name)
            if name not in FREE and value != old:
                raise MdpotError(
                    f"the run to resume has {name} = {old}, not {value}. Leave {name} out, or start a "
                    "new run in another folder."
                )
        return replace(self, **changes)


def settings_of(values: Mapping[str, Any]) -> Settings:
    """Settings from a mapping, e.g. of a JSON file.

    Raises:
        MdpotError: an unknown key.
    """
    names = [field.name for field in fields(Settings)]
    for key in values:
        if key not in names:
            raise unknown("setting", key, names)
    return Settings(**values)
