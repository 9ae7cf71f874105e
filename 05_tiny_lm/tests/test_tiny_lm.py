"""Module 05. `impl` is the reference in one run of each test and your exercises in the other."""

import contextlib
import copy
import dataclasses
import math
from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tiny_transformer.embeddings.reference import rotary_table, rotate
from tiny_transformer.setup.grading.doors import takes, unused
from tiny_transformer.setup.grading.examples import the_example_is_true
from tiny_transformer.setup.grading.families import explain
from tiny_transformer.setup.grading.habits import (
    HABITS,
    leaves_its_inputs_alone,
    refuses,
    takes_any_memory_layout,
)
from tiny_transformer.tiny_lm.reference import (
    MODERN,
    ModelConfig,
    TinyTransformerLM,
    count_parameters,
    init_weights,
    next_token_distribution,
)

SMALL = ModelConfig(vocab_size=11, max_len=8, d_model=16, n_layers=2, n_heads=4, d_ff=40)
VARIANTS = [{}, {"positions": "rope"}, {"positions": "sinusoidal"}]
# What GPT-2 has not, a value for each field of `modern.py`.
OTHERS = dict(
    norm="rms",
    bias=False,
    tie_weights=False,
    qk_norm=True,
    activation="relu2",
    token_shift=True,
    ngrams=13,
    zero_init=True,
)


def small(**changes):
    return dataclasses.replace(SMALL, **changes)


def name_of(changes):
    return "-".join(f"{field}={value}" for field, value in changes.items()) or "classic"


variants = pytest.mark.parametrize("changes", VARIANTS, ids=name_of)


def randomize(model):
    """Move every parameter off its start: a scale of 1 or a bias of 0 hides its absence."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 4)
    return model


def by_parts(model, tokens, rotate=None):
    """The logits, from the model's parts put together by hand."""
    x = model.embedding(tokens)
    for block in model.blocks:
        x = block(x) if rotate is None else block(x, rotate)
    return model.head(model.ln_f(x))


def departure(model, tokens):
    """Where a model's numbers first leave the way from the embedding to the head."""
    parts = {"embedding": model.embedding}
    parts |= {f"blocks[{i}]": block for i, block in enumerate(model.blocks)}
    parts |= {"ln_f": model.ln_f, "head": model.head}
    seen = []
    for name, part in parts.items():
        part.register_forward_hook(
            lambda _, given, named, out, name=name: seen.append(
                (name, [*given, *named.values()][0], out)
            ),
            with_kwargs=True,
        )
    logits = model(tokens)
    order = [name for name, *_ in seen]
    if order != [*parts]:
        return f"the parts that are called, in this order, are {', '.join(order)}."
    for (before, _, out), (name, given, _) in pairwise(seen):
        if told := explain(given, out, {"d_model": 16}):
            return f"{name} should be given what {before} returns; of what it is given, {told}"
    if told := explain(logits, seen[-1][2], {"vocab_size": 11}):
        return f"the model should return what head returns; {told}"
    return "each part is given what the one before it returns, but the blocks' `rotate` is another."


@pytest.mark.exercise("count_parameters")
class TestCountParameters:
    @pytest.mark.parametrize(
        "field, value",
        [("vocab_size", 3), ("max_len", 30), ("n_heads", 2), ("d_ff", 7), ("n_layers", 5)],
    )
    def test_follows_each_dimension(self, impl, field, value):
        config = small(**{field: value})
        more = parameters_of(config) - parameters_of(SMALL)
        counted = impl.count_parameters(config) - impl.count_parameters(SMALL)
        parts = "A block is two norms and six linear layers with a bias each. "
        assert counted == more, (
            f"{parts if field == 'n_layers' else ''}With {field}={value} in place of "
            f"{getattr(SMALL, field)} the model learns {more:+} numbers; your count changes by "
            f"{counted:+}."
        )

    @pytest.mark.parametrize("positions", ["sinusoidal", "rope"])
    def test_positions_that_are_computed_learn_nothing(self, impl, positions):
        fewer = parameters_of(SMALL) - parameters_of(small(positions=positions))
        counted = impl.count_parameters(SMALL) - impl.count_parameters(small(positions=positions))
        assert counted == fewer, (
            f"With positions={positions!r} the model learns {fewer} numbers fewer than with "
            f"learned positions: it has no table of them. In your count it is {counted}."
        )

    @variants
    def test_counts_those_of_the_model_that_would_be_built(self, impl, changes):
        config = small(**changes)
        count, learned = impl.count_parameters(config), parameters_of(config)
        assert count == learned, (
            f"A model with positions={config.positions!r} learns {learned} numbers in all; you "
            f"count {count}."
        )

    def test_builds_no_model(self, impl, monkeypatch):
        made, begin = [], nn.Module.__init__

        def noted(module, *args, **options):
            made.append(type(module).__name__)
            begin(module, *args, **options)

        monkeypatch.setattr(nn.Module, "__init__", noted)
        impl.count_parameters(SMALL)
        assert not made, (
            f"To count, {len(made)} parts of a model are built ({made[0]} and so on), with all "
            "their numbers. The count is to come from the config alone: of a model too large for "
            "this machine too."
        )

    def test_the_count_is_a_whole_number(self, impl):
        count = impl.count_parameters(SMALL)
        assert type(count) is int, f"The count is an int; here its type is {type(count).__name__}."

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "count_parameters")


def parameters_of(config):
    return sum(parameter.numel() for parameter in TinyTransformerLM(config).parameters())


@pytest.fixture(scope="module")
def wide():
    """A model with enough weights in each matrix to measure their spread, in any state."""
    return TinyTransformerLM(ModelConfig(vocab_size=256, n_layers=3))


@pytest.mark.exercise("init_weights")
class TestInitWeights:
    @pytest.fixture
    def started(self, impl, wide):
        with torch.no_grad():
            for parameter in wide.parameters():
                parameter.fill_(7.0)
        impl.init_weights(wide)
        return dict(wide.named_parameters())

    def test_no_parameter_is_left_as_it_was(self, started):
        left = [name for name, value in started.items() if (value == 7).all()]
        assert not left, (
            f"{' and '.join(left[:2])}{', and others,' if left[2:] else ''} still hold the numbers "
            "from before the call. All that model.named_parameters() gives is to be written, in "
            "place: a name bound to a new tensor changes nothing in the model."
        )

    def test_parameters_keep_their_dtype(self, impl, wide):
        model = copy.deepcopy(wide).bfloat16()
        impl.init_weights(model)
        for name, parameter in model.named_parameters():
            assert parameter.dtype == torch.bfloat16, (
                f"Of a model in bfloat16 {name} is {parameter.dtype} afterwards: write into the "
                "parameters, as normal_, zero_ and copy_ do, and do not replace their data."
            )

    def test_weights_come_from_a_normal_distribution(self, started):
        for name, weight in started.items():
            if weight.dim() == 2 and not name.endswith(("out_proj.weight", "down.weight")):
                spread, mean, most = weight.std(), weight.mean(), weight.abs().max()
                assert spread.item() == pytest.approx(0.02, rel=0.05), (
                    f"{name} starts with a standard deviation of {spread:.4f}; it should be 0.02."
                )
                assert abs(mean) < 0.001, f"{name} has a mean of {mean:.4f}; it should be 0."
                assert most > 0.05, (
                    f"{name} is not drawn from a normal distribution: none of its "
                    f"{weight.numel()} numbers is further than {most:.3f} from 0."
                )

    def test_residual_projections_start_smaller_by_the_root_of_their_number(self, started):
        for name, weight in started.items():
            if name.endswith(("out_proj.weight", "down.weight")):
                spread, expected = weight.std().item(), 0.02 / math.sqrt(6)
                assert spread == pytest.approx(expected, rel=0.05), (
                    f"With n_layers = 3 {name} should start with a standard deviation of "
                    f"0.02 / sqrt(2 n_layers) = {expected:.4f}; it is {spread:.4f}."
                )

    def test_biases_start_at_0(self, started):
        away = [name for name, value in started.items() if name.endswith("bias") and value.any()]
        assert not away, f"{away[0]} does not start at 0, as every bias should."

    def test_norms_start_with_scale_1(self, started):
        scales = {
            name: value
            for name, value in started.items()
            if ".ln_" in f".{name}" and "weight" in name
        }
        assert len(scales) == 7
        for name, scale in scales.items():
            assert (scale == 1).all(), (
                f"{name} starts at {scale.mean():.3g}; a norm that is the identity scales by 1."
            )

    def test_no_two_matrices_start_alike(self, started):
        corners = [weight[0, 0].item() for weight in started.values() if weight.dim() == 2]
        assert len(set(corners)) == len(corners), "Two matrices start with the same numbers."

    def test_each_call_draws_other_numbers(self, impl):
        draws = []
        for _ in range(2):
            model = TinyTransformerLM(SMALL)
            impl.init_weights(model)
            draws.append(model.head.weight.detach().clone())
        assert not draws[0].equal(draws[1]), (
            "Two calls, one after the other, draw the same numbers: every model would start alike. "
            "To set a seed is up to the caller."
        )


@pytest.mark.exercise("TinyTransformerLM")
class TestTinyTransformerLM:
    def test_a_text_as_long_as_the_context_is_read(self, impl):
        model = impl.TinyTransformerLM(SMALL)
        try:
            model(torch.zeros(1, 8, dtype=torch.long))
        except ValueError as error:
            pytest.fail(
                "A text of exactly max_len tokens is refused; only one longer than that is a "
                f"ValueError. Yours says: {error}",
                pytrace=False,
            )

    def test_the_head_reuses_the_token_table(self, impl):
        model = impl.TinyTransformerLM(SMALL)
        head, table = model.head.weight, model.embedding.token.weight
        assert head is table or head.data_ptr() != table.data_ptr(), (
            "head.weight and embedding.token.weight are two parameters over the same numbers: each "
            "gets only its share of the gradient, and an optimizer moves the numbers twice. One "
            "parameter should have both names."
        )
        assert head is table, (
            "head.weight should be embedding.token.weight, the table itself; it is another tensor, "
            "which training would move apart from it."
        )

    def test_has_as_many_blocks_as_it_was_asked_for(self, impl):
        made = len(impl.TinyTransformerLM(small(n_layers=3)).blocks)
        assert made == 3, f"With n_layers = 3 the model has {made} in `blocks`."

    def test_nothing_is_random_without_dropout(self, impl):
        model, tokens = randomize(impl.TinyTransformerLM(SMALL)), torch.randint(11, (2, 8))
        assert model(tokens).equal(model(tokens)), (
            "With dropout=0 a model in training gives the same tokens other logits the second time."
        )

    @variants
    def test_its_parts_have_their_names_and_learn_nothing_else(self, impl, changes):
        ours = impl.TinyTransformerLM(small(**changes))
        theirs = TinyTransformerLM(small(**changes))
        names, expected = (
            {name for name, p in model.named_parameters() if p.requires_grad}
            for model in (ours, theirs)
        )
        tied = {"head.weight", "embedding.token.weight"}  # one of them, whichever came first
        more, fewer = sorted(names - expected - tied), sorted(expected - names - tied)
        assert not more, f"The model learns {', '.join(more[:3])}, which it should not have."
        assert not fewer, f"The model has no {', '.join(fewer[:3])}, or does not learn it."
        assert ours.config == small(**changes), "`config` is not the config that was given."

    @pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rope"])
    @pytest.mark.parametrize("B, T", [(2, 8), (1, 1)])
    def test_is_embedding_then_blocks_then_norm_then_head(self, impl, B, T, positions):
        model = randomize(impl.TinyTransformerLM(small(positions=positions)))
        tokens = torch.randint(11, (B, T))
        turn = partial(rotate, positions=torch.arange(T)) if positions == "rope" else None
        logits = model(tokens)
        assert logits.shape == (B, T, 11), (
            f"The logits of tokens {(B, T)} are {tuple(logits.shape)}; they should be (B, T, "
            f"vocab_size), {(B, T, 11)}: a score for each character at every position."
        )
        assert torch.allclose(logits, by_parts(model, tokens, turn), atol=1e-5), (
            f"With positions={positions!r} the logits are not those of embedding, blocks, ln_f and "
            f"head in a row: {departure(model, tokens)}"
        )

    def test_every_block_has_weights_of_its_own(self, impl):
        blocks = impl.TinyTransformerLM(small(n_layers=3)).blocks
        one, *_ = counts = [sum(p.numel() for p in block.parameters()) for block in blocks]
        assert counts == [one] * 3, f"Three blocks have {counts} parameters; all should have {one}."
        distinct = sum(p.numel() for p in blocks.parameters())  # each counted once
        assert distinct == 3 * one, (
            f"Three blocks of {one} parameters each should have {3 * one} of their own; these have "
            f"{distinct}: blocks share their weights."
        )

    @variants
    def test_the_future_cannot_change_the_past(self, impl, changes):
        model = randomize(impl.TinyTransformerLM(small(**changes)))
        tokens = torch.randint(11, (2, 8))
        before = model(tokens)
        tokens[:, 5:] = (tokens[:, 5:] + 1) % 11
        after = model(tokens)
        assert torch.allclose(after[:, :5], before[:, :5], rtol=1e-4, atol=1e-5), (
            "Other tokens from position 5 on change logits before it: a position sees what comes."
        )
        assert not torch.allclose(after[:, 5:], before[:, 5:]), (
            "Other tokens from position 5 on change no logits."
        )

    @pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rope"])
    def test_the_order_of_earlier_tokens_matters(self, impl, positions):
        # One layer without positions would read what came before as a bag of characters.
        model = randomize(impl.TinyTransformerLM(small(n_layers=1, positions=positions)))
        ab, ba = model(torch.tensor([[1, 2, 3]])), model(torch.tensor([[2, 1, 3]]))
        assert (ab[:, -1] - ba[:, -1]).abs().max() > 1e-3, (
            f"With positions={positions!r} the logits after tokens 1 2 3 and after 2 1 3 are the "
            "same: nothing tells the model the order of what came before."
        )

    @variants
    def test_starts_out_with_the_loss_of_a_guess(self, impl, changes):
        torch.manual_seed(0)
        model = impl.TinyTransformerLM(ModelConfig(**changes))
        tokens = torch.randint(65, (4, 64))
        loss = F.cross_entropy(model(tokens).flatten(0, 1), torch.randint(65, (4 * 64,)))
        assert loss.item() == pytest.approx(math.log(65), abs=0.15), (
            f"A fresh model's loss is {loss:.2f}; a guess among 65 costs ln 65 = 4.17. head.weight "
            f"starts with a standard deviation of {model.head.weight.std():.3f}, and 0.020 after "
            "`init_weights`."
        )

    def test_starts_with_small_residual_projections(self, impl):
        model = impl.TinyTransformerLM(ModelConfig(n_layers=2))
        std = model.blocks[1].feed_forward.down.weight.std().item()
        assert std == pytest.approx(0.02 / math.sqrt(4), rel=0.05), (
            f"down.weight of a fresh model has a standard deviation of {std:.4f}, and 0.0100 after "
            "`init_weights`."
        )

    @variants
    def test_the_gradient_reaches_every_parameter(self, impl, changes):
        model = randomize(impl.TinyTransformerLM(small(**changes)))
        logits = model(torch.randint(11, (4, 8)))
        assert logits.requires_grad, (
            "The logits have no graph, so no gradient reaches any weight: it is cut where they are "
            "computed (detach, .data, no_grad do that)."
        )
        F.cross_entropy(logits.flatten(0, 1), torch.randint(11, (32,))).backward()
        unreached = {
            name
            for name, parameter in model.named_parameters()
            if parameter.grad is None or not parameter.grad.any()
        }
        # A key bias adds the same to every score of a query, which the softmax ignores.
        missed = [name for name in unreached if not name.endswith("k_proj.bias")]
        assert not missed, (
            f"No gradient reaches {', '.join(sorted(missed)[:3])}: the logits do not depend on it, "
            "or the graph is cut on the way (detach, .data, no_grad do that)."
        )

    def test_a_text_longer_than_the_context_is_an_error(self, impl):
        refuses(impl.TinyTransformerLM(SMALL), torch.zeros(1, 9, dtype=torch.long))

    def test_the_same_seed_makes_the_same_weights(self, impl):
        models = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            models.append(
                torch.cat([p.flatten() for p in impl.TinyTransformerLM(SMALL).parameters()])
            )
        assert models[0].equal(models[1]), "Two models made after the same seed start otherwise."
        assert not models[0].equal(models[2]), (
            "Models made after different seeds start alike: a seed is set inside, which is up to "
            "the caller."
        )

    def test_dropout_acts_in_every_part(self, impl):
        model = randomize(impl.TinyTransformerLM(small(dropout=0.5)))
        tokens, x = torch.randint(11, (2, 8)), torch.randn(2, 8, 16)
        parts = {"embedding": partial(model.embedding, tokens)}
        parts |= {f"blocks[{i}]": partial(block, x) for i, block in enumerate(model.blocks)}
        for name, part in parts.items():
            assert not torch.allclose(part(), part()), (
                f"With dropout=0.5 {name} gives the same twice in training: it drops nothing."
            )

    def test_dropout_rests_in_evaluation(self, impl):
        model = randomize(impl.TinyTransformerLM(small(dropout=0.5))).eval()
        tokens = torch.randint(11, (2, 8))
        assert model(tokens).equal(model(tokens)), (
            "A model in evaluation gives the same tokens other logits the second time."
        )

    @pytest.mark.parametrize("habit", HABITS)
    @pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rope"])
    def test_it_has_good_habits(self, impl, positions, habit):
        model = impl.TinyTransformerLM(small(positions=positions))
        habit(model, torch.randint(11, (2, 8)))

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "TinyTransformerLM")


class Notes:
    """A cache as plain as can be, which notes when each layer appended and what `length` was."""

    def __init__(self):
        self.length, self.kept, self.calls = 0, {}, []

    def append(self, layer, k, v):
        if layer in self.kept:
            before = (old[:, :, : self.length] for old in self.kept[layer])
            k, v = (torch.cat(pair, dim=2) for pair in zip(before, (k, v), strict=True))
        self.kept[layer] = k, v
        self.calls.append((layer, self.length, k.size(2)))
        return k, v


def logits_with(cache, model, tokens, ends):
    """The logits of all tokens, of which the model reads more and more."""
    return torch.cat([model(tokens[:, :end], cache) for end in ends], dim=1)


def assert_same_logits(logits, without, told):
    assert logits.shape == without.shape, (
        f"{told}, the logits are {tuple(logits.shape)}; they should be {tuple(without.shape)}."
    )
    off = (logits - without).abs().amax(dim=(0, 2))
    assert off.max() < 1e-4, (
        f"{told}, the logits are not those without a cache: at positions "
        f"{', '.join(str(i) for i, most in enumerate(off.tolist()) if most >= 1e-4)} of them they "
        f"are off by up to {off.max():.2g}."
    )


@pytest.mark.door
@pytest.mark.exercise("TinyTransformerLM")
class TestCache:
    @pytest.fixture
    def make(self, impl):
        def make(**changes):
            model, notes = randomize(impl.TinyTransformerLM(small(**changes))), Notes()
            if takes(model, "cache"):
                with contextlib.suppress(NotImplementedError):
                    model(torch.zeros(1, 2, dtype=torch.long), notes)
            if not notes.calls and notes.length == 0:
                pytest.skip(unused("TinyTransformerLM", "cache"))
            return model

        return make

    def test_what_was_read_is_not_computed_again(self, make):
        model, widths = make(), []
        model.blocks[0].register_forward_pre_hook(lambda _, args: widths.append(args[0].size(1)))
        logits_with(Notes(), model, torch.randint(11, (3, 8)), (5, 6, 8))
        assert widths == [5, 1, 2], (
            f"Read to 5, 6 and 8 tokens with a cache, blocks[0] was given {widths}; what the cache "
            "has read is not computed again: [5, 1, 2]."
        )

    def test_every_block_appends_under_its_own_number(self, make):
        model, notes = make(n_layers=3), Notes()
        model(torch.randint(11, (1, 4)), notes)
        numbers = [layer for layer, _, _ in notes.calls]
        assert numbers == [0, 1, 2], (
            f"Three blocks append to the cache as {numbers}; block i appends as i: [0, 1, 2]."
        )

    def test_the_length_moves_on_when_all_blocks_are_through(self, make):
        model, notes = make(n_layers=3), Notes()
        logits_with(notes, model, torch.randint(11, (1, 6)), (4, 6))
        lengths = [length for _, length, _ in notes.calls]
        assert lengths == [0, 0, 0, 4, 4, 4] and notes.length == 6, (
            "Of 6 tokens 4 are read and then 2, by 3 blocks. When they append, `cache.length` "
            f"should be [0, 0, 0, 4, 4, 4], and 6 in the end; it is {lengths} and {notes.length}."
        )

    @pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rope"])
    @pytest.mark.parametrize("ends", [(8,), (3, 4, 5, 6, 7, 8), (2, 5, 8)], ids=str)
    @torch.no_grad()
    def test_new_tokens_get_the_logits_that_they_have_without(self, make, positions, ends):
        model, tokens = make(positions=positions), torch.randint(11, (3, 8))
        logits = logits_with(Notes(), model, tokens, ends)
        read = ", then ".join(map(str, ends))
        assert_same_logits(logits, model(tokens), f"Read with a new cache to {read} tokens")

    @pytest.mark.parametrize("positions", ["learned", "rope"])
    @torch.no_grad()
    def test_two_texts_that_take_turns_do_not_meet(self, make, positions):
        model, texts = make(positions=positions), torch.randint(11, (2, 1, 8))
        caches, logits = (Notes(), Notes()), ([], [])
        for end in (3, 4, 8):
            for which, text in enumerate(texts):
                logits[which].append(model(text[:, :end], caches[which]))
        for parts, text in zip(logits, texts, strict=True):
            told = "Of two texts in turn, each with a cache of its own"
            assert_same_logits(torch.cat(parts, 1), model(text), told)

    @torch.no_grad()
    def test_what_a_cache_is_told_to_forget_is_read_again(self, make):
        model, notes, tokens = make(positions="rope"), Notes(), torch.randint(11, (1, 8))
        model(tokens, notes)
        notes.length = 5
        tokens[:, 5:] = (tokens[:, 5:] + 1) % 11
        assert_same_logits(
            model(tokens, notes),
            model(tokens)[:, 5:],
            "After 8 tokens with `length` set back to 5, and 3 other tokens",
        )

    def test_a_text_longer_than_the_context_is_an_error_here_too(self, make):
        model, notes = make(), Notes()
        model(torch.zeros(1, 8, dtype=torch.long), notes)
        refuses(model, torch.zeros(1, 9, dtype=torch.long), notes)


@pytest.mark.exercise("next_token_distribution")
class TestNextTokenDistribution:
    @pytest.mark.parametrize("B, T", [(3, 5), (1, 5), (2, 1)])
    def test_gives_each_text_a_row_with_a_number_for_each_token(self, impl, B, T):
        model = TinyTransformerLM(SMALL)
        chances = impl.next_token_distribution(model, torch.randint(11, (B, T)))
        assert chances.shape == (B, 11), (
            f"For tokens {(B, T)} you return {tuple(chances.shape)}; it should be (B, vocab_size), "
            f"{(B, 11)}."
        )

    def test_each_row_is_its_own_as_it_is_alone(self, impl):
        model, tokens = randomize(TinyTransformerLM(SMALL)), torch.randint(11, (3, 5))
        together = impl.next_token_distribution(model, tokens)
        alone = torch.cat([impl.next_token_distribution(model, row[None]) for row in tokens])
        assert torch.allclose(together.flatten(), alone.flatten(), atol=1e-5), (
            "A text has other probabilities in a batch of 3 than alone: the rows of the batch meet."
        )

    def test_adds_up_to_1(self, impl):
        model = randomize(TinyTransformerLM(SMALL))
        sums = impl.next_token_distribution(model, torch.randint(11, (3, 8))).sum(dim=-1)
        assert torch.allclose(sums, torch.ones(3)), (
            "The probabilities of three rows add up to "
            f"{', '.join(f'{total:.4g}' for total in sums.flatten()[:3])}; they should to 1."
        )

    @pytest.mark.parametrize("B, T", [(2, 5), (1, 1)])
    def test_is_the_softmax_of_the_last_position(self, impl, B, T):
        model = randomize(TinyTransformerLM(SMALL))
        tokens = torch.randint(11, (B, T))
        each = model(tokens).softmax(dim=-1)
        chances, expected = impl.next_token_distribution(model, tokens), each[:, -1]
        of = [t for t in range(T - 1) if chances.allclose(each[:, t], atol=1e-5)]
        assert torch.allclose(chances, expected, atol=1e-5), (
            f"For tokens {(B, T)} the probabilities are not the softmax of the logits at the last "
            f"position, {T - 1}"
            + (f", but of those at {of[0]}." if of else f": {explain(chances, expected, {})}")
        )

    def test_drops_nothing_even_in_the_midst_of_training(self, impl):
        model = randomize(TinyTransformerLM(small(dropout=0.5))).train()
        tokens = torch.randint(11, (2, 8))
        chances = impl.next_token_distribution(model, tokens)
        again = impl.next_token_distribution(model.train(), tokens)
        assert torch.allclose(chances, again), (
            "A model in training, with dropout=0.5, gives the same tokens other probabilities the "
            "second time: its dropout does not rest."
        )
        expected = model.eval()(tokens)[:, -1].softmax(dim=-1)
        assert torch.allclose(chances, expected, atol=1e-5), (
            "A model in training gives other probabilities than the softmax of the last logits "
            "that it gives in evaluation."
        )

    @pytest.mark.parametrize("training", [True, False])
    def test_leaves_the_model_in_the_mode_it_was_in(self, impl, training):
        model = TinyTransformerLM(SMALL).train(training)
        impl.next_token_distribution(model, torch.zeros(1, 3, dtype=torch.long))
        assert all(module.training == training for module in model.modules()), (
            f"A model with training={training} has training={not training} afterwards."
        )

    def test_builds_no_graph(self, impl):
        model, graphs = TinyTransformerLM(SMALL), []
        model.register_forward_hook(lambda _, args, logits: graphs.append(logits.requires_grad))
        chances = impl.next_token_distribution(model, torch.zeros(1, 3, dtype=torch.long))
        assert not any(graphs) and not chances.requires_grad, (
            "A graph is built while the model reads, and memory is kept for a backward pass that "
            "will not come: `torch.no_grad()` must be there before, a detach comes too late."
        )

    def test_gradients_are_computed_again_afterwards(self, impl):
        impl.next_token_distribution(TinyTransformerLM(SMALL), torch.zeros(1, 3, dtype=torch.long))
        assert torch.is_grad_enabled(), (
            "After the call PyTorch still builds no graph, of anything: no training would be "
            "possible any more. It should be so only while the model reads."
        )

    @pytest.mark.parametrize("habit", [leaves_its_inputs_alone, takes_any_memory_layout])
    def test_it_has_good_habits(self, impl, habit):
        model = randomize(TinyTransformerLM(SMALL))
        habit(partial(impl.next_token_distribution, model), torch.randint(11, (2, 5)))


class TestModelConfig:
    @pytest.mark.parametrize(
        "field, value",
        [
            *((name, 0) for name in ("vocab_size", "max_len", "d_model", "n_layers")),
            *((name, -1) for name in ("n_heads", "d_ff")),
            ("n_heads", 3),
            ("dropout", 1.0),
            ("dropout", -0.1),
            *(("dropout", value) for value in (math.nan, math.inf, True, None)),
            *(("d_model", value) for value in (128.0, math.nan, True, 2**63, "128")),
            ("norm", "batch"),
            ("activation", "swish"),
            ("positions", "alibi"),
        ],
    )
    def test_a_bad_value_is_an_error_that_names_its_field(self, field, value):
        with pytest.raises(ValueError, match=f"^{field} is {value!r}"):
            small(**{field: value})

    def test_rope_refuses_heads_of_odd_width(self):
        with pytest.raises(ValueError, match="so each is 3 wide; rope needs"):
            small(d_model=12, n_heads=4, positions="rope")

    def test_sinusoidal_positions_refuse_an_odd_width(self):
        with pytest.raises(ValueError, match="d_model is 15"):
            small(d_model=15, n_heads=5, positions="sinusoidal")

    def test_cannot_change_after_it_was_checked(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            SMALL.n_heads = 3

    @pytest.mark.parametrize("changes", [*VARIANTS, OTHERS], ids=name_of)
    def test_every_variant_is_accepted(self, changes):
        assert small(**changes).d_head == 4


class TestTheReference:
    @pytest.mark.parametrize("build_or_count", [TinyTransformerLM, count_parameters])
    @pytest.mark.parametrize("field", MODERN)
    def test_what_came_after_gpt_2_is_refused_by_its_name(self, build_or_count, field):
        message = f"^{field} is {OTHERS[field]!r}; GPT-2 has .*, and `modern.py` makes the others$"
        with pytest.raises(ValueError, match=message):
            build_or_count(small(**{field: OTHERS[field]}))

    @pytest.mark.parametrize("read", [2, 5])
    def test_a_cache_that_has_read_all_there_is_is_an_error(self, read):
        model, notes = TinyTransformerLM(SMALL), Notes()
        model(torch.zeros(1, read, dtype=torch.long), notes)
        with pytest.raises(ValueError, match=f"^tokens has 2 positions; the cache has read {read}"):
            model(torch.zeros(1, 2, dtype=torch.long), notes)

    def test_a_text_longer_than_the_context_is_named_with_it(self):
        with pytest.raises(ValueError, match="position 9; the context, max_len, is 8"):
            TinyTransformerLM(SMALL)(torch.zeros(1, 9, dtype=torch.long))

    def test_the_dropout_of_the_configuration_reaches_every_part(self):
        model = TinyTransformerLM(small(dropout=0.3))
        rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
        assert rates == [0.3] * (1 + 2 * SMALL.n_layers)

    @variants
    def test_what_can_be_computed_again_is_not_saved(self, changes):
        model = TinyTransformerLM(small(**changes))
        learned = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        assert set(model.state_dict()) == learned

    @pytest.mark.parametrize("shape", [(3,), (2, 3, 3)])
    def test_tokens_that_are_no_batch_of_texts_are_an_error(self, shape):
        with pytest.raises(ValueError, match=r"^tokens is \(.*\); it must be \(B, T\)$"):
            TinyTransformerLM(SMALL)(torch.zeros(shape, dtype=torch.long))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    @variants
    def test_computes_in_the_dtype_of_its_weights(self, changes, dtype):
        model, tokens = randomize(TinyTransformerLM(small(**changes))), torch.randint(11, (2, 8))
        expected, logits = model(tokens), copy.deepcopy(model).to(dtype)(tokens)
        assert logits.dtype == dtype
        torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.3)  # 8 bits

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_its_angles_are_exact_in_any_dtype(self, dtype):
        model = TinyTransformerLM(small(max_len=1024, positions="rope"))
        for changed in (copy.deepcopy(model).to(dtype), model.to(dtype).float()):
            expected = rotary_table(torch.arange(1024), SMALL.d_head)
            assert changed.cos.equal(expected[0])
            assert changed.sin.equal(expected[1])

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_an_error_while_dropout_rests_leaves_each_part_in_its_mode(self, error):
        model = TinyTransformerLM(SMALL).train()
        model.blocks[0].eval()  # frozen, say
        modes = [module.training for module in model.modules()]

        def fail(*_):
            raise error

        model.head.register_forward_hook(fail)
        with pytest.raises(error):
            next_token_distribution(model, torch.zeros(1, 3, dtype=torch.long))
        assert [module.training for module in model.modules()] == modes

    def test_initializing_keeps_the_head_tied(self):
        model = TinyTransformerLM(SMALL)
        init_weights(model)
        assert model.head.weight is model.embedding.token.weight
