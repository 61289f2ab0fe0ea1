"""Tests of every form against the literal layers: results, gradients and statistics, in training and evaluation."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import igcv
from igcv.errors import InputError
from igcv.models import (
    FORMS,
    InterleavedConv,
    InvertedResidual,
    Options,
    blocks_with_forms,
    channel_shuffle,
    set_form,
)
from igcv.models.forms import channel_order, written_out
from igcv.models.fused import applies
from igcv.models.inverted import Stage, inverted_residual_network
from igcv.training.choose_forms import measure_forms

# C, E, O, stride, (G1, G2); 10 / (2 * 2) and 40 / (4 * 4) are not integers, so readers have unequal sources
SHAPES = [
    (4, 24, 4, 1, (2, 2)),
    (6, 36, 10, 2, (2, 2)),
    (10, 10, 10, 1, (2, 2)),
    (8, 40, 8, 1, (4, 4)),
    (4, 24, 12, 2, (2, 4)),
    (12, 36, 6, 1, (3, 2)),
    (5, 15, 5, 1, (1, 1)),
]


def block(c, e, o, stride, groups):
    """Return a block in float64 with batch norms that are not the identity."""
    torch.manual_seed(c * e + o)
    made = InvertedResidual(
        c, e, o, stride, groups=groups, shortcut=c == o and stride == 1, expand="linear"
    ).double()
    unsettle(made)
    return made


def unsettle(module):
    """Give the batch norms random scales, offsets and running statistics."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.3)
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 1.5)


def outcome(module, x, form):
    """Return the output, the gradients of input and parameters, and the buffers after a step in a form."""
    module = copy.deepcopy(module).train()
    set_form(module, form)
    x = x.clone().requires_grad_()
    out = module(x)
    (out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    grads = {name: p.grad for name, p in module.named_parameters()}
    return {
        "out": out.detach(),
        "x.grad": x.grad,
        **grads,
        **{n: b.double() for n, b in module.named_buffers()},
    }


def assert_equal(expected, found, tolerance=1e-12):
    """Compare relative to the largest entry of each tensor; for zero gradients, to the largest of all gradients."""
    assert expected.keys() == found.keys()
    largest = max(tensor.abs().max().item() for tensor in expected.values())
    for name, tensor in expected.items():
        scale = max(tensor.abs().max().item(), 1e-3 * largest)
        assert (found[name] - tensor).abs().max().item() <= tolerance * scale, name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_block_is_the_literal_one(shape, form):
    made, x = block(*shape), torch.randn(3, shape[0], 7, 6, dtype=torch.float64)
    assert_equal(outcome(made, x, "literal"), outcome(made, x, form))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_block_with_running_statistics(shape, form):
    made, x = block(*shape).eval(), torch.randn(3, shape[0], 7, 6, dtype=torch.float64)
    with torch.no_grad():
        literal = made(x)
        set_form(made, form)
        assert applies(made, x)
        assert (made(x) - literal).abs().max() <= 1e-12 * literal.abs().max()


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_derivatives(form):
    made = block(4, 12, 4, 1, (2, 2)).train()
    set_form(made, form)
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*made.named_parameters(), strict=True)

    def of(x, *values):
        return torch.func.functional_call(made, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(of, (x, *parameters), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("form", ["auto", *FORMS])
@pytest.mark.parametrize(
    "name",
    [
        "igcv3_d_025",
        "igcv3_w_025",
        "igcv3_g4g2_025",
        "igcv3_d_069",
        "igcv1_l24m2_d20",
        "igcv1_l8m4_d20_ident",
    ],
)
def test_a_network_is_the_literal_one(name, form):
    torch.manual_seed(0)
    network = igcv.create_model(name, 5, input_size=32).double()
    x = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    assert_equal(outcome(network, x, "literal"), outcome(network, x, form), 1e-10)


def test_an_igcv2_block_is_one_matrix_when_dense():
    torch.manual_seed(0)
    network = igcv.create_model("igcv2_c416_d20", 5)
    conv = next(m for m in network.modules() if isinstance(m, InterleavedConv) and len(m.convs) > 2).double()
    x = torch.randn(2, conv.convs[0].in_channels, 4, 4, dtype=torch.float64)
    assert_equal(outcome(conv, x, "literal"), outcome(conv, x, "dense"))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_order_is_the_permutation(shape):
    c, e, o, _, (g1, g2) = shape
    numbers = torch.arange(e, dtype=torch.float32).view(1, e, 1, 1)
    shuffled = channel_shuffle(numbers, g1).flatten()  # the row at each position
    for form in FORMS:
        order = channel_order(form, (c, e, o), (g1, g2))
        assert shuffled[order.place].tolist() == order.made.tolist()
        assert sorted(order.made.tolist()) == list(range(e))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_hold_all_that_is_not_zero(shape, form):
    c, e, o, _, groups = shape
    made = block(*shape)
    order = channel_order(form, (c, e, o), groups)
    expansion = written_out(made.expand.conv)[order.made]
    projection = written_out(made.project.conv)[:, order.place]
    for matrix, blocks, blockwise in zip(
        (expansion, projection), (order.expansion, order.projection), FORMS[form], strict=True
    ):
        inside = torch.zeros_like(matrix)
        for rows, columns in blocks:
            inside[rows, columns] += 1
        assert inside.max() == 1  # each entry at most once
        assert torch.equal(inside * matrix, matrix)
        if blockwise:  # and only nonzero entries
            assert torch.equal(inside, (matrix != 0).double())


@pytest.mark.parametrize("offset", [0, 30])
@pytest.mark.parametrize("form", FORMS)
def test_float32_is_within_a_few_roundings(form, offset):
    """The statistics follow from a covariance, and stay accurate for an input far from zero."""
    made = block(8, 48, 8, 1, (2, 2))
    x = torch.randn(16, 8, 16, 16, dtype=torch.float64) + offset
    exact, found = outcome(made, x, "literal"), outcome(copy.deepcopy(made).float(), x.float(), form)
    for name in ("out", "x.grad", "depthwise.norm.running_var", "expand.norm.running_var"):
        error = (found[name].double() - exact[name]).norm() / exact[name].norm()
        assert error < 16 * torch.finfo(torch.float32).eps, name


def test_checkpoints_do_not_know_forms():
    literal, other = (igcv.create_model("igcv3_d_025", 5) for _ in range(2))
    chosen = set_form(other, "partial_sums")
    assert set(chosen.values()) == {"partial_sums"}
    assert literal.state_dict().keys() == other.state_dict().keys()
    other.load_state_dict(literal.state_dict())


def test_half_precision_stays_as_close_as_the_literal_layers():
    torch.manual_seed(0)
    made = InvertedResidual(8, 48, 8, groups=(2, 2), shortcut=True, expand="linear")
    x = torch.randn(4, 8, 8, 8)
    exact = outcome(copy.deepcopy(made).double(), x.double(), "literal")["out"]
    errors = {}
    for form in ("literal", *FORMS):
        set_form(made, form)
        with torch.autocast("cpu", torch.bfloat16):
            out = copy.deepcopy(made).train()(x)
        errors[form] = (out.double() - exact).norm() / exact.norm()
    assert 0 < errors["literal"] < 0.02
    assert max(errors.values()) < 1.5 * errors["literal"]


def test_what_the_forms_cannot_stand_in_for_stays_literal():
    made, x = block(4, 24, 4, 1, (2, 2)), torch.randn(2, 4, 5, 5, dtype=torch.float64)
    assert not applies(made, x)
    set_form(made, "dense")
    assert applies(made, x)
    synchronized = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(made))
    assert not applies(synchronized, x)
    assert not applies(made.eval(), x)  # would need gradients with running statistics
    with torch.no_grad():
        assert applies(made, x)
        made.expand.train()
        assert not applies(made, x)  # different modes
    assert blocks_with_forms(igcv.create_model("mobilenetv2_050", 5)) == {}


def test_frozen_batch_norms_still_give_gradients():
    made, x = block(4, 24, 4, 1, (2, 2)).eval(), torch.randn(2, 4, 5, 5, dtype=torch.float64)
    set_form(made, "dense")
    made(x).sum().backward()
    assert made.expand.conv.weight.grad is not None


def test_cumulative_running_statistics():
    made, x = block(4, 24, 4, 1, (2, 2)), torch.randn(2, 4, 5, 5, dtype=torch.float64)
    for norm in (made.expand.norm, made.depthwise.norm):
        norm.momentum = None
    assert_equal(outcome(made, x, "literal"), outcome(made, x, "branches"))


def test_choosing():
    network = igcv.create_model("igcv3_d_050", 5)
    forms = set(set_form(network).values())
    assert forms == {"dense", "partial_sums"}  # the default on a CPU depends on the width
    name = "stages.1.0"
    assert set_form(network, {name: "branches"})[name] == "branches"
    with pytest.raises(InputError, match=r"form 'branch'.*'branches'"):
        set_form(network, "branch")
    interleaved = igcv.create_model("igcv1_l24m2_d20", 5)
    assert set(set_form(interleaved, "branches").values()) == {"literal"}  # these blocks have no branches


def test_measuring_leaves_the_network_as_it_was():
    torch.manual_seed(0)
    network = igcv.create_model("igcv3_w_025", 5, input_size=32)
    before = copy.deepcopy(network.state_dict())
    forms = measure_forms(network, torch.randn(4, 3, 32, 32))
    assert forms.keys() == blocks_with_forms(network).keys()
    assert set(forms.values()) <= {"literal", *FORMS}
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert set_form(network, forms) == forms


def test_compiles_without_a_break():
    torch.manual_seed(0)
    made, x = block(4, 24, 4, 1, (2, 2)), torch.randn(2, 4, 5, 5, dtype=torch.float64)
    set_form(made, "partial_sums")
    expected = copy.deepcopy(made)(x)
    assert torch.allclose(torch.compile(made, backend="aot_eager", fullgraph=True)(x), expected, rtol=1e-12)


def train_losses(form, seed, steps=200):
    """Return the losses of 200 steps of plain SGD on the handwritten digits."""
    images, labels = digits()
    torch.manual_seed(seed)
    rows = (Stage(1, 16, 1, 1), Stage(6, 24, 2, 2), Stage(6, 32, 1, 2))
    options = Options(num_classes=10, input_size=8)
    network = inverted_residual_network(
        rows, lambda c: c // 4 * 2, 64, groups=(2, 2), expand="linear", first_expand="linear", options=options
    ).train()
    set_form(network, form)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(steps):
        index = torch.randint(len(labels), (32,))
        loss = F.cross_entropy(network(images[index]), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses).view(-1, 20).mean(1)  # means of 20 steps


def digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None].repeat(1, 3, 1, 1) / 8 - 1
    return images, torch.tensor(data.target)


def test_training_is_the_same_within_seed_noise():
    literal, default, other = [
        train_losses(form, seed) for form, seed in (("literal", 0), ("auto", 0), ("literal", 1))
    ]
    assert literal[-1] < 0.5 * literal[0]  # the loss decreases
    assert (default - literal).abs().mean() < (other - literal).abs().mean()
