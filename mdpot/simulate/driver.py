"""The loop that all engines share: step, look, write."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import numpy as np
from ase.io import write as write_atoms

from mdpot.errors import MdpotError
from mdpot.files import appending, atomic
from mdpot.simulate.engine import Engine, State
from mdpot.simulate.log import Log, Row
from mdpot.simulate.restart import Restart, file_sizes, save_restart
from mdpot.simulate.settings import Settings
from mdpot.simulate.trajectory import TRAJECTORIES, to_atoms
from mdpot.simulate.watch import Strike, Watch
from mdpot.stopping import StopSignal

CHECK_EVERY = 100  # steps between looks of the watch where the log is written more rarely
LOG, RESTART, LAST_GOOD, STRUCK = "log.csv", "restart.npz", "last_good.xyz", "struck.xyz"


def trajectory_name(settings: Settings) -> str:
    """Name of the trajectory's file."""
    return f"trajectory.{settings.trajectory}"


class Observer(Protocol):
    """Is told how a run goes; the command line draws its progress with one."""

    def phase(self, text: str) -> None:
        """What the run does now, in a word."""
        ...

    def row(self, row: Row, n_steps: int) -> None:
        """A line of the log was written, of a run of `n_steps`."""
        ...


class Silent:
    """An observer that keeps quiet."""

    def phase(self, text: str) -> None:
        pass

    def row(self, row: Row, n_steps: int) -> None:
        pass


class Driver:
    """Takes an engine from where it stands to the last step, and writes log, trajectory and restart file.

    Args:
        engine: where it stands is where the run starts or is resumed.
        settings: how far to go and what to write.
        out: folder.
        watch: looks at the state in every interval.
        observer: is told how it goes.
    """

    def __init__(self, engine: Engine, settings: Settings, out: Path, watch: Watch, observer: Observer) -> None:
        self.engine, self.settings, self.out = engine, settings, out
        self.watch, self.observer = watch, observer
        self.atoms = engine.atoms.copy()
        self.interrupted = False
        self._stop = StopSignal(at_once=True)
        self.good: State | None = None  # the last state that the watch let pass

    def run(self, resumed: bool) -> str | None:
        """Goes on to the last step.

        Args:
            resumed: the first state is in the files already.

        Returns:
            None, or in one line why it ended early: the watch struck, or the user interrupted (Ctrl-C, SIGTERM).
        """
        s = self.settings
        with ExitStack() as files, self._stop:
            files.enter_context(appending(self.out / LOG))
            self.log = Log(self.out / LOG)
            files.callback(self.log.close)
            files.enter_context(appending(self.out / trajectory_name(s)))
            self.trajectory = TRAJECTORIES[s.trajectory](self.out / trajectory_name(s), self.atoms, s.dt, s.every)
            files.callback(self.trajectory.close)
            try:
                state = self.engine.state()
                if resumed:
                    self.good = state
                else:
                    self._look(state)
                    self._record(state, None)
                while state.step < s.steps:
                    state = self._interval(state)
            except Strike as strike:
                return str(strike)
            except KeyboardInterrupt:
                self.interrupted = True
                return f"interrupted after step {self.good.step if self.good else 0}"
        return None

    def _interval(self, state: State) -> State:
        """On to the next step that is logged."""
        begin, every = state.step, self.settings.every
        end = min(self.settings.steps, (begin // every + 1) * every)
        clock = time.perf_counter()
        while state.step < end:
            state = self._advance(state, min(CHECK_EVERY, end - state.step))
            self._look(state)
        days = (time.perf_counter() - clock) / 86400
        self._record(state, 1e-6 * (end - begin) * self.settings.dt / days)
        return state

    def _advance(self, state: State, n_steps: int) -> State:
        try:
            with np.errstate(all="ignore"):
                self.engine.step(n_steps)
                return self.engine.state()
        except Exception as error:
            if self._stop.requested:  # it came while Python was called from C++, which made another error of it
                raise KeyboardInterrupt from error
            if self.engine.is_finite() and not isinstance(error, MdpotError):
                raise
            # Calculators and OpenMM refuse bad positions before the watch sees them, in words of their own.
            reason = str(error).rstrip(".") if self.engine.is_finite() else "the positions are not a number"
            self._leave(LAST_GOOD, state)
            when = f"step {state.step} ({state.time / 1000:.3f} ps)"
            raise Strike(f"stopped within {n_steps} steps of {when}: {reason}") from error

    def _look(self, state: State) -> None:
        """Lets the watch look; if it strikes, this state and the last good one are left in the folder."""
        try:
            self.watch.look(state)
        except Strike:
            if self.good is not None:
                self._leave(LAST_GOOD, self.good)
            self._leave(STRUCK, state)
            raise
        self.good = state

    def _leave(self, name: str, state: State) -> None:
        with atomic(self.out / name) as temporary:
            write_atoms(temporary, to_atoms(self.atoms, state), format="extxyz")

    def _record(self, state: State, ns_per_day: float | None) -> None:
        """Log, frame, restart file: in this order, for the restart file says how long the others are."""
        row = Row.of(state, self.atoms, ns_per_day)
        with appending(self.out / LOG):
            self.log.write(row)
        with appending(self.trajectory.path):
            self.trajectory.write(state)
        restart = Restart(
            arrays=self.engine.snapshot(),
            numbers=self.atoms.numbers,
            masses=self.atoms.get_masses(),
            pbc=self.atoms.pbc,
            start_cell=self.atoms.cell.array,
            start_positions=self.atoms.positions,
            memory=self.watch.memory(),
            sizes=file_sizes([self.out / LOG, self.trajectory.path]),
        )
        save_restart(self.out / RESTART, restart)
        self.observer.row(row, self.settings.steps)
