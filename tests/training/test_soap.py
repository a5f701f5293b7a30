"""SOAP against its equations, one step a line, with nothing kept in the eigenbasis but the second moment."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mdpot.training.soap import BLOCK, SOAP

RATE, DECAY, BETA1, BETA2, BASIS, REFRESH = 0.02, 0.1, 0.9, 0.95, 0.95, 10


def gradients(n: int, shape: tuple[int, ...]) -> Tensor:
    """[n, *shape] float64, not the same in all directions."""
    generator = torch.Generator().manual_seed(3)
    scale = torch.linspace(0.2, 3.0, shape[-1], dtype=torch.float64)
    return torch.randn(n, *shape, dtype=torch.float64, generator=generator) * scale


def expected(weight: Tensor, steps: Tensor) -> Tensor:
    """A matrix after SOAP's steps along these gradients."""
    left = right = first = second = torch.zeros([], dtype=torch.float64)
    bases: list[Tensor] = []
    for t, g in enumerate(steps, 1):
        left = BASIS * left + (1 - BASIS) * g @ g.T
        right = BASIS * right + (1 - BASIS) * g.T @ g
        if t == 1:
            bases = [torch.linalg.eigh(side)[1] for side in (left, right)]
            continue
        first = BETA1 * first + (1 - BETA1) * g
        rotated, mean = (bases[0].T @ part @ bases[1] for part in (g, first))
        second = BETA2 * second + (1 - BETA2) * rotated.square()
        step = (mean / (1 - BETA1**t)) / ((second / (1 - BETA2**t)).sqrt() + 1e-8)
        weight = (1 - RATE * DECAY) * weight - RATE * bases[0] @ step @ bases[1].T
        if t % REFRESH == 0:
            for n, side in enumerate((left, right)):
                values = (bases[n].T @ side @ bases[n]).diagonal()
                order = values.argsort(descending=True)
                second = second.index_select(n, order)
                bases[n] = torch.linalg.qr(side @ bases[n][:, order])[0]
    return weight


def run(weight: Tensor, steps: Tensor, state: dict | None = None, block: int = BLOCK) -> SOAP:
    """Takes the steps, in place."""
    optimizer = SOAP([weight], RATE, weight_decay=DECAY, block=block)
    if state is not None:
        optimizer.load_state_dict(state)
    for gradient in steps:
        weight.grad = gradient.clone()
        optimizer.step()
    return optimizer


def test_it_takes_the_steps_of_its_equations() -> None:
    steps = gradients(37, (6, 6))  # square: one gradient has a full basis
    weight = torch.nn.Parameter(torch.ones(6, 6, dtype=torch.float64))
    run(weight, steps)
    torch.testing.assert_close(weight.detach(), expected(torch.ones(6, 6, dtype=torch.float64), steps))


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 6), (8,)])
def test_states_of_before_go_on(shape: tuple[int, ...]) -> None:
    """These held the first moment as it is, outside the eigenbasis."""
    steps = gradients(30, shape)
    whole, parts = (torch.nn.Parameter(torch.ones(shape, dtype=torch.float64)) for _ in range(2))
    run(whole, steps)
    saved = run(parts, steps[:17]).state_dict()
    mean = saved["state"][0].pop("mean")
    for side, product in (("left", lambda q, m: q @ m), ("right", lambda q, m: m @ q.mT)):
        if side in saved["state"][0]:
            mean = product(saved["state"][0][f"{side}_basis"], mean)
    saved["state"][0]["first"] = mean
    run(parts, steps[17:], saved)
    torch.testing.assert_close(parts, whole)


@pytest.mark.parametrize("shape", [(12, 6), (6, 12), (12, 12), (2, 6, 12)])
def test_blocks_of_a_large_matrix_step_for_themselves(shape: tuple[int, ...]) -> None:
    steps = gradients(37, shape)
    weight = torch.nn.Parameter(torch.ones(shape, dtype=torch.float64))
    run(weight, steps, block=6)
    for rows in range(0, shape[-2], 6):
        for columns in range(0, shape[-1], 6):
            one = (..., slice(rows, rows + 6), slice(columns, columns + 6))
            wanted = [
                expected(torch.ones(6, 6, dtype=torch.float64), part)
                for part in steps[(slice(None), *one)].reshape(37, -1, 6, 6).unbind(1)
            ]
            torch.testing.assert_close(weight.detach()[one].reshape(-1, 6, 6), torch.stack(wanted))


@pytest.mark.parametrize(
    ("shape", "cut"),
    [
        ((128, 576), (3, 128, 192)),
        ((768, 128), (3, 256, 128)),
        ((17, 320, 64), (34, 160, 64)),
        ((514, 64), (1, 514, 64)),  # 2 × 257
        ((257, 64), (1, 257, 64)),  # a prime number
        ((130, 1), (130,)),
    ],
)
def test_long_sides_are_cut_into_equal_parts(shape: tuple[int, ...], cut: tuple[int, ...]) -> None:
    weight = torch.nn.Parameter(torch.ones(shape))
    assert run(weight, torch.ones(1, *shape)).state[weight]["mean"].shape == cut


def test_a_state_of_before_stays_whole() -> None:
    """Large matrices were not cut then."""
    steps = gradients(30, (10, 12))
    whole, parts = (torch.nn.Parameter(torch.ones(10, 12, dtype=torch.float64)) for _ in range(2))
    run(whole, steps, block=12)
    saved = run(parts, steps[:17], block=12).state_dict()
    del saved["param_groups"][0]["block"]
    run(parts, steps[17:], saved, block=5)
    torch.testing.assert_close(parts, whole)
