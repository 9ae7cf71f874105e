"""Module 04. `impl` is the reference in one run of each test and your exercises in the other."""

import itertools
import math
from contextlib import suppress

import pytest
import torch

from tiny_transformer.embeddings.reference import (
    CharTokenizer,
    TransformerEmbedding,
    rotate,
    sinusoidal_positions,
)
from tiny_transformer.setup.grading.doors import heeds, unused
from tiny_transformer.setup.grading.elsewhere import never_leaves
from tiny_transformer.setup.grading.examples import the_example_is_true
from tiny_transformer.setup.grading.habits import HABITS, has_parameters, is_dropped_out, refuses


def same(a, b):
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)


def told(numbers):
    return f"[{', '.join(f'{round(number, 6) + 0:.3g}' for number in numbers.tolist())}]"


@pytest.mark.exercise("CharTokenizer")
class TestCharTokenizer:
    def test_ids_count_the_distinct_characters_in_sorted_order(self, impl):
        tokenizer = impl.CharTokenizer("hello, World")
        ids = list(tokenizer.encode(" ,Wdehlor"))
        assert ids == list(range(9)), (
            "the nine characters of 'hello, World', in sorted order ' ,Wdehlor', get the ids "
            f"{ids}; they should get 0 to 8."
        )

    def test_encoding_gives_a_list_of_ints(self, impl):
        ids = impl.CharTokenizer("abc").encode("cab")
        assert isinstance(ids, list) and all(type(i) is int for i in ids), (
            f"encode returned {ids!r}, a {type(ids).__name__}; it should be a list of ints."
        )

    def test_the_vocabulary_is_as_large_as_there_are_distinct_characters(self, impl):
        vocab_size = impl.CharTokenizer("banana").vocab_size
        assert not callable(vocab_size), (
            "`vocab_size` is a method here and should be read without parentheses: keep the "
            "@property above it."
        )
        assert vocab_size == 3

    def test_white_space_counts_like_any_character(self, impl):
        assert (impl.CharTokenizer("banana").vocab_size, impl.CharTokenizer("z").vocab_size) == (
            3,
            1,
        )
        for text in "\n a \n", " ", "\t\n":
            try:
                size = impl.CharTokenizer(text).vocab_size
            except ValueError as error:
                pytest.fail(
                    f"{text!r} was refused: ValueError({str(error)!r}). White space is characters "
                    'too; only "" has none.',
                    pytrace=False,
                )
            assert size == len(set(text)), (
                f"{text!r} has {len(set(text))} distinct characters, and vocab_size is {size!r}. "
                "White space counts like any other character, at the ends too."
            )

    @pytest.mark.parametrize("text", ["ROMEO:\nO, speak again", "naïve café — 字", "z"])
    def test_decoding_undoes_encoding(self, impl, text):
        tokenizer = impl.CharTokenizer(text)
        decoded = tokenizer.decode(tokenizer.encode(text))
        assert isinstance(decoded, str), (
            f"decode returned a {type(decoded).__name__}; it should be one string, all characters "
            "joined."
        )
        assert decoded == text

    def test_decodes_a_tensor_as_it_does_a_list(self, impl):
        assert impl.CharTokenizer("abc").decode(torch.tensor([2, 0, 1])) == "cab"

    def test_no_text_is_no_tokens(self, impl):
        assert impl.CharTokenizer("abc").encode("") == []

    def test_no_tokens_are_no_text(self, impl):
        assert impl.CharTokenizer("abc").decode([]) == ""

    def test_an_unknown_character_is_an_error_that_names_it(self, impl):
        tokenizer = impl.CharTokenizer("cafe")
        assert list(tokenizer.encode("face")) == [3, 0, 1, 2]
        with pytest.raises(ValueError) as caught:
            tokenizer.encode("café")
        assert "é" in str(caught.value).replace("café", ""), (
            f"encoding 'café' with an unknown 'é' raised ValueError({str(caught.value)!r}), whose "
            "message does not say which character is unknown."
        )

    def test_a_text_without_characters_is_an_error(self, impl):
        refuses(impl.CharTokenizer, "")

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "CharTokenizer")


def start_random(make):
    table, other = make().weight, make().weight
    assert table.isfinite().all() and 1e-3 < table.std() < 10, (
        f"the table starts with a standard deviation of {table.std().item():.2g}; its rows should "
        "start random, about 1 in size or somewhat less. torch.empty and zeros are not random."
    )
    assert len(table.unique(dim=0)) == len(table), "two rows of the table start alike."
    assert not torch.equal(table, other), "two tables start alike: nothing is random in them."


def looks_up(table, ids, name):
    """That a table gives for each of `ids` the row of its weight as it was before."""
    weight = table.weight.detach().clone()
    out = table(ids)
    assert torch.equal(table.weight, weight), (
        "to look something up changes its weight; it should leave it as it was."
    )
    assert same(table(ids), out), (
        "the same ids, looked up twice, give different numbers: something is random that should "
        "not be."
    )
    assert out.shape == (*ids.shape, weight.size(1))
    for i, got in zip(ids.flatten().tolist(), out.reshape(-1, weight.size(1)), strict=True):
        rows = [row for row, vector in enumerate(weight) if same(got, vector)]
        came = f"row {rows[0]} of its weight" if rows else f"{told(got)}, which is no row there"
        assert same(got, weight[i]), f"{name} {i} gives {came}; it should give row {i}."
    torch.testing.assert_close(out, weight[ids])


@pytest.mark.exercise("TokenEmbedding")
class TestTokenEmbedding:
    def test_it_has_the_parameters_of_the_course(self, impl):
        has_parameters(impl.TokenEmbedding(7, 4), {"weight": (7, 4)})

    def test_its_rows_start_random(self, impl):
        start_random(lambda: impl.TokenEmbedding(50, 8))

    @pytest.mark.parametrize("shape", [(2, 5), (1, 1)])
    def test_looks_each_token_up(self, impl, shape):
        looks_up(impl.TokenEmbedding(7, 4), torch.randint(7, shape), "token")

    def test_a_token_seen_twice_learns_from_both(self, impl):
        embedding, tokens = impl.TokenEmbedding(5, 3), torch.tensor([[2, 0, 2, 4]])
        upstream, out = torch.randn(1, 4, 3), embedding(tokens)
        torch.testing.assert_close(out, embedding.weight[tokens])
        (out * upstream).sum().backward()
        expected = torch.zeros(5, 3)
        expected[0], expected[4] = upstream[0, 1], upstream[0, 3]
        expected[2] = upstream[0, 0] + upstream[0, 2]
        for i, (got, wanted) in enumerate(zip(embedding.weight.grad, expected, strict=True)):
            assert torch.allclose(got, wanted), (
                f"in [2, 0, 2, 4] token {i} stands at {[2, 0, 2, 4].count(i)} of the 4 places. The "
                f"gradient of its row should be the sum of what comes back there, {told(wanted)}; "
                f"it is {told(got)}."
            )

    @pytest.mark.parametrize("habit", HABITS)
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.TokenEmbedding(7, 4), torch.randint(7, (2, 5)))


def waves(T, d_model):
    """Feature by feature, as the paper has it."""
    table = torch.empty(T, d_model)
    for t in range(T):
        for i in range(d_model // 2):
            angle = t / 10000 ** (2 * i / d_model)
            table[t, 2 * i], table[t, 2 * i + 1] = math.sin(angle), math.cos(angle)
    return table


def has_the_speeds(angles):
    """That pair i of 4 turns at position 1 by 10000^(-i / 4); whole turns more do not show."""
    angles, exponents = angles.double(), torch.arange(4).double() / 4
    upwards = 10000**exponents
    assert not torch.allclose(angles, torch.atan2(upwards.sin(), upwards.cos()), atol=1e-2), (
        "its pairs turn by position * 10000^(2i / 8), each faster than the one before; it should "
        "be position / 10000^(2i / 8), each slower. A minus in the exponent makes it so, or a "
        "division; both together do not."
    )
    if 0 < angles[3] and angles[0] < 1.01 and (angles.diff() < 1e-6).all():  # no whole turns
        speed, seen = angles[0].item(), -angles.log() / math.log(10000)
        assert abs(speed - 1) < 1e-3 or not torch.allclose(
            angles * upwards, angles[0], rtol=1e-3
        ), (
            f"each pair turns at {speed:.4g} times the speed that it should have: the angle, in "
            "radians, is position / 10000^(2i / 8)."
        )
        base = 10000 ** (seen[1] / exponents[1]).item()
        other = (
            f", or as if 10000 were {base:.4g}"
            if torch.allclose(seen, exponents * math.log(base, 10000), atol=1e-3)
            else ""
        )
        assert torch.allclose(seen, exponents, atol=1e-3), (
            f"its pairs turn as if the exponents of 10000 were {told(seen)}{other}; with a width "
            f"of 8 they should be 2i / 8 for i = 0 to 3: {told(exponents)}."
        )
    assert torch.allclose(angles, 1 / upwards, atol=1e-5), (
        f"from position 0 to 1 its pairs turn by {told(angles)} radians, whole turns left out; "
        f"they should by {told(1 / upwards)}, that is 1 / 10000^(2i / 8) for i = 0 to 3."
    )


@pytest.mark.exercise("sinusoidal_positions")
class TestSinusoidalPositions:
    def test_the_speeds_of_its_waves(self, impl):
        table = impl.sinusoidal_positions(4, 8).double()
        squares = table[:, 0::2].square() + table[:, 1::2].square()
        for t, i in itertools.product(range(4), range(4)):
            assert abs(squares[t, i] - 1) < 1e-2, (
                f"features {2 * i} and {2 * i + 1} are sine and cosine of one angle, so that their "
                f"squares add up to 1; at position {t} they add up to {squares[t, i]:.4g}."
            )
        angles = torch.atan2(table[1, 0::2], table[1, 1::2])
        turns = torch.arange(4)[:, None] * angles
        paired = torch.stack((turns.sin(), turns.cos()), dim=-1).flatten(1)
        torch.testing.assert_close(table, paired, rtol=0, atol=1e-2)
        has_the_speeds(angles)

    @pytest.mark.parametrize("T, d_model", [(40, 16), (1, 2)])
    def test_is_the_formula_of_the_paper(self, impl, T, d_model):
        # An angle near 40 is known to 4e-6 in float32, and so are its sine and cosine.
        table = impl.sinusoidal_positions(T, d_model)
        torch.testing.assert_close(table, waves(T, d_model), rtol=0, atol=1e-5)

    def test_far_positions_are_as_right_as_near_ones(self, impl):
        table, expected = impl.sinusoidal_positions(2100, 4), waves(2100, 4)
        torch.testing.assert_close(table[:40], expected[:40], rtol=0, atol=1e-5)
        off = (table - expected).abs().amax(dim=1)
        assert off.isfinite().all() and off.max() < 1e-3, (
            f"positions 0 to 39 are right, and position {(~(off < 1e-3)).nonzero()[0].item()} is "
            "not. Are positions or angles kept in fewer digits than float32 has?"
        )

    @pytest.mark.parametrize("shift", [1, 9])
    def test_a_shift_turns_each_pair_by_the_same_angle_everywhere(self, impl, shift):
        table = impl.sinusoidal_positions(40, 16)
        pairs = torch.complex(table[:, 1::2], table[:, 0::2])  # cos + i sin
        turned = pairs[:-shift] * pairs[shift]
        torch.testing.assert_close(pairs[shift:], turned, rtol=0, atol=1e-5)

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "sinusoidal_positions")


@pytest.mark.exercise("LearnedPositions")
class TestLearnedPositions:
    def test_it_has_the_parameters_of_the_course(self, impl):
        has_parameters(impl.LearnedPositions(max_len=8, d_model=4), {"weight": (8, 4)})

    def test_its_rows_start_random(self, impl):
        start_random(lambda: impl.LearnedPositions(50, 8))

    @pytest.mark.parametrize("positions", [[0, 1, 2], [6, 7], [0], [5, 1, 5, 7]])
    def test_looks_each_position_up(self, impl, positions):
        looks_up(impl.LearnedPositions(8, 4), torch.tensor(positions), "position")

    def test_the_gradient_reaches_the_positions_that_were_read_and_no_others(self, impl):
        layer = impl.LearnedPositions(max_len=4, d_model=2)
        out = layer(torch.arange(3))
        torch.testing.assert_close(out, layer.weight[:3])
        out.sum().backward()
        assert layer.weight.grad.tolist() == [[1, 1], [1, 1], [1, 1], [0, 0]], (
            "positions 0, 1 and 2 of 4 were read and their sum taken, so rows 0 to 2 of its weight "
            f"should have a gradient of 1 and row 3 of 0; it is {layer.weight.grad.tolist()}."
        )

    @pytest.mark.parametrize("habit", HABITS)
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.LearnedPositions(8, 4), torch.arange(5))


NOT_AT_REST = (
    "after .eval() two calls with the same tokens give different numbers: in evaluation dropout "
    "must rest."
)


def adds(embedding, positions, tokens):
    """That it adds these vectors, (T, d_model), to those of its tokens."""
    out, vectors = embedding(tokens), embedding.token(tokens)
    assert out.shape == vectors.shape
    for t, (got, wanted) in enumerate(zip((out - vectors)[0], positions, strict=True)):
        assert same(got, wanted), (
            f"its result minus the tokens' vectors is {told(got)} at position {t}, where "
            f"{told(wanted)} should be added."
        )
    torch.testing.assert_close(out, vectors + positions)


@pytest.mark.exercise("TransformerEmbedding")
class TestTransformerEmbedding:
    def test_without_dropout_nothing_is_random(self, impl):
        embedding, tokens = impl.TransformerEmbedding(7, 4, max_len=8), torch.randint(7, (2, 5))
        assert same(embedding(tokens), embedding(tokens)), (
            "built without `dropout`, which is then 0, it gives different numbers for the same "
            "tokens: something is drawn at random that nobody has asked for."
        )

    @pytest.mark.parametrize("B, T", [(2, 5), (1, 1), (2, 8)])
    def test_learned_positions_are_added_to_the_tokens(self, impl, B, T):
        embedding = impl.TransformerEmbedding(7, 4, max_len=8)
        adds(embedding, embedding.position(torch.arange(T)), torch.randint(7, (B, T)))

    def test_sinusoidal_positions_are_added_to_the_tokens(self, impl):
        embedding = impl.TransformerEmbedding(7, 4, max_len=8, positions="sinusoidal")
        adds(embedding, sinusoidal_positions(5, 4), torch.randint(7, (2, 5)))

    def test_rope_adds_nothing_here(self, impl):
        embedding = impl.TransformerEmbedding(7, 4, max_len=8, positions="rope")
        adds(embedding, torch.zeros(5, 4), torch.randint(7, (2, 5)))

    def test_learned_positions_are_parameters(self, impl):
        embedding = impl.TransformerEmbedding(7, 4, max_len=8)
        has_parameters(embedding, {"token.weight": (7, 4), "position.weight": (8, 4)})

    @pytest.mark.parametrize("positions", ["sinusoidal", "rope"])
    def test_other_positions_are_no_parameters(self, impl, positions):
        embedding = impl.TransformerEmbedding(7, 4, max_len=8, positions=positions)
        names = [name for name, _ in embedding.named_parameters()]
        assert names == ["token.weight"], (
            f"with positions={positions!r} its parameters are {', '.join(names)}; only "
            "token.weight should be one. A learned table is made for 'learned' alone; waves are "
            "not even a frozen parameter, since the model draws all anew (module 05): a buffer."
        )

    @pytest.mark.parametrize("positions", ["sinusoidal", "rope"])
    def test_other_positions_are_not_saved(self, impl, positions):
        saved = list(impl.TransformerEmbedding(7, 4, 8, positions=positions).state_dict())
        assert saved == ["token.weight"], (
            f"with positions={positions!r} its state dict holds {', '.join(saved)}; it should hold "
            "token.weight alone. Waves can be computed again, as a buffer with persistent=False; a "
            "learned table is made for 'learned' alone."
        )

    @pytest.mark.parametrize("positions", ["alibi", "Learned", ""])
    def test_an_unknown_kind_of_positions_is_an_error(self, impl, positions):
        try:
            impl.TransformerEmbedding(7, 4, max_len=8, positions=positions)
        except ValueError:
            return
        raise AssertionError(f"positions={positions!r} was built; it should raise a ValueError.")

    def test_what_it_keeps_moves_with_it(self, impl):
        embedding = impl.TransformerEmbedding(7, 4, max_len=8, positions="sinusoidal")
        left = [name for name, value in vars(embedding).items() if isinstance(value, torch.Tensor)]
        tokens = torch.zeros(2, 5, dtype=torch.long)
        embedding(tokens)
        if never_leaves(embedding, tokens):
            return
        try:
            embedding.to("meta")(tokens.to("meta"))
        except RuntimeError as error:  # or it looks at its numbers, which are not there
            assert not left or "device" not in str(error), (
                f"its `{'`, `'.join(left)}` is a tensor that stays on the CPU when the model is "
                "moved to a GPU: register_buffer(name, tensor, persistent=False) lets it move."
            )

    @pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rope"])
    def test_keeps_the_dtype_of_its_weights(self, impl, positions):
        embedding = impl.TransformerEmbedding(7, 4, 8, positions=positions)
        tokens = torch.zeros(2, 5, dtype=torch.long)
        assert embedding(tokens).dtype == torch.float32
        came = embedding.bfloat16()(tokens).dtype
        assert came == torch.bfloat16, (
            f"with positions={positions!r} a model in bfloat16 got {came}: what is added to the "
            "tokens' vectors, or what comes of it, should have their dtype."
        )

    def test_looks_positions_up_on_the_device_of_its_tokens(self, impl):
        embedding = impl.TransformerEmbedding(7, 4, max_len=8)
        tokens = torch.zeros(2, 5, dtype=torch.long)
        embedding(tokens)
        if never_leaves(embedding, tokens):
            return
        devices = []  # the meta device lets a CPU index pass, which a GPU would not
        embedding.position.register_forward_pre_hook(lambda _, args: devices.append(args[0].device))
        with suppress(RuntimeError):  # of code that looks at its numbers, which are not there
            embedding.to("meta")(tokens.to("meta"))
        assert all(device.type == "meta" for device in devices), (
            "the positions are made on the CPU, wherever the tokens lie: give torch.arange "
            "device=tokens.device, or a GPU will refuse."
        )

    @pytest.mark.parametrize("habit", HABITS)
    @pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rope"])
    def test_it_has_good_habits(self, impl, positions, habit):
        embedding = impl.TransformerEmbedding(7, 4, max_len=8, positions=positions)
        habit(embedding, torch.randint(7, (2, 5)))

    @pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rope"])
    def test_dropout_acts_on_the_sum_in_training(self, impl, positions):
        embedding = impl.TransformerEmbedding(7, 4, 8, dropout=0.25, positions=positions)
        with torch.no_grad():
            embedding.token.weight.uniform_(2, 3)  # so that no sum is 0
        tokens = torch.randint(7, (64, 8))
        noisy, whole = embedding(tokens), embedding.eval()(tokens)
        assert same(whole, embedding(tokens)), NOT_AT_REST
        is_dropped_out(noisy, whole, 0.25, "the sum of tokens and positions")

    def test_dropout_rests_in_evaluation(self, impl):
        embedding = impl.TransformerEmbedding(7, 4, max_len=8, dropout=0.5).eval()
        tokens = torch.randint(7, (2, 5))
        assert same(embedding(tokens), embedding(tokens)), NOT_AT_REST
        expected = embedding.token(tokens) + embedding.position(torch.arange(5))
        torch.testing.assert_close(embedding(tokens), expected)


@pytest.mark.exercise("TransformerEmbedding")
@pytest.mark.door
class TestStart:
    def embedding(self, impl, positions, **options):
        learned = impl.TransformerEmbedding(7, 4, max_len=8)
        if not heeds(learned, "start", 2, torch.randint(7, (2, 5))):
            pytest.skip(unused("TransformerEmbedding", "start"))
        return impl.TransformerEmbedding(7, 4, max_len=8, positions=positions, **options)

    @pytest.mark.parametrize("start", [0, 1, 7])
    @pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rope"])
    def test_the_vectors_are_those_of_the_whole_from_there_on(self, impl, positions, start):
        embedding = self.embedding(impl, positions)
        tokens = torch.randint(7, (2, 8))
        torch.testing.assert_close(embedding(tokens, start=start), embedding(tokens)[:, start:])

    def test_only_what_stands_there_is_looked_up(self, impl):
        embedding = self.embedding(impl, "learned")
        embedding(torch.tensor([[6, 5, 0, 1]]), start=2).sum().backward()
        read = [table.grad.any(dim=1).nonzero().flatten().tolist() for table in tables(embedding)]
        assert read == [[0, 1], [2, 3]], (
            "with start=2 of tokens 6, 5, 0, 1 the gradient should reach tokens [0, 1] at "
            f"positions [2, 3]; it reaches tokens {read[0]} at positions {read[1]}."
        )

    def test_dropout_acts_in_training(self, impl):
        embedding = self.embedding(impl, "learned", dropout=0.5)
        tokens = torch.randint(7, (2, 8))
        assert not torch.allclose(embedding(tokens, start=2), embedding(tokens, start=2)), (
            "with `start`, dropout=0.5 changes nothing in training: two calls give the same."
        )


def tables(embedding):
    return embedding.token.weight, embedding.position.weight


def as_complex(x):
    """Features i and i + d_head / 2 as the parts of one number."""
    return torch.complex(*x.chunk(2, dim=-1))


def angles_of(positions):
    """Of the four pairs of 8 features."""
    return positions[:, None] / 10000 ** (torch.arange(4, dtype=torch.float64) / 4)


def turned(x, angles):
    pairs = as_complex(x.double()) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((pairs.real, pairs.imag), dim=-1)


@pytest.mark.exercise("rotate")
class TestRotate:
    @pytest.mark.parametrize("habit", HABITS)
    def test_it_has_good_habits(self, impl, habit):
        habit(impl.rotate, torch.randn(2, 5, 8), torch.arange(5))

    @pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
    @pytest.mark.parametrize("positions", [[0, 1, 2, 3], [9, 4, 4, 31], [5]])
    def test_turns_pair_i_like_a_complex_number(self, impl, positions, lead):
        x = torch.randn(*lead, len(positions), 8)
        positions = torch.tensor(positions)
        expected = turned(x, angles_of(positions)).float()
        # An angle near 31 is known to 2e-6 in float32.
        torch.testing.assert_close(impl.rotate(x, positions), expected, rtol=0, atol=1e-5)

    def test_the_speed_of_each_pair(self, impl):
        x = torch.randn(2, 8)
        out = impl.rotate(x.clone(), torch.arange(2)).double()
        angles = (as_complex(out[1]) / as_complex(x[1].double())).angle()
        # That it is a turn, of pairs i and i + 4, and none at position 0.
        expected = turned(x, torch.stack((torch.zeros(4), angles)))
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
        has_the_speeds(angles)

    def test_position_0_stays_as_it_is(self, impl):
        x = torch.randn(2, 3, 8)
        out = impl.rotate(x.clone(), torch.zeros(3, dtype=torch.long))
        assert out.shape == x.shape
        for vector, came in zip(x.flatten(0, 1), out.flatten(0, 1), strict=True):
            signed = {
                f"{sign}x{i}": (1 - 2 * bool(sign)) * x_i
                for i, x_i in enumerate(vector)
                for sign in ("", "-")
            }
            names = [
                next((name for name, x_i in signed.items() if same(x_i, feature)), None)
                for feature in came
            ]
            assert same(came, vector) or None in names, (
                "position 0 turns by an angle of 0, whose cosine is 1 and sine 0. Of x0 to x7, the "
                f"features of a vector, there comes out {', '.join(names)}: they should keep their "
                "places and signs. Pair i is features i and i + d_head / 2."
            )
        assert same(out, x), "a vector at position 0 is turned by no angle, and came out another."

    def test_lengths_stay_as_they_are(self, impl):
        x = torch.randn(20, 8)
        out = impl.rotate(x.clone(), torch.arange(20))
        assert out.shape == x.shape
        for t, (now, then) in enumerate(zip(out.norm(dim=-1), x.norm(dim=-1), strict=True)):
            assert same(now, then), (
                f"to turn a vector keeps its length; at position {t} it was {then:.4g} and became "
                f"{now:.4g}."
            )

    @pytest.mark.parametrize("shift", [1, 50])
    def test_a_score_depends_on_the_distance_alone(self, impl, shift):
        q, k = torch.randn(6, 8), torch.randn(6, 8)
        near = torch.arange(6)
        scores = impl.rotate(q, near) @ impl.rotate(k, near).mT
        shifted = impl.rotate(q, near + shift) @ impl.rotate(k, near + shift).mT
        torch.testing.assert_close(shifted, scores, rtol=0, atol=1e-4)  # an angle near 56: 4e-6

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
    def test_keeps_the_dtype(self, impl, dtype):
        came = impl.rotate(torch.randn(3, 8, dtype=dtype), torch.arange(3)).dtype
        assert came == dtype, f"{dtype} went in and {came} came out; x's dtype should stay."

    def test_far_positions_turn_as_right_as_near_ones(self, impl):
        x, positions = torch.randn(3, 8), torch.tensor([3, 257, 4097])
        out, exact = impl.rotate(x.clone(), positions), turned(x, angles_of(positions)).float()
        torch.testing.assert_close(out[0], exact[0], rtol=0, atol=1e-5)
        assert torch.allclose(out, exact, rtol=0, atol=1e-2), (
            "position 3 is turned right, and position 257 or 4097 is not. Are positions or angles "
            "kept in fewer digits than float32 has?"
        )

    def test_angles_are_exact_in_bfloat16_too(self, impl):
        x, positions = torch.randn(3, 8).bfloat16(), torch.tensor([3, 257, 1001])
        exact = turned(x, angles_of(positions)).float()
        torch.testing.assert_close(impl.rotate(x.float(), positions), exact, rtol=0, atol=1e-3)
        off = (impl.rotate(x, positions).float() - exact).abs().max().item()
        assert off < 0.05, (
            f"positions 3, 257 and 1001 come out right for x in float32 and off by up to {off:.2g} "
            "for x in bfloat16, which has 8 binary digits: 257 would be 256 there. The angles must "
            "be float32 whatever x is; their cosine and sine may then take its dtype."
        )

    @pytest.mark.parametrize("width", [7, 1])
    def test_an_odd_width_is_an_error(self, impl, width):
        with pytest.raises(ValueError):
            impl.rotate(torch.randn(3, width), torch.arange(3))

    def test_its_example_is_true(self, impl):
        the_example_is_true(impl, "rotate")


class TestTheReference:
    @pytest.mark.parametrize("start", [0, 6])
    @pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
    def test_positions_outside_the_context_are_an_error(self, positions, start):
        embedding = TransformerEmbedding(7, 4, max_len=8, positions=positions)
        with pytest.raises(IndexError):
            embedding(torch.zeros(1, 9, dtype=torch.long), start)

    @pytest.mark.parametrize("start", [-1, 3, 7])
    @pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rope"])
    def test_a_start_at_which_no_token_stands_is_named(self, positions, start):
        embedding = TransformerEmbedding(7, 4, max_len=8, positions=positions)
        with pytest.raises(ValueError, match=f"^start is {start}; tokens has 3 positions$"):
            embedding(torch.zeros(1, 3, dtype=torch.long), start)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_its_waves_are_exact_in_a_model_of_any_dtype(self, dtype):
        embedding = TransformerEmbedding(7, 4, max_len=1024, positions="sinusoidal")
        exact = sinusoidal_positions(1024, 4)
        tokens = torch.zeros(1, 1024, dtype=torch.long)
        for changed in (embedding.to(dtype), embedding.float()):
            assert changed.waves.equal(exact)
            assert changed(tokens).dtype == changed.token.weight.dtype

    def test_its_waves_go_where_it_goes(self):
        embedding = TransformerEmbedding(7, 4, max_len=8, positions="sinusoidal")
        assert embedding.to("meta", torch.bfloat16).waves.is_meta
        assert embedding.waves.dtype == torch.float32

    @pytest.mark.parametrize("x, positions", [((5, 4), 1), ((1, 4), 5), ((2, 5, 4), 2)])
    def test_rotating_needs_a_position_for_each_vector(self, x, positions):
        with pytest.raises(ValueError, match=rf"^positions is \({positions},\); x has {x[-2]} "):
            rotate(torch.zeros(x), torch.arange(positions))

    @pytest.mark.parametrize("kind", [list, torch.tensor])
    @pytest.mark.parametrize("token", [-1, 4, 10**6])
    def test_an_id_that_no_character_has_is_named(self, token, kind):
        with pytest.raises(ValueError, match=f"^tokens has {token}; ids are 0 to 3$"):
            CharTokenizer("cafe").decode(kind([1, token, 2]))

    def test_an_unknown_kind_of_position_is_an_error_that_names_it(self):
        with pytest.raises(ValueError, match="positions is 'alibi'.*learned.*sinusoidal.*rope"):
            TransformerEmbedding(7, 4, max_len=8, positions="alibi")

    def test_an_odd_width_has_no_pairs_to_turn(self):
        with pytest.raises(ValueError, match="width is 7"):
            rotate(torch.randn(3, 7), torch.arange(3))

    def test_a_vocabulary_needs_a_character(self):
        with pytest.raises(ValueError, match="text is empty"):
            CharTokenizer("")

    def test_an_unknown_character_is_found_in_the_text(self):
        with pytest.raises(ValueError, match=r"'é' at position 3, .* 4 characters"):
            CharTokenizer("cafe").encode("café é")
