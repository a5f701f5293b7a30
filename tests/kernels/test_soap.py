"""SOAP's step in the kernels beside the one in torch, from the same state."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from mdpot.errors import MdpotError
from mdpot.kernels import soap
from mdpot.training.soap import SOAP

SHAPES = [(2, 32), (32,), (18, 8), (3, 48, 32), (64, 192), (1, 32), (1,), (33, 17), (2, 5, 7), (1031, 3), (0,)]
SHAPES += [(2, 160, 33), (3, 10, 136), (132, 255)]  # cut into blocks: by rows, by columns, and by both


def optimizer(dtype: torch.dtype = torch.float32, kernels: bool = True) -> SOAP:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in SHAPES]
    parameters = [torch.nn.Parameter(w) for w in weights]
    return SOAP(parameters, lr=1e-2, weight_decay=0.1, refresh=4, block=128, kernels=kernels)


def take_steps(opt: SOAP, n: int, start: int = 0) -> torch.Tensor:
    """Steps along gradients that any optimizer of these shapes gets, and the weights after them."""
    weights = opt.param_groups[0]["params"]
    for step in range(start, start + n):
        generator = torch.Generator().manual_seed(step)
        for w in weights:
            w.grad = torch.randn(w.shape, generator=generator, dtype=torch.float64).to(w.dtype)
        opt.step()
    return torch.cat([w.detach().reshape(-1) for w in weights])


def transplant(state: dict, dtype: torch.dtype) -> dict:
    """A state in another precision."""
    state = copy.deepcopy(state)
    for kept in state["state"].values():
        for name, value in kept.items():
            kept[name] = value.to(dtype) if isinstance(value, torch.Tensor) else value
    return state


@pytest.fixture(autouse=True)
def _of(lib, monkeypatch):
    """Every instruction set in turn."""
    monkeypatch.setattr("mdpot.training.soap.find_soap", lambda: lib)


@pytest.mark.parametrize("steps", [42, 43], ids=["between-refreshments", "with-a-refreshment"])
def test_agrees_with_torch_from_the_same_state(steps):
    """Every weight and what is kept after two steps, beside torch's in float64. The averages have seen enough gradients
    to have full rank: in what they say nothing of, a basis is of rounding. The signs of eigenvectors are free."""
    begun = optimizer(kernels=False)
    take_steps(begun, steps)
    runs = {}
    for dtype, kernels in ((torch.float64, False), (torch.float32, True)):
        opt = optimizer(dtype, kernels)
        with torch.no_grad():
            for to, of in zip(opt.param_groups[0]["params"], begun.param_groups[0]["params"], strict=True):
                to.copy_(of)
        opt.load_state_dict(transplant(begun.state_dict(), dtype))
        runs[dtype] = take_steps(opt, 2, start=steps).double(), opt
    (exact, reference), (found, native) = runs[torch.float64], runs[torch.float32]
    assert (found - exact).abs().max() < 2e-5  # of steps of 1e-2
    for a, b in zip(native.state.values(), reference.state.values(), strict=True):
        for side in ("left", "right"):
            if side in b:
                torch.testing.assert_close(a[side].double(), b[side], rtol=1e-5, atol=1e-5)
                basis = a[f"{side}_basis"].double()
                assert (basis.mT @ basis - torch.eye(basis.shape[-1])).abs().max() < 1e-5
        torch.testing.assert_close(a["second"].double(), b["second"], rtol=1e-3, atol=1e-5)


def test_the_same_bits_for_any_number_of_threads(monkeypatch):
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(soap, "available_threads", lambda n=threads: n)
        found.append(take_steps(optimizer(), 9))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_an_eigenbasis_of_nothing_stays_orthonormal():
    """Gradients of zero, of one row, and all alike: averages without rank, of which QR has to make a basis."""
    weight = torch.nn.Parameter(torch.ones(20, 24))
    opt = SOAP([weight], lr=1e-3, refresh=2)
    for gradient in (
        torch.zeros(20, 24),
        torch.eye(20, 24)[:1].expand(20, 24),
        torch.ones(20, 24),
        torch.zeros(20, 24),
    ):
        weight.grad = gradient.clone()
        opt.step()
    state = opt.state[weight]
    for side in ("left_basis", "right_basis"):
        basis = state[side][0].double()
        assert (basis.T @ basis - torch.eye(len(basis))).abs().max() < 1e-5
    assert torch.isfinite(weight).all()


def test_float64_is_left_to_torch():
    with_kernels, without = (take_steps(optimizer(torch.float64, kernels), 6) for kernels in (True, False))
    assert torch.equal(with_kernels, without)


def test_state_of_an_earlier_version_goes_on():
    """It kept the first moment outside of the eigenbasis."""
    opt = optimizer(torch.float64)
    take_steps(opt, 6)
    saved = copy.deepcopy(opt.state_dict())
    for kept in saved["state"].values():
        mean = kept.pop("mean")
        if "left_basis" in kept:
            mean = kept["left_basis"] @ mean
        if "right_basis" in kept:
            mean = mean @ kept["right_basis"].mT
        kept["first"] = mean
    later = optimizer(torch.float64)
    with torch.no_grad():
        for to, of in zip(later.param_groups[0]["params"], opt.param_groups[0]["params"], strict=True):
            to.copy_(of)
    later.load_state_dict(saved)
    torch.testing.assert_close(take_steps(later, 3, start=6), take_steps(opt, 3, start=6), rtol=1e-12, atol=1e-12)


def test_what_does_not_fit_is_refused(lib):
    weight = torch.zeros(4, 4)
    state = {"mean": torch.zeros(1, 4, 4), "second": torch.zeros(1, 4, 4), "left": torch.zeros(1, 4, 4)}
    names = ["rate", "keep", "beta1", "beta2", "basis_beta", "root_scale", "eps"]
    settings: dict[str, float] = dict.fromkeys(names, 0.5)
    with pytest.raises(MdpotError, match="without what they need"):
        soap.SoapRows(lib, [(weight, state)]).step([torch.zeros(4, 4)], settings)
    with pytest.raises(MdpotError, match="'mean' must be contiguous"):
        soap.SoapRows(lib, [(weight, state | {"mean": torch.zeros(1, 4, 4).mT})])


def test_what_has_no_eigenbasis_leaves_the_threads_alone(monkeypatch):
    """Vectors, and matrices whose sides are too long: a refreshment that has nothing to do."""
    monkeypatch.setattr(soap, "available_threads", lambda: 2)
    vectors = SOAP(
        [torch.nn.Parameter(torch.randn(5)), torch.nn.Parameter(torch.randn(1031, 1031))], lr=1e-3, refresh=1
    )
    matrices = SOAP([torch.nn.Parameter(torch.randn(64, 64)) for _ in range(2)], lr=1e-3, refresh=1)
    for _ in range(20):
        for opt in (vectors, matrices):
            for w in opt.param_groups[0]["params"]:
                w.grad = torch.randn_like(w)
            opt.step()
    assert all(torch.isfinite(w).all() for opt in (vectors, matrices) for w in opt.param_groups[0]["params"])


def test_others_see_that_weights_have_changed():
    """`TrainingKernel` follows weights by torch's count of their changes."""
    opt = optimizer()
    take_steps(opt, 1)
    weights = [w for w in opt.param_groups[0]["params"] if w.numel()]
    before = [w._version for w in weights]
    take_steps(opt, 1, start=1)
    assert all(w._version > version for w, version in zip(weights, before, strict=True))


def test_gradients_and_states_may_lie_in_any_order_in_memory():
    """As earlier versions kept eigenvectors, by columns, and moments of what is no matrix, in its shape."""
    weights = [torch.nn.Parameter(torch.ones(shape)) for shape in ((4, 3), (5, 1), (3, 1, 1), ())]
    opt = SOAP(weights, lr=1e-3)

    def step() -> None:
        for n, w in enumerate(weights):
            generator = torch.Generator().manual_seed(n)
            w.grad = torch.randn(w.shape[::-1], generator=generator).permute(tuple(range(w.ndim))[::-1])
        opt.step()

    step()
    step()
    saved = copy.deepcopy(opt.state_dict())
    for kept, w in zip(saved["state"].values(), weights, strict=True):
        for side in ("left_basis", "right_basis"):
            if side in kept:
                kept[side] = kept[side].mT.contiguous().mT
        if "left_basis" not in kept:
            kept["mean"], kept["second"] = (kept[name].reshape(w.shape) for name in ("mean", "second"))
    values = [w.detach().clone() for w in weights]
    step()
    wanted = [w.detach().clone() for w in weights]
    with torch.no_grad():
        for w, value in zip(weights, values, strict=True):
            w.copy_(value)
    opt.load_state_dict(saved)
    step()
    for w, value in zip(weights, wanted, strict=True):
        torch.testing.assert_close(w, value, rtol=0, atol=1e-7)


def test_a_copy_goes_on():
    opt = pickle.loads(pickle.dumps(optimizer()))
    assert torch.isfinite(take_steps(opt, 2)).all()
