"""What came after GPT-2: each part does what its paper says, and leaves the others as they are."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tiny_transformer.embeddings.reference import rotate
from tiny_transformer.tiny_lm.modern import (
    NGrams,
    TokenShift,
    build,
    count_modern_parameters,
    modernize,
)
from tiny_transformer.tiny_lm.reference import (
    MODERN,
    ModelConfig,
    TinyTransformerLM,
    init_weights,
)

SMALL = ModelConfig(vocab_size=11, max_len=8, d_model=16, n_layers=2, n_heads=4, d_ff=40)
CHANGES = [
    {"norm": "rms"},
    {"bias": False},
    {"tie_weights": False},
    {"qk_norm": True},
    {"activation": "relu2"},
    {"token_shift": True},
    {"ngrams": 13},
    {"zero_init": True},
]
ALL = {name: value for change in CHANGES for name, value in change.items()}
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5, 8, 9, 7, 9, 3]])

each_change = pytest.mark.parametrize("change", [*CHANGES, ALL], ids=lambda c: "-".join(c))
every_position = pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rope"])


def small(**changes):
    return dataclasses.replace(SMALL, **changes)


def randomize(model):
    """Move every parameter off its start: a scale of 1 or a share of 0 hides its absence."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 4)
    return model


class Notes:
    """A cache as plain as can be."""

    def __init__(self):
        self.length, self.kept = 0, {}

    def append(self, layer, k, v):
        if layer in self.kept:
            before = (old[:, :, : self.length] for old in self.kept[layer])
            k, v = (torch.cat(pair, dim=2) for pair in zip(before, (k, v), strict=True))
        self.kept[layer] = k, v
        return k, v


class TestModernize:
    def test_there_is_a_case_here_for_each_field(self):
        assert set(ALL) == set(MODERN)

    def test_a_classic_configuration_changes_nothing(self):
        torch.manual_seed(0)
        classic = TinyTransformerLM(SMALL)
        torch.manual_seed(0)
        built = build(SMALL)
        assert str(built) == str(classic) and built.config == SMALL
        for (name, ours), (other, theirs) in zip(
            built.state_dict().items(), classic.state_dict().items(), strict=True
        ):
            assert name == other and ours.equal(theirs)

    @each_change
    def test_the_model_knows_what_it_is(self, change):
        assert build(small(**change)).config == small(**change)

    @each_change
    def test_parameters_keep_the_order_by_which_an_optimizer_knows_them(self, change):
        config = small(**change)
        names = [name for name, _ in build(config).named_parameters()]
        block = [
            *(f"ln_1.{kind}" for kind in ("weight", "bias")),
            *(f"attention.{x}_proj.{kind}" for x in "qkv" for kind in ("weight", "bias")),
            *(f"attention.out_proj.{kind}" for kind in ("weight", "bias")),
            *(f"ln_2.{kind}" for kind in ("weight", "bias")),
            *(f"feed_forward.{x}.{kind}" for x in ("up", "down") for kind in ("weight", "bias")),
        ]
        expected = [
            *("embedding.token.weight", "embedding.position.weight", "shift.share"),
            *(f"ngrams.tables.{i}.weight" for i in range(3)),
            *(f"blocks.{layer}.{name}" for layer in range(2) for name in block),
            *("ln_f.weight", "ln_f.bias", "head.weight"),
        ]

        def is_there(name):
            if "ln_" in name and name.endswith("bias"):
                return config.norm == "layer"
            if name.endswith("bias"):
                return config.bias
            if name == "shift.share":
                return config.token_shift
            if "ngrams" in name:
                return config.ngrams
            return name != "head.weight" or not config.tie_weights

        assert names == [name for name in expected if is_there(name)]

    @each_change
    def test_a_state_has_each_parameter_and_nothing_that_can_be_computed(self, change):
        model = build(small(**change, positions="rope"))
        learned = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        assert set(model.state_dict()) == learned

    @pytest.mark.parametrize("change", [c for c in CHANGES if c != {"zero_init": True}], ids=str)
    def test_weights_that_were_there_stay(self, change):
        model = randomize(TinyTransformerLM(SMALL))
        before = copy.deepcopy(dict(model.named_parameters(remove_duplicate=False)))
        modernize(model, small(**change))
        new = {"tie_weights": "head.weight", "norm": "ln_", "token_shift": "shift.share"}
        new |= {"ngrams": "ngrams."}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            if new.get(next(iter(change)), "nothing") not in name:
                assert parameter.equal(before[name]), name

    def test_norms_of_the_new_kind_start_as_the_identity(self):
        model = randomize(TinyTransformerLM(SMALL))
        modernize(model, small(norm="rms"))
        scales = [p for name, p in model.named_parameters() if "ln_" in name]
        assert len(scales) == 5 and all((scale == 1).all() for scale in scales)

    def test_what_is_modern_is_not_changed_again(self):
        model = build(small(norm="rms"))
        for config in (SMALL, small(norm="rms"), small(bias=False)):
            with pytest.raises(ValueError, match="^the model is modern already; build another"):
                modernize(model, config)

    def test_a_model_of_another_shape_is_refused_and_left_as_it_was(self):
        model = TinyTransformerLM(SMALL)
        with pytest.raises(ValueError, match="^the model is of .*d_ff=40.*, not of .*d_ff=41"):
            modernize(model, small(d_ff=41, norm="rms"))
        assert model.config == SMALL and str(model) == str(TinyTransformerLM(SMALL))

    @each_change
    def test_parameters_are_counted_without_building(self, change):
        for positions in ("learned", "rope"):
            config = small(**change, positions=positions)
            built = sum(parameter.numel() for parameter in build(config).parameters())
            assert count_modern_parameters(config) == built

    @each_change
    def test_the_future_cannot_change_the_past(self, change):
        model, tokens = randomize(build(small(**change))), TOKENS.clone()
        before = model(tokens)
        tokens[:, 5:] = (tokens[:, 5:] + 1) % 11
        after = model(tokens)
        torch.testing.assert_close(after[:, :5], before[:, :5])
        assert not torch.allclose(after[:, 5:], before[:, 5:])

    @each_change
    def test_the_gradient_reaches_every_parameter(self, change):
        model = randomize(build(small(**change)))
        targets = torch.randint(11, TOKENS.shape)
        F.cross_entropy(model(TOKENS).flatten(0, 1), targets.flatten()).backward()
        unreached = {name for name, p in model.named_parameters() if not p.grad.any()}
        # A key bias adds the same to every score of a query, which the softmax ignores.
        assert all(name.endswith("k_proj.bias") for name in unreached)

    @each_change
    def test_a_copy_is_independent(self, change):
        model = randomize(build(small(**change)))
        twin = copy.deepcopy(model)
        before = model(TOKENS)
        assert twin(TOKENS).equal(before)
        for part in randomize(twin).parameters():
            part.data.mul_(2)
        assert model(TOKENS).equal(before)
        twin.load_state_dict(model.state_dict())
        assert twin(TOKENS).equal(before)

    @each_change
    def test_forward_is_the_call(self, change):
        model = randomize(build(small(**change, positions="rope")))
        embedding, attention = model.embedding, model.blocks[0].attention
        assert model.forward(TOKENS).equal(model(TOKENS))
        assert embedding.forward(TOKENS).equal(embedding(TOKENS))
        x = embedding(TOKENS)
        assert attention.forward(x).equal(attention(x))

    @each_change
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
    def test_computes_in_the_dtype_of_its_weights(self, change, dtype):
        model = randomize(build(small(**change, positions="rope")))
        expected, logits = model(TOKENS), model.to(dtype)(TOKENS)
        assert logits.dtype == dtype
        torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.3)  # 8 bits

    @pytest.mark.parametrize("dtype, device", [(torch.float64, "cpu"), (torch.float32, "meta")])
    def test_new_parts_are_of_the_kind_of_the_old(self, dtype, device):
        model = TinyTransformerLM(SMALL).to(device, dtype).eval()
        modernize(model, small(**ALL))
        kinds = {(p.dtype, p.device.type) for p in model.parameters()}
        assert kinds == {(dtype, device)}
        assert not any(part.training for part in model.modules())

    @each_change
    def test_dropout_is_as_strong_as_before(self, change):
        model = build(small(**change, dropout=0.3))
        rates = [part.p for part in model.modules() if isinstance(part, nn.Dropout)]
        assert rates == [0.3] * (1 + 2 * SMALL.n_layers)

    @pytest.mark.parametrize("change", [*CHANGES[:7], {**ALL, "zero_init": False}], ids=str)
    def test_the_first_loss_is_that_of_a_guess(self, change):
        torch.manual_seed(0)
        model = build(ModelConfig(**change))
        tokens = torch.randint(65, (4, 65))
        loss = F.cross_entropy(model(tokens[:, 1:]).flatten(0, 1), tokens[:, :-1].flatten())
        assert loss.item() == pytest.approx(4.174, abs=0.15)  # ln 65

    def test_a_learner_s_first_weights_fit_too(self):
        model = build(small(norm="rms", bias=False, tie_weights=False))
        init_weights(model)
        assert (model.blocks[0].ln_1.weight == 1).all()


class TestCache:
    """Of the whole window a model computes what its cache has not read."""

    @every_position
    @pytest.mark.parametrize("ends", [(8,), (3, 4, 5, 6, 7, 8), (2, 5, 8)], ids=str)
    @each_change
    @torch.no_grad()
    def test_it_changes_no_logits(self, change, positions, ends):
        model, cache = randomize(build(small(**change, positions=positions))), Notes()
        logits = torch.cat([model(TOKENS[:, :end], cache) for end in ends], dim=1)
        torch.testing.assert_close(logits, model(TOKENS), rtol=1e-4, atol=1e-5)

    @every_position
    @torch.no_grad()
    def test_two_texts_that_take_turns_do_not_meet(self, positions):
        model, caches = randomize(build(small(**ALL, positions=positions))), (Notes(), Notes())
        logits = ([], [])
        for end in (3, 4, 8):
            for which, cache in enumerate(caches):
                logits[which].append(model(TOKENS[which : which + 1, :end], cache))
        together = torch.cat([torch.cat(parts, dim=1) for parts in logits])
        torch.testing.assert_close(together, model(TOKENS), rtol=1e-4, atol=1e-5)

    @torch.no_grad()
    def test_guesses_that_were_wrong_leave_nothing_behind(self):
        model, cache = randomize(build(small(**ALL, positions="rope"))), Notes()
        guessed = TOKENS.clone()
        guessed[:, 4:] = (guessed[:, 4:] + 1) % 11
        model(guessed, cache)
        cache.length = 4
        torch.testing.assert_close(model(TOKENS, cache), model(TOKENS)[:, 4:], rtol=1e-4, atol=1e-5)

    @torch.no_grad()
    def test_a_window_that_moved_on_begins_with_no_token_before_it(self):
        model = randomize(build(small(**ALL, positions="rope")))
        cache, window = Notes(), TOKENS[:, 3:]
        parts = [model(window[:, :end], cache) for end in (2, 5)]
        torch.testing.assert_close(torch.cat(parts, 1), model(window), rtol=1e-4, atol=1e-5)


class TestRMSNorm:
    def test_every_norm_is_exchanged(self):
        model = build(small(norm="rms"))
        norms = [type(m).__name__ for m in model.modules() if "Norm" in type(m).__name__]
        assert norms == ["RMSNorm"] * 5


class TestBias:
    def test_linear_layers_of_the_blocks_have_none_and_layer_norm_keeps_its_own(self):
        model = build(small(bias=False))
        layers = [m for m in model.blocks.modules() if isinstance(m, nn.Linear)]
        assert len(layers) == 12 and all(layer.bias is None for layer in layers)
        assert model.ln_f.bias is not None and model.blocks[0].ln_1.bias is not None


class TestHead:
    def test_one_of_its_own_is_no_copy_of_the_table(self):
        model = build(ModelConfig(tie_weights=False))
        assert model.head.weight.requires_grad
        assert not model.head.weight.equal(model.embedding.token.weight)
        assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.05)


class TestSquaredReLU:
    def test_is_the_square_of_relu(self):
        feed_forward = randomize(build(small(activation="relu2"))).blocks[0].feed_forward
        x = torch.randn(3, 16)
        expected = feed_forward.down(feed_forward.up(x).clamp(min=0) ** 2)
        torch.testing.assert_close(feed_forward(x), expected)

    def test_drops_at_its_end(self):
        feed_forward = build(small(activation="relu2", dropout=0.5)).blocks[0].feed_forward
        x = torch.randn(100, 16)
        dropped = (feed_forward(x) == 0).float().mean().item()
        assert dropped == pytest.approx(0.5, abs=0.06)
        assert (feed_forward.eval()(x) != 0).all()


class TestQKNorm:
    @every_position
    def test_forgets_how_long_queries_and_keys_are(self, positions):
        model = randomize(build(small(qk_norm=True, positions=positions)))
        before = model(TOKENS)
        with torch.no_grad():
            for layer in (model.blocks[0].attention.q_proj, model.blocks[1].attention.k_proj):
                layer.weight.mul_(7)
                layer.bias.mul_(7)
        torch.testing.assert_close(model(TOKENS), before, rtol=1e-3, atol=1e-3)

    def test_queries_and_keys_have_size_1_before_they_turn_and_values_stay(self):
        seen = []
        attention = randomize(build(small(qk_norm=True))).blocks[0].attention

        def turn(x):
            seen.append(x)
            return rotate(x, torch.arange(5))

        def remember(k, v):
            seen.extend((k, v))
            return k, v

        x = torch.randn(2, 5, 16)
        attention(x, rotate=turn, remember=remember)
        q, k, remembered, v = seen
        for vectors in (q, k):
            size = vectors.square().mean(dim=-1)
            torch.testing.assert_close(size, torch.ones_like(size), rtol=1e-3, atol=0)
        torch.testing.assert_close(remembered, rotate(k, torch.arange(5)))
        assert v.transpose(1, 2).flatten(2).equal(attention.v_proj(x))

    def test_shows_weights_as_attention_does(self):
        attention = randomize(build(small(qk_norm=True))).blocks[0].attention
        x = torch.randn(2, 5, 16)
        out, weights = attention(x, return_weights=True)
        assert weights.shape == (2, 4, 5, 5)
        torch.testing.assert_close(out, attention(x))


class TestTokenShift:
    @pytest.fixture
    def model(self):
        return randomize(build(small(token_shift=True, positions="rope")))

    def test_adds_a_share_of_the_token_before(self):
        shift, x = TokenShift(3), torch.tensor([[[1.0, 2.0, 3.0], [5.0, 7.0, 9.0]]])
        assert shift(x).equal(x)  # at first
        shift.share.data = torch.tensor([1.0, 0.5, 0.0])
        assert shift(x).tolist() == [[[1, 2, 3], [6, 8, 9]]]

    def test_stands_between_the_embedding_and_the_first_block(self, model):
        seen = []
        model.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        model(TOKENS)
        vectors = model.embedding.token(TOKENS)
        torch.testing.assert_close(seen[0], model.shift(vectors))
        assert not torch.allclose(seen[0], vectors)

    @pytest.mark.parametrize("start", range(8))
    def test_what_begins_later_knows_the_token_before(self, model, start):
        later = model.embedding(TOKENS, start)
        torch.testing.assert_close(later, model.embedding(TOKENS)[:, start:])

    def test_comes_after_dropout(self):
        # What was dropped for a token is dropped for the one after it, which reads its vector.
        model = build(small(token_shift=True, positions="rope", dropout=0.5))
        with torch.no_grad():
            model.embedding.token.weight.fill_(1.0)
            model.shift.share.fill_(10.0)
        x = model.embedding(TOKENS)
        own, before = x[:, 1:] % 10, x[:, :-1] % 10  # each 0 or 2, as dropout makes of 1
        torch.testing.assert_close(x[:, 1:], own + 10 * before)
        assert {0.0, 2.0} == set(own.flatten().tolist())

    def test_has_one_name(self, model):
        names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
        assert [name for name in names if "share" in name] == ["shift.share"]


class TestNGrams:
    def test_each_table_is_read_by_so_many_tokens_and_two_may_share_a_row(self):
        ngrams = randomize(NGrams(vocab_size=11, rows=13, d_model=2))
        expected = torch.zeros(8, 2)
        padded = [0, 0, 0, *TOKENS[0].tolist()]
        for t in range(8):
            for n, table in zip((2, 3, 4), ngrams.tables, strict=True):
                number = 0
                for token in reversed(padded[t + 4 - n : t + 4]):
                    number = number * 11 + token
                expected[t] += 3 * table.weight[number % 13]
        torch.testing.assert_close(ngrams(TOKENS)[0], expected)

    def test_what_begins_later_knows_the_tokens_before(self):
        model = randomize(build(small(ngrams=13, token_shift=True, positions="rope")))
        for start in range(8):
            later = model.embedding(TOKENS, start)
            torch.testing.assert_close(later, model.embedding(TOKENS)[:, start:])

    def test_starts_as_nothing(self):
        assert not NGrams(vocab_size=11, rows=13, d_model=2)(TOKENS).any()


class TestSilentStart:
    def test_every_block_is_the_identity(self):
        model, x = build(small(zero_init=True)), torch.randn(2, 8, 16)
        assert all(block(x).equal(x) for block in model.blocks)

    def test_with_a_head_of_its_own_all_tokens_are_equally_likely(self):
        model = build(ModelConfig(zero_init=True, tie_weights=False))
        assert model(TOKENS).count_nonzero() == 0
        assert model.embedding.token.weight.std().item() == pytest.approx(0.3, rel=0.05)

    def test_a_tied_table_keeps_its_size(self):
        model = build(ModelConfig(zero_init=True))
        assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.05)
