"""SOAP against its equations, one step a line, with nothing kept in the eigenbasis but the second moment."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mdpot.training.soap import SOAP

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


def run(weight: Tensor, steps: Tensor, state: dict | None = None) -> SOAP:
    """Takes the steps, in place."""
    optimizer = SOAP([weight], RATE, weight_decay=DECAY)
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
