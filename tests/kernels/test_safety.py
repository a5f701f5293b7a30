"""What a kernel refuses, and that it minds its own business: threads, forks, the processor's modes."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import threading

import numpy as np
import pytest
import torch

from mdpot.errors import MdpotError
from mdpot.heads import build_potential
from mdpot.kernels import Kernel, NoKernel, library, self_test


@pytest.fixture
def structure(make_structures):
    return make_structures()[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("what", ["positions", "cell"])
def test_what_is_not_finite_is_an_error(lib, make_potential, structure, value, what) -> None:
    kernel = Kernel(make_potential(), threads=2, lib=lib)
    candidates = structure.candidates(4.5)
    good = kernel(structure.numbers, structure.positions, structure.cell, candidates)
    spoiled = {"positions": structure.positions.copy(), "cell": structure.cell.copy()}
    spoiled[what][-1, 1] = value
    with pytest.raises(MdpotError, match="must be finite"):
        kernel(structure.numbers, spoiled["positions"], spoiled["cell"], candidates)
    again = kernel(structure.numbers, structure.positions, structure.cell, candidates)
    assert np.array_equal(good.forces, again.forces)


def test_atoms_on_top_of_each_other_are_an_error(lib, make_potential, structure, run) -> None:
    kernel = Kernel(make_potential(), threads=2, lib=lib)
    good = run(kernel, structure)
    spoiled = copy.deepcopy(structure)
    spoiled.positions[1] = spoiled.positions[0]
    i, j, shifts = structure.candidates(14.0)
    with pytest.raises(MdpotError, match="on top of each other"):
        kernel(spoiled.numbers, spoiled.positions, spoiled.cell, (i, j, shifts))
    assert np.array_equal(run(kernel, structure).forces, good.forces)


def test_candidates_that_do_not_fit_are_an_error(lib, make_potential, structure) -> None:
    kernel = Kernel(make_potential(), threads=3, lib=lib)
    n = len(structure.numbers)
    i, j, shifts = structure.candidates(4.5)

    def call(*candidates: np.ndarray) -> None:
        i, j, shifts = candidates
        kernel(structure.numbers, structure.positions, structure.cell, (i, j, shifts))

    for k, wrong in ((0, n), (5, -1), (len(j) - 1, 2**40)):
        bad = j.copy()
        bad[k] = wrong
        with pytest.raises(MdpotError, match="candidates"):
            call(i, bad, shifts)
        bad = i.copy()
        bad[k] = wrong
        with pytest.raises(MdpotError, match="candidates"):
            call(bad, j, shifts)
    for order in (slice(None, None, -1), np.random.default_rng(0).permutation(len(i))):
        with pytest.raises(MdpotError, match="candidates"):
            call(i[order], j[order], shifts[order])
    with pytest.raises(MdpotError, match="shifts of the candidates must be"):
        call(i, j, shifts[1:])
    with pytest.raises(MdpotError, match="positions must be"):
        kernel(structure.numbers, structure.positions[1:], structure.cell, (i, j, shifts))


def test_unknown_elements_are_an_error(lib, make_potential, structure) -> None:
    kernel = Kernel(make_potential(), lib=lib)
    for wrong in (6, -1, 500):
        numbers = structure.numbers.copy()
        numbers[3] = wrong
        with pytest.raises(MdpotError, match=rf"trained elements \[1, 8\]; got \[{wrong}\]"):
            kernel(numbers, structure.positions, structure.cell, structure.candidates(4.5))


def test_what_has_no_kernel(lib, make_potential) -> None:
    egnn = build_potential("egnn", {}, [1, 8], [0.0, 0.0], 1.0)
    with pytest.raises(NoKernel, match="only Tide"):
        Kernel(egnn, lib=lib)
    with pytest.raises(MdpotError, match="threads must be at least 1; got 0"):
        Kernel(make_potential(), threads=0, lib=lib)
    with pytest.raises(MdpotError, match="dtype must be"):
        Kernel(make_potential(), torch.float16, lib=lib)
    with pytest.raises(NoKernel, match="does not load"):
        library.load("no-such-library.so")


def test_self_test_finds_a_difference(lib, make_potential) -> None:
    potential = make_potential()
    kernel = Kernel(potential, lib=lib)
    self_test(kernel, potential)
    with torch.no_grad():
        potential.backbone.layers[1].mlp[2].weight[3, 4] += 1.0
    with pytest.raises(NoKernel, match="differ from torch"):
        self_test(kernel, potential)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bits_for_the_same_threads(lib, make_potential, make_structures, run, dtype) -> None:
    potential = make_potential(layers=3)
    structures = make_structures()
    for threads in (1, 2, 4, 64):
        kernel = Kernel(potential, dtype, threads, lib)
        first = [run(kernel, structure) for structure in structures]
        for _ in range(5):
            for structure, before in zip(structures, first, strict=True):
                now = run(kernel, structure)
                assert np.array_equal(now.forces, before.forces)
                assert np.array_equal(now.energies, before.energies)
                assert np.array_equal(now.virial, before.virial)


def test_follows_torchs_number_of_threads(lib, make_potential, structure, run) -> None:
    potential = make_potential()
    kernel = Kernel(potential, lib=lib)
    torch.set_num_threads(3)
    try:
        found = run(kernel, structure)
    finally:
        torch.set_num_threads(1)
    assert np.array_equal(found.forces, run(Kernel(potential, threads=3, lib=lib), structure).forces)
    assert not np.array_equal(found.forces, run(kernel, structure).forces)


def test_several_kernels_and_threads_at_once(lib, make_potential, make_structures, run) -> None:
    structures = make_structures()
    kernels = [Kernel(make_potential(seed=n), threads=2, lib=lib) for n in range(2)]
    wanted = {(k, s): run(kernels[k], structures[s]).forces for k in range(2) for s in range(4)}
    wrong: list[str] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(40):
            k, s = int(rng.integers(2)), int(rng.integers(4))
            if not np.array_equal(run(kernels[k], structures[s]).forces, wanted[k, s]):
                wrong.append(f"{k} {s}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_works_after_a_fork(lib, make_potential, structure) -> None:
    """Also after one in the middle of another thread's evaluation, whose locks the child finds locked."""
    kernel = Kernel(make_potential(), threads=2, lib=lib)
    candidates = structure.candidates(4.5)  # here: a search in another thread would hold locks of its own at the fork

    def forces() -> np.ndarray:
        return kernel(structure.numbers, structure.positions, structure.cell, candidates).forces

    wanted = forces()
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            forces()

    def child(queue) -> None:
        queue.put(bool(np.array_equal(forces(), wanted)))

    context = multiprocessing.get_context("fork")
    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(8):
            queue = context.SimpleQueue()
            process = context.Process(target=child, args=(queue,))
            process.start()
            process.join(60)
            if process.is_alive():
                process.kill()
            assert process.exitcode == 0
            assert queue.get()
    finally:
        stop.set()
        thread.join()
    assert np.array_equal(forces(), wanted)


def test_copies_and_pickles(make_potential, structure, run) -> None:
    if not library.supported():
        pytest.skip("the kernels are not compiled")
    kernel = Kernel(make_potential(), threads=2)
    wanted = run(kernel, structure)
    for other in (copy.deepcopy(kernel), pickle.loads(pickle.dumps(kernel))):
        assert np.array_equal(run(other, structure).forces, wanted.forces)


def test_denormal_numbers_survive(lib, make_potential, structure, run) -> None:
    tiny = np.array([1e-310])
    run(Kernel(make_potential(), torch.float32, 2, lib), structure)
    assert (tiny * 0.5)[0] == 5e-311
    assert (torch.tensor([1e-310], dtype=torch.float64) * 0.5).item() == 5e-311


def test_inputs_stay_as_they_are(lib, make_potential, structure) -> None:
    kernel = Kernel(make_potential(), lib=lib)
    arrays = [structure.numbers, structure.positions, structure.cell, *structure.candidates(4.5)]
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    numbers, positions, cell, i, j, shifts = arrays
    kernel(numbers, positions, cell, (i, j, shifts), True)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))
