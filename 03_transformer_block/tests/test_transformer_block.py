"""Module 03. `impl` is the reference in one run of each test and your exercises in the other."""

import inspect
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tiny_transformer.multihead.reference import MultiHeadAttention
from tiny_transformer.setup.grading.doors import calls, unused
from tiny_transformer.setup.grading.examples import the_example_is_true
from tiny_transformer.setup.grading.habits import HABITS, has_parameters, is_dropped_out, listed
from tiny_transformer.transformer_block.reference import LayerNorm, RMSNorm

tanh_gelu = partial(F.gelu, approximate="tanh")


def randomize(module):
    """Move every parameter off its start: a scale of 1 or a bias of 0 hides its absence."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) / 4)
    return module


def same(a, b):
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)


def keeps_its_digits(got, wanted):
    """That two results agree in float64, and by more than the digits of float32."""
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)
    off = (got - wanted).abs().max().item()
    assert torch.allclose(got, wanted, rtol=1e-9, atol=1e-9), (
        f"float64 numbers went in, and what came out is off by up to {off:.0e}, as much as float32 "
        "rounds off; float64 is far more exact. Do they pass through float32 on the way "
        "(.float(), a dtype that is fixed), or has a constant too few digits?"
    )


def has_the_gradients(got, wanted, inputs):
    """That two results which agree have the same gradients with respect to the named inputs."""
    keeps_its_digits(got, wanted)
    gradients = [
        torch.autograd.grad(out.pow(3).sum(), list(inputs.values())) for out in (got, wanted)
    ]
    for name, yours, ours in zip(inputs, *gradients, strict=True):
        assert torch.allclose(yours, ours), (
            f"its numbers are right, and their gradient with respect to {name} is not. Every step "
            f"from {name} to the result belongs to the graph: detach(), no_grad, .data and .item() "
            "take one out."
        )


def is_random(module, x):
    return not same(module(x.clone()), module(x.clone()))


NOT_ASKED_FOR = (
    "built without `dropout`, which is then 0, it gives different numbers for the same input: "
    "something is drawn at random that nobody has asked for."
)
NOT_AT_REST = (
    "after .eval() two calls with the same input give different numbers: in evaluation dropout "
    "must rest."
)


@pytest.mark.exercise("gelu")
class TestGelu:
    @pytest.mark.parametrize("habit", HABITS)
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.gelu, torch.randn(2, 5, 8))

    def test_the_constants_inside_the_tanh(self, impl):
        x = torch.tensor([0.5, 1.0, 0.25, 1.5], dtype=torch.float64)
        got, wanted = impl.gelu(x.clone()).double(), tanh_gelu(x)
        factor = got[0] / wanted[0]
        assert abs(factor - 1) < 1e-3 or not torch.allclose(got, factor * wanted), (
            f"every number is {factor:.4g} times what it should be."
        )
        inner = torch.atanh(2 * got / x - 1)  # of x / 2 (1 + tanh(inner))
        a, b = torch.linalg.solve(torch.stack((x, x**3), dim=1)[:2], inner[:2]).tolist()
        if not torch.allclose(inner, a * x + b * x**3):  # it has another form
            pytest.fail("it is not of the form x / 2 (1 + tanh(a x + b x^3)), whatever a and b.")
        assert (a, b) == pytest.approx((0.797885, 0.035677), abs=2e-6), (
            f"by its results your tanh is of {a:.6f} x + {b:.6f} x^3; it should be of sqrt(2 / pi) "
            "(x + 0.044715 x^3), which is 0.797885 x + 0.035677 x^3. One of the constants differs, "
            "or where a parenthesis ends."
        )

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_agrees_with_torch(self, impl, dtype):
        x = torch.linspace(-6, 6, 101, dtype=dtype).view(1, 101)
        got = impl.gelu(x)
        if dtype == torch.float64:
            keeps_its_digits(got, tanh_gelu(x))
        torch.testing.assert_close(got, tanh_gelu(x))

    def test_its_gradient_agrees_with_torch(self, impl):
        x = torch.linspace(-6, 6, 101, dtype=torch.float64, requires_grad=True)
        has_the_gradients(impl.gelu(x), tanh_gelu(x), {"x": x})

    def test_far_from_0_it_is_a_gate_fully_shut_or_fully_open(self, impl):
        x = torch.tensor([-1e4, -50.0, 0.0, 50.0, 1e4])
        torch.testing.assert_close(impl.gelu(x.clone()), x.relu())

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "gelu")


class NormTests:
    """What the two norms have in common; each subclass has its `name` and what is its own."""

    def build(self, impl, d_model, **options):
        return randomize(getattr(impl, self.name)(d_model, **options))

    def test_it_has_the_parameters_of_the_course(self, impl):
        has_parameters(getattr(impl, self.name)(8), self.shapes)

    def test_starts_with_scale_1_and_shift_0(self, impl):
        norm = getattr(impl, self.name)(8)
        for name, start in zip(self.shapes, (1.0, 0.0), strict=False):
            learned = getattr(norm, name).tolist()
            assert learned == [start] * 8, (
                f"its {name} starts as {', '.join(f'{number:.3g}' for number in learned)}; all "
                f"should be {start:.0f}, so that at first it normalizes and does no more."
            )

    @pytest.mark.parametrize("habit", HABITS)
    def test_it_has_good_habits(self, impl, habit):
        habit(self.build(impl, 8), torch.randn(2, 5, 8))

    def test_silence_stays_finite(self, impl):
        norm, zeros = self.build(impl, 8), torch.zeros(2, 8)
        out = norm(zeros)
        assert out.isfinite().all(), (
            f"features that are all 0 went in and {out.flatten()[0].item()} came out. With eps "
            "added under the root nothing is divided by 0, and the root is of no negative number."
        )
        torch.testing.assert_close(out, self.expected(norm, zeros))

    def test_each_position_is_normalized_by_itself(self, impl):
        norm, x = self.build(impl, 8), 3 * torch.randn(2, 5, 8) + 1
        among_others, alone = norm(x.clone()), norm(x[:1, :1].clone())
        assert same(among_others[:1, :1], alone), (
            "a position gives other numbers among others than alone: each is normalized by itself, "
            "over its own features."
        )

    @pytest.mark.parametrize("shape", [(2, 5, 8), (1, 1, 3), (4, 2), (8,)])
    def test_agrees_with_torch(self, impl, shape):
        norm = self.build(impl, shape[-1])
        x = 3 * torch.randn(shape) + 1
        torch.testing.assert_close(norm(x), self.expected(norm, x))

    def test_what_is_normalized_goes_through_what_it_learns(self, impl):
        fresh, used = getattr(impl, self.name)(8), self.build(impl, 8)
        x = 3 * torch.randn(2, 5, 8) + 1
        torch.testing.assert_close(fresh(x.clone()), self.expected(fresh, x))
        assert same(used(x.clone()), self.expected(used, x)), (
            f"while {self.start} it is right, with other numbers there it is not: it should give "
            f"{self.formula}, feature by feature."
        )

    @pytest.mark.parametrize("eps", [1e-5, 0.1])
    def test_the_eps_it_is_given_stands_under_the_root(self, impl, eps):
        norm = getattr(impl, self.name)(8, eps=eps)
        self.adds(norm, eps, f"It was built with eps={eps}: is that kept, and used?")

    def test_eps_is_1e_5_where_none_is_given(self, impl):
        norm = getattr(impl, self.name)(8)
        self.adds(norm, 1e-5, "It was built without an eps, which is then 1e-05.")

    def adds(self, norm, eps, told):
        norm = norm.double()
        nn.init.ones_(norm.weight)  # whatever it starts as
        x = torch.randn(2, 8, dtype=torch.float64)
        loud, faint = 100 * x, 1e-3 * x  # a variance much larger than eps, and one smaller
        torch.testing.assert_close(
            norm(loud.clone()), self.expected(norm, loud, eps), rtol=1e-4, atol=1e-4
        )
        out, spread = norm(faint.clone()), self.spread(faint)
        added = (spread / out).square() - spread.square().mean(-1, keepdim=True)
        first = added.flatten()[0]
        if first.isfinite() and torch.allclose(added, first, rtol=1e-3, atol=1e-12):  # for all
            assert torch.allclose(first, torch.tensor(eps).double(), rtol=1e-3), (
                "where features hardly vary, it divides as if "
                f"{max(first.item(), 0):.2g} were added under the root. {told}"
            )
        torch.testing.assert_close(out, self.expected(norm, faint, eps), rtol=1e-4, atol=1e-5)

    def test_its_gradients_agree_with_torch(self, impl):
        norm = self.build(impl, 8).double()
        x = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
        inputs = {"x": x, **dict(norm.named_parameters())}
        has_the_gradients(norm(x), self.expected(norm, x), inputs)

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, self.name)


@pytest.mark.exercise("LayerNorm")
class TestLayerNorm(NormTests):
    name = "LayerNorm"
    shapes = {"weight": (8,), "bias": (8,)}
    start = "weight is 1 and bias 0"
    formula = "normalized * weight + bias"

    def expected(self, norm, x, eps=1e-5):
        return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, eps)

    def spread(self, x):
        return x - x.mean(dim=-1, keepdim=True)

    def test_a_large_offset_costs_no_precision(self, impl):
        norm = self.build(impl, 8)
        x = torch.randn(4, 8)
        torch.testing.assert_close(norm(x.clone()), self.expected(norm, x))
        x = x + 1000
        expected = self.expected(norm.double(), x.double()).float()
        # float32 holds numbers near 1000 to 6e-5; E[x^2] - E[x]^2 would be off by 0.1.
        assert torch.allclose(norm.float()(x), expected, rtol=0, atol=1e-3), (
            "features around 0 come out right, features around 1000 lose their digits: take the "
            "variance from x - mean. E[x^2] and mean^2 are both near a million there, and of "
            "their difference little is left."
        )


@pytest.mark.exercise("RMSNorm")
class TestRMSNorm(NormTests):
    name = "RMSNorm"
    shapes = {"weight": (8,)}
    start = "weight is 1"
    formula = "normalized * weight"

    def expected(self, norm, x, eps=1e-5):
        return F.rms_norm(x, x.shape[-1:], norm.weight, eps)

    def spread(self, x):
        return x


def up_gelu_down(layer, x):
    hidden = tanh_gelu(F.linear(x, layer.up.weight, layer.up.bias))
    return F.linear(hidden, layer.down.weight, layer.down.bias)


@pytest.mark.exercise("FeedForward")
class TestFeedForward:
    def test_it_has_the_parameters_of_the_course(self, impl):
        shapes = {"up.weight": (24, 8), "up.bias": (24,), "down.weight": (8, 24), "down.bias": (8,)}
        has_parameters(impl.FeedForward(8, 24), shapes)

    @pytest.mark.parametrize("habit", HABITS)
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.FeedForward(8, 24), torch.randn(2, 5, 8))

    def test_without_dropout_nothing_is_random(self, impl):
        assert not is_random(impl.FeedForward(8, 24), torch.randn(2, 5, 8)), NOT_ASKED_FOR

    @pytest.mark.parametrize("shape", [(2, 5, 8), (1, 1, 8), (8,)])
    def test_is_up_then_gelu_then_down(self, impl, shape):
        layer = randomize(impl.FeedForward(8, 24))
        x = torch.randn(shape)
        torch.testing.assert_close(layer(x), up_gelu_down(layer, x))

    def test_each_position_is_worked_on_alone(self, impl):
        layer = impl.FeedForward(8, 24)
        x = torch.randn(2, 5, 8)
        order = torch.tensor([3, 0, 4, 1, 2])
        torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order])

    def test_dropout_acts_on_the_output_in_training(self, impl):
        layer = randomize(impl.FeedForward(8, 24, dropout=0.25))
        x = torch.randn(8, 32, 8)
        noisy, whole = layer(x), layer.eval()(x)
        torch.testing.assert_close(whole, up_gelu_down(layer, x))
        is_dropped_out(noisy, whole, 0.25)

    def test_dropout_rests_in_evaluation(self, impl):
        layer = impl.FeedForward(8, 24, dropout=0.5).eval()
        x = torch.randn(2, 5, 8)
        assert not is_random(layer, x), NOT_AT_REST
        torch.testing.assert_close(layer(x), up_gelu_down(layer, x))


def linear(name, d_in, d_out):
    return {f"{name}.weight": (d_out, d_in), f"{name}.bias": (d_out,)}


NORM = {"weight": (16,), "bias": (16,)}
PROJECTIONS = "q_proj", "k_proj", "v_proj", "out_proj"
PARTS = {  # what each part of a block of 16 features and d_ff 40 is, and what it learns
    "ln_1": ("LayerNorm", NORM),
    "ln_2": ("LayerNorm", NORM),
    "attention": (
        "MultiHeadAttention",
        {k: shape for name in PROJECTIONS for k, shape in linear(name, 16, 16).items()},
    ),
    "feed_forward": ("FeedForward", linear("up", 16, 40) | linear("down", 40, 16)),
}


def silenced(block, half):
    """The block, one half of which adds nothing."""
    last = block.attention.out_proj if half == "attention" else block.feed_forward.down
    norm = block.ln_1 if half == "attention" else block.ln_2
    for parameter in (last.weight, last.bias, norm.bias):  # the norm may stand behind its half
        nn.init.zeros_(parameter)
    return block


def adds_its_half(block, out, x, half, norm, other):
    """That a block whose other half gives 0 has given x and what `half` makes of it, normalized."""
    f, n, m = (getattr(block, name) for name in (half, norm, other))
    due, silent = x + f(n(x)), "feed_forward" if half == "attention" else "attention"
    instead = {
        "0": torch.zeros_like(x),
        "x alone": x,
        f"{half}({norm}(x)) alone": f(n(x)),
        f"{half}(x) alone": f(x),
        f"x + {half}(x)": x + f(x),
        f"x + x + {half}({norm}(x))": x + due,
        f"x + {half}({norm}(x)) twice": due + f(n(x)),
        f"x + {norm}({half}(x))": x + n(f(x)),
        f"x + {norm}({half}({norm}(x)))": x + n(f(n(x))),
        f"x + {half}({other}(x))": x + f(m(x)),
        f"x + {half}({norm}(0))": x + f(n(torch.zeros_like(x))),
        f"{norm}(x) + {half}({norm}(x))": n(x) + f(n(x)),
        f"{norm}(x + {half}(x))": n(x + f(x)),
        f"{norm} of x + {half}({norm}(x))": n(due),
        f"{other} of x + {half}({norm}(x))": m(due),
        f"{other}(x) + {half}({norm}({other}(x)))": m(x) + f(n(m(x))),
        f"{other}(x) alone": m(x),
        f"{norm}(x) alone": n(x),
    }
    came = next((words for words, numbers in instead.items() if same(out, numbers)), None)
    assert same(out, due), (
        f"where {silent} gives 0 the block should give x + {half}({norm}(x)), the stream as it "
        f"came and what {half} makes of a normalized copy of it; it gives "
        f"{came or 'something else'}."
    )


def torch_twin(block):
    """torch's own Pre-LN layer with the weights of a block of 16 features, 4 heads and d_ff 40."""
    twin = nn.TransformerEncoderLayer(
        16, 4, 40, dropout=0.0, activation=tanh_gelu, batch_first=True, norm_first=True
    )
    attention = block.attention
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    pairs = (
        (twin.self_attn.out_proj, attention.out_proj),
        (twin.linear1, block.feed_forward.up),
        (twin.linear2, block.feed_forward.down),
        (twin.norm1, block.ln_1),
        (twin.norm2, block.ln_2),
    )
    with torch.no_grad():
        twin.self_attn.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        twin.self_attn.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
        for theirs, ours in pairs:
            theirs.weight.copy_(ours.weight)
            theirs.bias.copy_(ours.bias)
    return twin


@pytest.mark.exercise("TransformerBlock")
class TestTransformerBlock:
    def test_its_parts_have_the_names_of_the_course(self, impl):
        parts = impl.TransformerBlock(16, 4, 40)._modules
        missing = sorted(PARTS.keys() - parts.keys())
        assert not missing, (
            f"it has no part called {', '.join(missing)}; its parts are "
            f"{', '.join(parts) or 'none'}. Saved weights go by the names."
        )
        assert parts["ln_1"] is not parts["ln_2"], (
            "its ln_1 and ln_2 are one and the same norm. Each half needs one of its own, with a "
            "scale and an offset that it learns for itself."
        )

    @pytest.mark.parametrize("part", ["ln_1", "ln_2", "attention", "feed_forward"])
    def test_each_part_is_what_the_course_puts_there(self, impl, part):
        made, (kind, shapes) = getattr(impl.TransformerBlock(16, 4, 40), part), PARTS[part]
        found = {name: tuple(parameter.shape) for name, parameter in made.named_parameters()}
        assert found == shapes, (
            f"the {part} of a TransformerBlock(16, 4, 40) is of the class {type(made).__name__}, "
            f"with the parameters {listed(found)}; it should be a {kind}, with {listed(shapes)}."
        )

    @pytest.mark.parametrize("habit", HABITS)
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.TransformerBlock(16, 4, 40), torch.randn(2, 5, 16))

    def test_without_dropout_nothing_is_random(self, impl):
        block = randomize(impl.TransformerBlock(16, 4, 40))
        assert not is_random(block, torch.randn(2, 6, 16)), NOT_ASKED_FOR

    @pytest.mark.parametrize("B, T", [(2, 6), (1, 1)])
    def test_agrees_with_torch(self, impl, B, T):
        block = randomize(impl.TransformerBlock(16, 4, 40))
        hidden = torch.ones(T, T, dtype=torch.bool).triu(1)  # True forbids, in torch.nn
        x = 3 * torch.randn(B, T, 16) + 1
        torch.testing.assert_close(block(x), torch_twin(block)(x, src_mask=hidden))

    def test_without_the_network_it_adds_attention_to_the_stream(self, impl):
        block = silenced(randomize(impl.TransformerBlock(16, 4, 40)), "feed_forward")
        x = 3 * torch.randn(2, 6, 16) + 1
        adds_its_half(block, block(x.clone()), x, "attention", "ln_1", "ln_2")

    def test_without_attention_it_adds_the_network_to_the_stream(self, impl):
        block = silenced(randomize(impl.TransformerBlock(16, 4, 40)), "attention")
        x = 3 * torch.randn(2, 6, 16) + 1
        adds_its_half(block, block(x.clone()), x, "feed_forward", "ln_2", "ln_1")

    def test_the_future_cannot_change_the_past(self, impl):
        block = impl.TransformerBlock(16, 4, 40)
        x = torch.randn(2, 6, 16)
        before = block(x.clone())
        x[:, 4:] = torch.randn(2, 2, 16)
        after = block(x)
        assert same(after[:, :4], before[:, :4]), (
            "positions 4 and 5 were changed, and what comes out at 0 to 3 changed with them: no "
            "position may read a later one. Attention does not where it is causal."
        )

    def test_its_attention_has_the_heads_that_were_asked_for(self, impl):
        attention, expected = impl.TransformerBlock(16, 4, 40).attention, MultiHeadAttention(16, 4)
        expected.load_state_dict(attention.state_dict())
        x = torch.randn(2, 6, 16)
        assert same(attention(x), expected(x)), (
            "the attention of a TransformerBlock(16, 4, 40) gives other numbers than "
            "MultiHeadAttention(16, 4) with the same weights: hand it d_model and n_heads."
        )

    def test_its_gradient_agrees_with_torch(self, impl):
        block = randomize(impl.TransformerBlock(16, 4, 40)).double()
        hidden = torch.ones(6, 6, dtype=torch.bool).triu(1)
        x = torch.randn(2, 6, 16, dtype=torch.float64, requires_grad=True)
        expected = torch_twin(block).double()(x, src_mask=hidden)
        has_the_gradients(block(x), expected, {"x": x})

    def test_the_gradient_reaches_every_parameter(self, impl):
        block = randomize(impl.TransformerBlock(16, 4, 40))
        block(torch.randn(2, 6, 16)).square().sum().backward()
        unreached = {
            name
            for name, parameter in block.named_parameters()
            if parameter.grad is None or not parameter.grad.any()
        }
        # A key bias adds the same to every score of a query, which the softmax ignores.
        unreached -= {"attention.k_proj.bias"}
        assert not unreached, (
            f"no gradient reaches its {', '.join(sorted(unreached))}: the result does not depend "
            "on it, or the graph is cut."
        )

    @pytest.mark.parametrize("half", ["attention", "feed_forward"])
    def test_dropout_acts_in_each_half(self, impl, half):
        block = randomize(impl.TransformerBlock(16, 4, 40, dropout=0.25))
        silenced(block, "feed_forward" if half == "attention" else "attention")
        x = torch.randn(8, 16, 16)
        noisy, whole = block(x.clone()), block.eval()(x.clone())
        read = (block.ln_1 if half == "attention" else block.ln_2)(x)
        torch.testing.assert_close(whole, x + getattr(block, half)(read))
        zeros = (noisy == x).float().mean().item()
        assert zeros == pytest.approx(0.25, abs=0.05), (  # five standard deviations
            f"with dropout=0.25 in training, {zeros:.0%} of the numbers that {half} adds are 0; it "
            "should be 25%: each half is given `dropout`, and the block drops nothing besides."
        )

    def test_dropout_rests_in_evaluation(self, impl):
        block = impl.TransformerBlock(16, 4, 40, dropout=0.5).eval()
        hidden = torch.ones(6, 6, dtype=torch.bool).triu(1)
        x = torch.randn(2, 6, 16)
        assert not is_random(block, x), NOT_AT_REST
        torch.testing.assert_close(block(x), torch_twin(block)(x, src_mask=hidden))


def block_that_uses(impl, name):
    """A block whose parameters are off their start. The test waits while `name` is unused."""
    block = randomize(impl.TransformerBlock(16, 4, 40))
    argument = {"rotate": torch.tanh, "remember": lambda k, v: (k, v)}[name]
    by_place = []

    def listen(attention, given, named):
        bound = inspect.signature(attention.forward).bind(*given, **named).arguments
        by_place.append(callable(bound.get("return_weights")))

    listening = block.attention.register_forward_pre_hook(listen, with_kwargs=True)
    try:
        used = calls(block, name, argument, torch.randn(2, 3, 16))
    finally:
        listening.remove()
        assert not any(by_place), (
            "what you hand to attention by place arrives as `return_weights`, its second argument: "
            "hand `rotate` and `remember` on by name."
        )
    if not used:
        pytest.skip(unused("TransformerBlock", name))
    return block


@pytest.mark.exercise("TransformerBlock")
@pytest.mark.door
class TestWhatABlockHandsToItsAttention:
    def test_rotate_reaches_it(self, impl):
        block = block_that_uses(impl, "rotate")
        x = torch.randn(2, 6, 16)
        after_attention = x + block.attention(block.ln_1(x), rotate=torch.tanh)
        expected = after_attention + block.feed_forward(block.ln_2(after_attention))
        torch.testing.assert_close(block(x, rotate=torch.tanh), expected)

    @pytest.mark.parametrize("n", [1, 3])
    def test_remember_reaches_it(self, impl, n):
        block = block_that_uses(impl, "remember")
        x, seen = torch.randn(2, 7, 16), []
        block(x[:, :-n], remember=lambda k, v: seen.extend((k, v)) or (k, v))
        new = block(
            x[:, -n:],
            remember=lambda k, v: (torch.cat((seen[0], k), 2), torch.cat((seen[1], v), 2)),
        )
        torch.testing.assert_close(new, block(x)[:, -n:])

    def test_each_reaches_it_under_its_own_name(self, impl):
        block_that_uses(impl, "rotate")
        block = block_that_uses(impl, "remember")
        seen = []
        block(torch.randn(2, 5, 16), torch.zeros_like, lambda k, v: seen.append(k) or (k, v))
        assert not seen[0].any(), (
            "`rotate` was a function that turns all to 0, and the keys that `remember` was given "
            "are not 0: attention should have both, each under its own name."
        )


class TestTheReference:
    @pytest.mark.parametrize("norm", [LayerNorm, RMSNorm])
    @pytest.mark.parametrize("scale", [1.0, 1e-3])  # 1e-3: the variance is smaller than eps
    def test_each_norm_by_hand_is_the_fused_one(self, norm, scale):
        layer = randomize(norm(8)).double()
        x = (scale * torch.randn(2, 5, 8, dtype=torch.float64)).requires_grad_()
        inputs = [x, *layer.parameters()]
        by_hand, fused = layer.by_hand(x), layer(x)
        torch.testing.assert_close(by_hand, fused)
        torch.testing.assert_close(
            torch.autograd.grad(by_hand.pow(3).sum(), inputs),
            torch.autograd.grad(fused.pow(3).sum(), inputs),
        )
