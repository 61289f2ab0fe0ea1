"""Tests of the fast backward paths: memory formats at batch norms, and strided convolutions in bf16 on a CPU."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import igcv
from igcv.models import FORMS, InvertedResidual, channel_shuffle, gradients, set_form
from igcv.models.blocks import conv2d
from igcv.models.gradients import StridedConv2d, convolution_gradients, memory_format

# networks of every family, with the forms of their blocks
CASES = [
    *(
        (name, form)
        for name in ("igcv3_d_025", "igcv3_g4g2_025", "igcv3_w_025")
        for form in ("literal", *FORMS)
    ),
    *((name, form) for name in ("igcv1_l24m2_d20", "igcv1_l8m4_d20_ident") for form in ("literal", "dense")),
    *((name, form) for name in ("igcv2_c64_d20", "igcv2_mobilenet_025") for form in ("literal", "dense")),
    ("igcv1_l4m32_imagenet18", "literal"),
    ("igcv3_d_p50", "auto"),
    ("mobilenetv2_025", "literal"),
    ("mobilenetv2_025_mxnet", "literal"),
]
LAYOUTS = [torch.channels_last, torch.contiguous_format]


class BatchNormCalls(TorchDispatchMode):
    """Recorder of the memory formats of input and gradient in each batch-norm backward pass, also inside the forms."""

    def __init__(self):
        super().__init__()
        self.formats = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "batch_norm_backward" in func.name():
            grad, x = args[:2]
            self.formats.append((x.is_contiguous(memory_format=memory_format(grad)), x.shape, grad.stride()))
        return func(*args, **(kwargs or {}))


def step(network, x, loss=lambda network, x: network(x).square().mean()):
    """Return the memory formats in a forward and backward pass."""
    with BatchNormCalls() as calls:
        loss(network, x).backward()
    return calls.formats


def made(name, layout, **options):
    """Return a network in training mode and three images of odd size, for which strided layers round."""
    torch.manual_seed(0)
    network = igcv.create_model(name, 5, input_size=32, **options).to(memory_format=layout).train()
    return network, torch.randn(3, 3, 36, 33).contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", LAYOUTS, ids=["last", "first"])
@pytest.mark.parametrize(("name", "form"), CASES)
def test_batch_norms_get_gradients_in_the_format_of_their_input(name, form, layout):
    network, x = made(name, layout)
    chosen = set_form(network, form)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    blocks = dict(network.named_modules())
    folded = sum(f != "literal" and isinstance(blocks[name], InvertedResidual) for name, f in chosen.items())
    formats = step(network, x)
    assert len(formats) == norms - folded  # the forms fold the first batch norm of a block
    assert all(same for same, *_ in formats), formats


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pool", ["avg", "max", "avgmax", "catavgmax", ""])
def test_whatever_reads_the_features(pool, precision):
    network, x = made("mobilenetv2_025", torch.channels_last, global_pool=pool or "avg")

    def features(network, x):
        return (network.forward_features if not pool else network)(x).mean()

    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        assert all(same for same, *_ in step(network, x, features))


def test_features_alone_get_such_gradients_too():
    network, x = made("igcv3_d_025", torch.channels_last)
    formats = step(
        network, x, lambda network, x: network.stages[:3](network.stem(x)).sum((2, 3)).square().sum()
    )
    assert formats
    assert all(same for same, *_ in formats)


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_the_shuffle_keeps_the_format(groups):
    x = torch.randn(2, 12, 5, 7, dtype=torch.float64)
    grad = torch.randn_like(x)
    found = {}
    for layout in LAYOUTS:
        given = x.detach().contiguous(memory_format=layout).requires_grad_()
        out = channel_shuffle(given, groups)
        assert out.is_contiguous(memory_format=layout)
        (arriving,) = torch.autograd.grad(out, given, grad.contiguous(memory_format=layout))
        assert arriving.is_contiguous(memory_format=layout)
        found[layout] = out.detach(), arriving
    for last, first in zip(*found.values(), strict=True):
        assert torch.equal(last, first)


SIZES = [(7, 7), (8, 8), (33, 33), (9, 14), (1, 1), (2, 5)]
# input channels, output channels, kernel, groups
CONVOLUTIONS = [(6, 6, 3, 6), (6, 12, 3, 3), (8, 4, 1, 4), (4, 4, 5, 4)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["last", "first"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_gradients_of_strided_convolutions(monkeypatch, shape, size, layout):
    torch.manual_seed(0)
    c, o, k, groups = shape
    x = torch.randn(2, c, *size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(o, c // groups, k, k, dtype=torch.float64, requires_grad=True)
    out = F.conv2d(x, weight, None, 2, k // 2, groups=groups)
    grad = torch.randn_like(out)
    expected = torch.autograd.grad(out, (x, weight), grad)
    monkeypatch.setattr(gradients, "slow_input_gradient", lambda *_: True)
    found = convolution_gradients(grad, x.detach(), weight.detach(), (2, 2), (k // 2, k // 2), groups)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() <= 1e-12 * theirs.abs().max()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_gradients_of_a_strided_layer_in_bf16(monkeypatch, shape, size):
    torch.manual_seed(0)
    c, o, k, groups = shape
    monkeypatch.setattr(gradients, "FAST_BF16", True)
    ours = conv2d(c, o, k, 2, groups)
    assert type(ours) is StridedConv2d
    plain = nn.Conv2d(c, o, k, 2, k // 2, groups=groups, bias=False)
    plain.load_state_dict(ours.state_dict())
    images, grad, found = torch.randn(2, c, *size), None, []
    for layer in (ours, plain):
        x = images.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(x)
        grad = torch.randn_like(out) if grad is None else grad
        out.backward(grad)
        assert out.dtype == torch.bfloat16
        assert x.grad.dtype == layer.weight.grad.dtype == torch.float32
        found.append((out.detach(), x.grad, layer.weight.grad))
    for mine, theirs in zip(*found, strict=True):
        assert (mine - theirs).abs().max() <= 2**-8 * theirs.abs().max()


@pytest.mark.parametrize("form", ["literal", "dense"])
def test_a_strided_block_in_bf16_is_as_exact_as_before(monkeypatch, form):
    """The errors of the gradients, compared with float64, are the same with and without the fast path."""
    torch.manual_seed(0)
    block = InvertedResidual(8, 48, 8, 2, groups=(2, 2), expand="linear").train()
    x = torch.randn(4, 8, 9, 12)
    set_form(block, form)

    def gradient(fast, dtype=torch.bfloat16):
        monkeypatch.setattr(gradients, "FAST_BF16", fast)
        copied, images = copy.deepcopy(block), x.clone().requires_grad_()
        if dtype == torch.float64:
            copied, images = copied.double(), x.double().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = copied(images)
        (out.double() * torch.linspace(-1, 2, out.numel()).view_as(out)).sum().backward()
        return images.grad.double()

    exact = gradient(True, torch.float64)
    with_remedy, without = [(gradient(fast) - exact).norm() / exact.norm() for fast in (True, False)]
    assert with_remedy < 1.1 * without
    assert without < 0.2  # bf16 has 8 bits


def test_the_remedy_runs_where_it_should(monkeypatch):
    """The fast path is for bf16 with gradients only; traced, exported and evaluated networks use plain convolutions."""
    monkeypatch.setattr(gradients, "FAST_BF16", True)
    layer, x = conv2d(6, 6, 3, 2, 6), torch.randn(2, 6, 8, 8)

    def ours(x, enabled=True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            return "StridedConvolution" in type(layer(x).grad_fn).__name__

    assert ours(x.requires_grad_())
    assert not ours(x, enabled=False)
    assert not ours(x.detach())
    with torch.no_grad():
        assert not ours(x)
    assert type(conv2d(6, 6, 3, 1, 6)) is nn.Conv2d
    layer = conv2d(12, 12, 3, 2, 3)  # four channels per group
    assert not ours(torch.randn(2, 12, 8, 8, requires_grad=True))


@pytest.mark.parametrize("form", ["literal", "dense"])
def test_compiled_training_has_the_remedy(monkeypatch, form):
    monkeypatch.setattr(gradients, "FAST_BF16", True)
    torch.compiler.reset()  # PyTorch 2.11 cannot compile it after another network
    torch.manual_seed(0)
    block = InvertedResidual(8, 48, 8, 2, groups=(2, 2), expand="linear").train()
    set_form(block, form)
    found = []
    for run in (block, torch.compile(copy.deepcopy(block), backend="aot_eager", fullgraph=True)):
        x = torch.randn(2, 8, 7, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = run(x)
        out.float().square().mean().backward()
        found.append(x.grad)
    assert (found[0] - found[1]).norm() <= 0.02 * found[0].norm()


@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")  # from inside torch.func.jvp
def test_transforms_of_functions_still_work():
    """Per-image gradients and forward-mode derivatives of a literal network."""
    network, x = made("mobilenetv2_025", torch.channels_last)
    network.eval()
    parameters = dict(network.named_parameters())

    def loss(parameters, image):
        return torch.func.functional_call(network, parameters, (image[None],)).square().mean()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    alone = torch.autograd.grad(loss(parameters, x[0]), parameters["classifier.weight"])[0]
    assert torch.allclose(each["classifier.weight"][0], alone, atol=1e-5)
    _, tangent = torch.func.jvp(network, (x,), (torch.ones_like(x),))
    assert tangent.shape == (3, 5)
