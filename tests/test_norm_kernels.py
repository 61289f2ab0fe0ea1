"""Triton kernels of batch norm with ReLU6, computed by Triton's interpreter on the CPU."""

import importlib
import shutil
from copy import deepcopy
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igcv.models import build_model, norms, set_form

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="needs Triton's interpreter")
SHAPES = [
    (4, 8, 8, 8),  # several pixels in a row
    (3, 24, 7, 5),  # an odd number of pixels
    (2, 144, 9, 8),  # several tiles in each direction, the last ones incomplete
    (2, 200, 5, 5),
]


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    module = importlib.import_module("igcv.models.norm_kernels")
    try:
        module.normalize(torch.ones(1, 8, 2, 2), torch.ones(8), torch.ones(8), 1e-5, relu6=True)
    except Exception as error:
        if "only 0-dimensional arrays" not in str(error) or triton.__version__ >= "3.7":
            raise
        pytest.skip("the interpreter of this Triton does not work with this NumPy")
    return module


def drawn(*shape: int, dtype: torch.dtype) -> Tensor:
    return (3 * torch.randn(shape) + 5).to(dtype).to(memory_format=torch.channels_last)


def distance(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm().clamp_min(1e-12))


@pytest.mark.parametrize("relu6", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_results_gradients_and_statistics_are_those_of_float64(
    kernels: ModuleType, shape: tuple[int, ...], dtype: torch.dtype, relu6: bool
) -> None:
    torch.manual_seed(0)
    channels, rounding = shape[1], {torch.float32: 2e-6, torch.bfloat16: 5e-3}[dtype]
    x, gamma, beta = drawn(*shape, dtype=dtype), torch.rand(channels) + 0.5, torch.randn(channels)
    grad = torch.randn(shape).to(dtype).to(memory_format=torch.channels_last)
    layer, exact = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels).double()
    exact.weight.data, exact.bias.data = gamma.double(), beta.double()
    input64 = x.double().requires_grad_()
    expected = exact(input64)
    expected = F.hardtanh(expected, 0.0, 6.0) if relu6 else expected
    expected.backward(grad.double())

    out, mean, var, inverse = kernels.normalize(x, gamma, beta, layer.eps, relu6, layer)
    of_x, of_gamma, of_beta = kernels.gradients(grad, x, gamma, beta, mean, inverse, relu6)

    assert out.dtype == of_x.dtype == dtype
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert distance(out, expected.detach()) < rounding
    assert distance(of_x, input64.grad) < rounding
    # A result that rounds to 0 or 6 has no gradient, also where the exact result has one.
    tolerance = 2e-6 if dtype == torch.float32 or not relu6 else 2e-2
    assert distance(of_gamma, exact.weight.grad) < tolerance
    assert distance(of_beta, exact.bias.grad) < tolerance
    assert distance(var, x.double().var((0, 2, 3), unbiased=False)) < 2e-6
    assert distance(layer.running_mean, exact.running_mean) < 2e-6
    assert distance(layer.running_var, exact.running_var) < 2e-6
    assert layer.num_batches_tracked == 1


def test_a_mean_far_from_zero_keeps_the_variance(kernels: ModuleType) -> None:
    x = (1e4 + torch.randn(4, 8, 16, 16)).to(memory_format=torch.channels_last)
    out, mean, var, _ = kernels.normalize(x, torch.ones(8), torch.zeros(8), 1e-5, relu6=False)
    assert distance(var, x.double().var((0, 2, 3), unbiased=False)) < 1e-5
    assert distance(mean, x.double().mean((0, 2, 3))) < 1e-6
    assert distance(out, F.batch_norm(x.double(), None, None, training=True)) < 1e-3


def gradients(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return the gradients of a training step and the running statistics after it, in float64."""
    F.cross_entropy(network(images), torch.arange(len(images))).backward()
    found = {name: parameter.grad for name, parameter in network.named_parameters()}
    return {name: value.double() for name, value in (found | dict(network.named_buffers())).items()}


@pytest.mark.parametrize("form", ["literal", "dense", "partial_sums"])
def test_a_network_has_the_gradients_of_float64(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    torch.manual_seed(0)
    network = build_model("igcv3_w_010", 5, input_size=16).to(memory_format=torch.channels_last).train()
    set_form(network, form)
    images = torch.randn(4, 3, 16, 16).to(memory_format=torch.channels_last)
    expected = gradients(deepcopy(network).double(), images.double())
    shapes = []

    def on_any_device(layer: nn.Module, x: Tensor) -> bool:
        return type(layer) is nn.BatchNorm2d and layer.training

    def noted(x: Tensor) -> bool:
        shapes.append(x.shape)
        return x.is_contiguous(memory_format=torch.channels_last)

    monkeypatch.setattr(norms, "applies", on_any_device)
    monkeypatch.setattr(norms, "has_kernels", noted)
    for name, value in gradients(network, images).items():
        difference = (value - expected[name]).norm()
        # Rounding at the edges of ReLU6 alone changes single gradients by up to 1 %.
        assert difference <= 0.05 * (expected[name].norm() + 1e-3), name
    hidden = network.stages[1][0].depthwise.conv.out_channels
    assert any(shape[1] == hidden for shape in shapes)  # also inside the blocks


def test_kernels_are_for_gpus_only() -> None:
    x = torch.ones(2, 8, 4, 4).to(memory_format=torch.channels_last)
    assert not norms.has_kernels(x)
    assert not norms.applies(nn.BatchNorm2d(8), x)
