"""Module 02. `impl` is the reference in one run of each test and your exercises in the other."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tiny_transformer.multihead.reference import MultiHeadAttention
from tiny_transformer.setup.grading.doors import calls, unused
from tiny_transformer.setup.grading.examples import the_example_is_true
from tiny_transformer.setup.grading.habits import (
    HABITS,
    has_parameters,
    is_dropped_out,
    keeps_the_graph,
    refuses,
)


def give_torch_the_weights_of(layer, n_heads):
    """torch's own layer, and ours, with the same random weights and biases."""
    d_model = layer.out_proj.in_features
    twin = nn.MultiheadAttention(
        d_model, n_heads, batch_first=True, dtype=layer.out_proj.weight.dtype
    )
    projections = (layer.q_proj, layer.k_proj, layer.v_proj)
    with torch.no_grad():
        for projection in (*projections, layer.out_proj):
            projection.bias.normal_()  # a bias that starts at 0 would hide one that is not added
        twin.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        twin.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
    twin.out_proj.load_state_dict(layer.out_proj.state_dict())
    return twin


def hidden_from_torch(T, causal):
    """torch.nn's mask, which says True where attention is forbidden."""
    return torch.ones(T, T, dtype=torch.bool).triu(1) if causal else None


@pytest.mark.exercise("split_heads")
class TestSplitHeads:
    @pytest.mark.parametrize("B, T, n_heads", [(2, 5, 4), (3, 1, 2), (1, 4, 8), (1, 1, 1)])
    def test_head_h_gets_the_hth_slice_of_the_features(self, impl, B, T, n_heads):
        x = torch.randn(B, T, 8)
        expected = torch.stack(x.chunk(n_heads, dim=-1), dim=1)
        torch.testing.assert_close(impl.split_heads(x, n_heads), expected, rtol=0, atol=0)

    @pytest.mark.parametrize("habit", HABITS)
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.split_heads, torch.randn(2, 5, 8), 4)

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "split_heads")


@pytest.mark.exercise("merge_heads")
class TestMergeHeads:
    @pytest.mark.parametrize("B, T, n_heads", [(2, 5, 4), (3, 1, 2), (1, 4, 8), (1, 1, 1)])
    def test_undoes_the_split(self, impl, B, T, n_heads):
        x = torch.randn(B, T, 8)
        heads = torch.stack(x.chunk(n_heads, dim=-1), dim=1)
        torch.testing.assert_close(impl.merge_heads(heads), x, rtol=0, atol=0)

    @pytest.mark.parametrize("habit", HABITS)
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.merge_heads, torch.randn(2, 4, 5, 2))

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "merge_heads")


@pytest.mark.exercise("MultiHeadAttention")
class TestMultiHeadAttention:
    def test_it_has_the_parameters_of_the_course(self, impl):
        names = ("q_proj", "k_proj", "v_proj", "out_proj")
        shapes = {f"{name}.weight": (16, 16) for name in names}
        has_parameters(
            impl.MultiHeadAttention(16, 4), shapes | {f"{name}.bias": (16,) for name in names}
        )

    @pytest.mark.parametrize("causal", [True, False])
    @pytest.mark.parametrize("B, T, n_heads", [(2, 6, 4), (2, 6, 1), (1, 1, 2)])
    def test_agrees_with_torch(self, impl, B, T, n_heads, causal):
        layer = impl.MultiHeadAttention(16, n_heads, causal=causal)
        twin = give_torch_the_weights_of(layer, n_heads)
        x = torch.randn(B, T, 16)
        expected, _ = twin(x, x, x, attn_mask=hidden_from_torch(T, causal))
        torch.testing.assert_close(layer(x), expected)

    @pytest.mark.parametrize("causal", [True, False])
    def test_its_gradient_agrees_with_torch(self, impl, causal):
        layer = impl.MultiHeadAttention(16, 4, causal=causal).double()
        twin = give_torch_the_weights_of(layer, 4)
        x = torch.randn(2, 6, 16, dtype=torch.float64, requires_grad=True)
        expected, _ = twin(x, x, x, attn_mask=hidden_from_torch(6, causal))
        torch.testing.assert_close(layer(x), expected)
        (wanted,) = torch.autograd.grad(expected.square().sum(), x)
        (got,) = torch.autograd.grad(layer(x).square().sum(), x)
        assert torch.allclose(got, wanted, atol=1e-7), (
            "the output is right, and its gradient with respect to x is not: some of what the "
            "output depends on is cut from the graph (detach, .data, numpy, no_grad do that). "
            "Queries, keys and values all come from x."
        )

    @pytest.mark.parametrize("causal", [True, False])
    def test_returns_one_weight_matrix_a_head(self, impl, causal):
        layer = impl.MultiHeadAttention(16, 4, causal=causal)
        twin = give_torch_the_weights_of(layer, 4)
        x = torch.randn(2, 6, 16)
        hidden = hidden_from_torch(6, causal)
        _, weights = layer(x, return_weights=True)
        _, expected = twin(x, x, x, attn_mask=hidden, average_attn_weights=False)
        parts = zip(("q_proj(x)", "k_proj(x)", "v_proj(x)"), heads_of(layer, x), strict=True)
        for (asks, q), (asked, k) in itertools.product(list(parts), repeat=2):
            scores = q @ k.mT / 2
            scores = scores if hidden is None else scores.masked_fill(hidden, -math.inf)
            assert near(weights, expected) or not near(weights, scores.softmax(-1)), (
                f"its weights are those of {asks} as queries and {asked} as keys; they should be "
                "of q_proj(x) as queries and k_proj(x) as keys."
            )
        torch.testing.assert_close(weights, expected)
        _, average = twin(x, x, x, attn_mask=hidden)
        torch.testing.assert_close(weights.mean(dim=1), average)

    def test_the_weights_it_returns_keep_the_graph(self, impl):
        layer = impl.MultiHeadAttention(16, 4)
        keeps_the_graph(lambda x: layer(x, return_weights=True), torch.randn(2, 6, 16))

    def test_without_dropout_nothing_is_left_to_chance(self, impl):
        layer = impl.MultiHeadAttention(16, 4)
        x = torch.randn(2, 6, 16)
        assert torch.allclose(layer(x), layer(x), atol=1e-5, equal_nan=True), (
            "two calls on the same x give different results, and dropout is 0.0 where nobody asks "
            "for more: something drops out, or is drawn, all the same."
        )

    def test_asking_for_the_weights_does_not_change_the_output(self, impl):
        layer = impl.MultiHeadAttention(16, 4)
        x = torch.randn(2, 6, 16)
        out, _ = layer(x, return_weights=True)
        torch.testing.assert_close(out, layer(x))

    def test_the_future_cannot_change_the_past(self, impl):
        x = torch.randn(2, 6, 16)
        whole = impl.MultiHeadAttention(16, 4, causal=False)
        twin = give_torch_the_weights_of(whole, 4)
        torch.testing.assert_close(whole(x), twin(x, x, x)[0])
        layer = impl.MultiHeadAttention(16, 4)
        before = layer(x.clone())
        torch.testing.assert_close(layer(x), before)  # no chance, no nan
        x[:, 4:] = torch.randn(2, 2, 16)
        after = layer(x)
        assert torch.allclose(after[:, :4], before[:, :4], rtol=1e-4, atol=1e-5), (
            "positions 4 and 5 were changed, and what comes out at 0 to 3 changed with them: with "
            "causal=True a position attends to itself and to what is before it."
        )
        assert not torch.allclose(after[:, 4:], before[:, 4:])

    def test_dropout_acts_in_training(self, impl):
        layer = impl.MultiHeadAttention(16, 4, dropout=0.5)
        x = torch.randn(2, 6, 16)
        assert not torch.allclose(layer(x), layer(x)), (
            "dropout=0.5 changes nothing in training: two calls give the same."
        )

    @pytest.mark.parametrize("return_weights", [False, True])
    def test_dropout_acts_on_the_output_last(self, impl, return_weights):
        layer = impl.MultiHeadAttention(16, 4, dropout=0.25)
        nn.init.normal_(layer.out_proj.bias)  # so that nothing is 0 before dropout
        nn.init.zeros_(layer.out_proj.weight)
        x, whole = torch.randn(8, 16, 16), layer.out_proj.bias.expand(8, 16, 16)
        plain = layer.eval()(x, return_weights=return_weights)
        torch.testing.assert_close(plain[0] if return_weights else plain, whole)
        out = layer.train()(x, return_weights=return_weights)
        is_dropped_out(out[0] if return_weights else out, whole, 0.25)

    @pytest.mark.parametrize("return_weights", [False, True])
    def test_dropout_acts_on_the_attention_weights(self, impl, return_weights):
        p, S = 0.25, 16
        sums = sums_of_dropped_weights(impl, p, S, return_weights)
        assert (sums - 1).abs().nanmean() > 1e-4, (
            f"with dropout={p} in training each query's attention weights still add up to 1 where "
            "they meet the values. What drops out takes its share with it, and what stays is "
            f"divided by {1 - p}: no longer a sum of 1, but for chance."
        )
        spread = (sums - sums.nanmean(-1, keepdim=True)).abs().nan_to_num().max()
        assert spread < 1e-4, (
            "the features of one head lost different positions to dropout: it should act on the "
            "attention weights, which all features of a head share."
        )
        variance = (sums.nanmean(-1) - 1).square().nanmean().item()
        due = p / (1 - p) / S
        assert variance == pytest.approx(due, rel=0.35), (  # 512 sums: five sigmas
            f"equal weights on {S} keys, after dropout={p}, should add up to 1 with a variance of "
            f"{due:.3f}; yours have {variance:.3f}: each weight drops out by chance {p}, one time, "
            f"and what stays is divided by {1 - p}."
        )

    def test_the_weights_it_returns_are_those_before_dropout(self, impl):
        layer = impl.MultiHeadAttention(16, 4, dropout=0.5)
        x = torch.randn(2, 6, 16)
        _, weights = layer(x, return_weights=True)
        assert weights.shape == (2, 4, 6, 6)
        _, undropped = layer.eval()(x, return_weights=True)
        assert torch.allclose(weights, undropped, atol=1e-5), (
            "in training the weights returned differ from those in evaluation: they should be "
            "those from before dropout, out of which nothing has dropped."
        )

    def test_dropout_rests_in_evaluation(self, impl):
        layer = impl.MultiHeadAttention(16, 4, dropout=0.5).eval()
        twin = give_torch_the_weights_of(layer, 4)
        x = torch.randn(2, 6, 16)
        assert torch.allclose(layer(x), layer(x), atol=1e-5, equal_nan=True), (
            "with dropout=0.5 two calls on the same x give different results in evaluation, after "
            "eval(): dropout acts in training alone."
        )
        torch.testing.assert_close(layer(x), twin(x, x, x, attn_mask=hidden_from_torch(6, True))[0])

    @pytest.mark.parametrize("d_model, n_heads", [(32, 5), (6, 4), (4, 8)])
    def test_heads_that_do_not_divide_the_width_are_an_error(self, impl, d_model, n_heads):
        refuses(impl.MultiHeadAttention, d_model, n_heads)

    @pytest.mark.parametrize("habit", HABITS)
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.MultiHeadAttention(16, 4), torch.randn(2, 5, 16))

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "MultiHeadAttention")


def sums_of_dropped_weights(impl, p, S, return_weights):
    """(B, heads, d_head): what values of 1 add up to under equal weights; nan where unknown."""
    layer = impl.MultiHeadAttention(16, 4, dropout=p)
    for name in ("q_proj", "k_proj", "v_proj"):
        nn.init.zeros_(getattr(layer, name).weight)
        nn.init.constant_(getattr(layer, name).bias, float(name == "v_proj"))
    nn.init.eye_(layer.out_proj.weight)
    nn.init.ones_(layer.out_proj.bias)
    x = torch.randn(128, S, 16)
    plain = layer.eval()(x, return_weights=return_weights)
    torch.testing.assert_close(plain[0] if return_weights else plain, torch.full_like(x, 2.0))
    out = layer.train()(x, return_weights=return_weights)
    out = (out[0] if return_weights else out)[:, -1]  # the last query sees all keys
    scale = 1 - p if (out == 0).any() else 1.0  # what dropout on the output has done
    return torch.where(out == 0, torch.nan, out * scale - 1).unflatten(-1, (4, 4))


def agrees_with_torch_on_probabilities(impl):
    weights = torch.randn(2, 4, 5, 7).softmax(dim=-1)
    expected = torch.distributions.Categorical(probs=weights).entropy()
    torch.testing.assert_close(impl.attention_entropy(weights), expected)


@pytest.mark.exercise("attention_entropy")
class TestAttentionEntropy:
    def test_agrees_with_torch_for_every_batch_head_and_query(self, impl):
        agrees_with_torch_on_probabilities(impl)

    def test_looking_at_one_key_has_entropy_0(self, impl):
        got = impl.attention_entropy(torch.eye(4))
        if got.shape == (4,):
            told = f"a row that looks at one key has entropy 0, and yours has {got[0]:.2g}."
            if got[0].abs() < 0.01:
                told += (
                    " A number that is added to the weights, or put in the place of 0, counts in "
                    "every row, small as it is; torch has functions that know 0 ln 0 without."
                )
            assert torch.allclose(got, torch.zeros(4), atol=1e-5), told
        torch.testing.assert_close(got, torch.zeros(4))

    @pytest.mark.parametrize("S", [1, 2, 64])
    def test_looking_at_S_keys_alike_has_entropy_ln_S(self, impl, S):
        agrees_with_torch_on_probabilities(impl)
        entropy = impl.attention_entropy(torch.full((3, S), 1 / S))
        torch.testing.assert_close(entropy, torch.full((3,), math.log(S)))

    def test_keys_without_weight_add_nothing(self, impl):
        half_masked = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
        expected = torch.tensor([math.log(2)])
        torch.testing.assert_close(impl.attention_entropy(half_masked), expected)

    def test_keys_without_weight_add_nothing_in_float16(self, impl):
        half_masked = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
        entropy = impl.attention_entropy(half_masked)
        torch.testing.assert_close(entropy, torch.tensor([math.log(2)]))
        got = impl.attention_entropy(half_masked.half())
        assert got.isfinite().all(), (
            f"the row 0.5, 0.5, 0, 0 gives {entropy[0]:.4g} in float32 and {got[0]} in float16, "
            "where numbers as small as 1e-9 are 0 themselves, and keep no logarithm from it. torch "
            "has functions that know 0 ln 0."
        )
        torch.testing.assert_close(got, entropy.half(), rtol=0.01, atol=0.01)

    def test_small_weights_count_as_they_are(self, impl):
        small = torch.tensor([[1 - 3e-4, 1e-4, 2e-4]], dtype=torch.float64)
        expected = -(small * small.log()).sum(-1)
        torch.testing.assert_close(impl.attention_entropy(small), expected)

    @pytest.mark.parametrize("habit", HABITS)
    @pytest.mark.parametrize("causal", [True, False])
    def test_it_has_good_habits(self, impl, causal, habit):
        scores = torch.randn(2, 4, 7, 7)
        if causal:  # its rows have zeros
            scores = scores.masked_fill(hidden_from_torch(7, True), -math.inf)
        habit(impl.attention_entropy, scores.softmax(dim=-1))

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "attention_entropy")


class InTwoParts(nn.Module):
    """Reads all but the last `n` positions of x, then those, with the keys and values of the first.

    `turn` (T, 1) is what each position turns its queries and keys by, if anything.
    """

    def __init__(self, layer, n, explicit=False, turn=None):
        super().__init__()
        self.layer, self.n, self.explicit, self.turn = layer, n, explicit, turn
        self.seen = ()

    def forward(self, x):
        start = x.size(1) - self.n
        self.read(x, 0, start)
        out = self.read(x, start, x.size(1))
        self.seen = ()
        return out

    def read(self, x, start, end):
        turned = {} if self.turn is None else {"rotate": lambda x: x * self.turn[start:end]}
        options = {"return_weights": True} if self.explicit else {}
        out = self.layer(x[:, start:end], remember=self.remember, **options, **turned)
        if self.explicit:
            out, self.weights = out
        return out

    def remember(self, k, v):
        if self.seen:
            k, v = torch.cat((self.seen[0], k), dim=2), torch.cat((self.seen[1], v), dim=2)
        self.seen = k, v
        return k, v


def layer_that_uses(impl, *names, causal=True):
    """A layer of 16 features and 4 heads. The test waits while one of its doors is unused."""
    layer = impl.MultiHeadAttention(16, 4, causal=causal)
    x, arguments = torch.randn(2, 3, 16), {"rotate": lambda x: -x, "remember": lambda k, v: (k, v)}
    for name in names:
        ways = ({}, {"return_weights": True})
        if not any([calls(layer, name, arguments[name], x, **way) for way in ways]):
            pytest.skip(unused("MultiHeadAttention", name))
    return layer


def heads_of(layer, x):
    """Queries, keys and values, each (B, 4, T, 4)."""
    projections = (layer.q_proj, layer.k_proj, layer.v_proj)
    return [project(x).unflatten(-1, (4, 4)).transpose(1, 2) for project in projections]


def names_of(tensors, parts):
    """What each of the tensors is among the parts, by their names."""
    return [
        next(
            (name for name, part in parts.items() if near(tensor, part)),
            f"something else {tuple(tensor.shape)}",
        )
        for tensor in tensors
    ]


def near(a, b):
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-5)


@pytest.mark.exercise("MultiHeadAttention")
@pytest.mark.door
class TestRotate:
    @pytest.mark.parametrize("causal", [True, False])
    @pytest.mark.parametrize("explicit", [False, True])
    def test_turns_queries_and_keys_and_no_values(self, impl, explicit, causal):
        layer = layer_that_uses(impl, "rotate", causal=causal)
        x, turn = torch.randn(2, 6, 16), torch.randn(6, 1)
        q, k, v = heads_of(layer, x)
        heads = F.scaled_dot_product_attention(q * turn, k * turn, v, is_causal=causal)
        options = {"return_weights": True} if explicit else {}
        out = layer(x, rotate=lambda x: x * turn, **options)
        out = out[0] if explicit else out
        torch.testing.assert_close(out, layer.out_proj(heads.transpose(1, 2).flatten(2)))

    @pytest.mark.parametrize("explicit", [False, True])
    def test_is_given_queries_and_keys_head_by_head(self, impl, explicit):
        layer = layer_that_uses(impl, "rotate")
        given, options = [], {"return_weights": True} if explicit else {}
        layer(torch.randn(2, 5, 16), rotate=lambda x: given.append(tuple(x.shape)) or x, **options)
        other = [shape for shape in given if shape[-3:] != (4, 5, 4)]
        assert not other, (
            f"with x (2, 5, 16) and 4 heads `rotate` is given a tensor {other[0]}; it should be "
            "given the queries and the keys, each (B, n_heads, T, d_head), here (2, 4, 5, 4): "
            "every head is turned by the same angles, and the last two axes tell which."
        )

    def test_the_weights_are_those_of_what_was_turned(self, impl):
        layer = layer_that_uses(impl, "rotate", causal=False)
        _, weights = layer(torch.randn(2, 5, 16), return_weights=True, rotate=torch.zeros_like)
        torch.testing.assert_close(weights, torch.full((2, 4, 5, 5), 1 / 5))


@pytest.mark.exercise("MultiHeadAttention")
@pytest.mark.door
class TestRemember:
    @pytest.mark.parametrize("causal", [True, False])
    @pytest.mark.parametrize("explicit", [False, True])
    @pytest.mark.parametrize("n", [1, 3])
    def test_new_queries_see_all_before_them_and_nothing_after(self, impl, n, explicit, causal):
        layer = layer_that_uses(impl, "remember", causal=causal)
        x = torch.randn(2, 7, 16)
        torch.testing.assert_close(InTwoParts(layer, n, explicit)(x), layer(x)[:, -n:])

    def test_the_weights_of_new_queries_reach_back_to_the_first_key(self, impl):
        layer = layer_that_uses(impl, "remember")
        x = torch.randn(2, 7, 16)
        parts = InTwoParts(layer, 3, explicit=True)
        parts(x)
        _, weights = layer(x, return_weights=True)
        torch.testing.assert_close(parts.weights, weights[:, :, 4:])

    def test_is_given_the_new_keys_and_values_head_by_head(self, impl):
        layer = layer_that_uses(impl, "remember")
        x, given = torch.randn(2, 5, 16), []
        layer(x, remember=lambda k, v: given.extend((k, v)) or (k, v))
        parts = dict(
            zip(("the queries", "the keys", "the values"), heads_of(layer, x), strict=True)
        )
        told = names_of(given, parts)
        assert told == ["the keys", "the values"], (
            f"`remember` is given {' and '.join(told)}; it should be given the new keys and the "
            f"new values, in this order and each (B, n_heads, T, d_head), here (2, 4, 5, 4)."
        )

    def test_keys_are_remembered_turned_and_values_as_they_are(self, impl):
        layer = layer_that_uses(impl, "rotate", "remember")
        x, plain, given = torch.randn(2, 5, 16), [], []
        layer(x, remember=lambda k, v: plain.extend((k, v)) or (k, v))
        q, k, v = heads_of(layer, x)
        torch.testing.assert_close(plain, [k, v])
        layer(x, rotate=torch.neg, remember=lambda k, v: given.extend((k, v)) or (k, v))
        parts = {"queries": q, "keys": k, "values": v}
        told = names_of(
            given,
            {f"{name} not turned": part for name, part in parts.items()}
            | {f"turned {name}": -part for name, part in parts.items()},
        )
        assert told == ["turned keys", "values not turned"], (
            f"with `rotate`, `remember` is given {told[0]} as keys and {told[1]} as values; it "
            "should be given turned keys and values not turned: `rotate` turns queries and keys "
            "head by head, and `remember` keeps the keys as they were turned."
        )

    @pytest.mark.parametrize("n", [1, 3])
    def test_turned_once_is_turned_for_good(self, impl, n):
        layer = layer_that_uses(impl, "rotate", "remember")
        x, turn = torch.randn(2, 7, 16), torch.randn(7, 1)
        whole = layer(x, rotate=lambda x: x * turn)
        torch.testing.assert_close(InTwoParts(layer, n, turn=turn)(x), whole[:, -n:])

    @pytest.mark.parametrize("habit", HABITS)
    def test_it_has_good_habits(self, impl, habit):
        habit(InTwoParts(layer_that_uses(impl, "remember"), 3), torch.randn(2, 5, 16))


def output_and_gradients(layer, x, past, explicit):
    """The layer's output on x after the remembered keys and values, and all its gradients."""

    def remember(k, v):
        return torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)

    out = layer(x, return_weights=explicit, remember=remember)
    out = out[0] if explicit else out
    return out, torch.autograd.grad(out.square().sum(), [x, *past, *layer.parameters()])


class TestTheFusedPath:
    @pytest.mark.parametrize("causal", [True, False])
    @pytest.mark.parametrize("T, S", [(6, 6), (1, 1), (3, 7), (1, 7)])
    def test_equals_the_explicit_path_in_value_and_gradient(self, T, S, causal):
        layer = MultiHeadAttention(16, 4, causal=causal).double()
        x = torch.randn(2, T, 16, dtype=torch.float64, requires_grad=True)
        past = [torch.randn(2, 4, S - T, 4, dtype=torch.float64, requires_grad=True) for _ in "kv"]
        out, gradients = output_and_gradients(layer, x, past, explicit=False)
        expected, expected_gradients = output_and_gradients(layer, x, past, explicit=True)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(gradients, expected_gradients)


class TestTheReference:
    @pytest.mark.parametrize("attend", ["attend_fused", "attend_explicitly"])
    def test_dropped_attention_weights_keep_their_mean(self, attend):
        layer = MultiHeadAttention(8, 1, dropout=0.5, causal=False)
        q, k, v = torch.randn(1, 1, 512, 8), torch.randn(1, 1, 512, 8), torch.ones(1, 1, 512, 8)
        out = getattr(layer, attend)(q, k, v)
        rows = out[0] if attend == "attend_explicitly" else out  # 1 each, were nothing dropped
        assert rows.std() > 0.01
        assert rows.mean().item() == pytest.approx(1, abs=0.02)  # 5 standard errors

    @pytest.mark.parametrize("return_weights", [False, True])
    def test_the_output_is_dropped_too(self, return_weights):
        layer = MultiHeadAttention(64, 4, dropout=0.25)
        out = layer(torch.randn(4, 16, 64), return_weights=return_weights)
        out = out[0] if return_weights else out
        assert (out == 0).float().mean().item() == pytest.approx(0.25, abs=0.04)

    def test_heads_that_do_not_fit_are_named_with_the_width(self):
        with pytest.raises(ValueError, match="n_heads is 5.*d_model, which is 32"):
            MultiHeadAttention(d_model=32, n_heads=5)
