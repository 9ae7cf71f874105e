"""What makes training fast: arithmetic by the machine, memory that is kept, many processes."""

import copy
import gc
import math
import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from tiny_transformer.engineering import speed
from tiny_transformer.engineering.config import RunConfig
from tiny_transformer.engineering.processes import Parallel, Processes, joined
from tiny_transformer.engineering.speed import (
    Arithmetic,
    PackedLinear,
    choose_arithmetic,
    deterministic,
    matmul_precision,
    packed,
    pays_to_pack,
)
from tiny_transformer.setup.device import multiplies_float16
from tiny_transformer.tiny_lm.modern import build
from tiny_transformer.tiny_lm.reference import ModelConfig, TinyTransformerLM
from tiny_transformer.training.reference import train_step


class TestChooseArithmetic:
    """Each kind of card is pretended: none is here."""

    CPU, CUDA, MPS = map(torch.device, ("cpu", "cuda", "mps"))

    @pytest.fixture
    def card(self, monkeypatch):
        def pretend(capability: tuple[int, int], obstacle: str = "") -> None:
            monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
            monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
            what = "tiny_transformer.engineering.speed.compile_obstacle"
            monkeypatch.setattr(what, lambda device: obstacle)

        return pretend

    @pytest.mark.parametrize(
        "capability, obstacle, expected, line",
        [
            (
                (9, 0),
                "",
                (True, False, True),
                "Some GPU (sm_90): bfloat16, compiled; otherwise: --bf16 False, --compile False",
            ),
            (
                (7, 5),
                "",
                (False, True, True),
                "Some GPU (sm_75): float16 with a gradient scaler, compiled; "
                "otherwise: --fp16 False, --compile False",
            ),
            (
                (8, 6),
                "Triton is not installed",
                (True, False, False),
                "Some GPU (sm_86): bfloat16, not compiled, since Triton is not installed; "
                "otherwise: --bf16 False",
            ),
            (
                (6, 1),
                "Triton needs a GPU of sm_70 or newer",
                (False, False, False),
                "Some GPU (sm_61): float32, not compiled, since Triton needs a GPU of sm_70 or "
                "newer; otherwise: --fp16 True",
            ),
        ],
    )
    def test_a_card_does_what_it_is_best_at_and_one_line_says_so(
        self, card, capability, obstacle, expected, line
    ):
        card(capability, obstacle)
        use = choose_arithmetic(RunConfig(), self.CUDA)
        assert (use.bf16, use.fp16, use.compile) == expected
        assert use.chosen == line

    @pytest.mark.parametrize("capability", [(8, 0), (7, 5), (6, 1)])
    @pytest.mark.parametrize(
        "settings, expected",
        [
            (dict(bf16=True), (True, False)),
            (dict(fp16=True), (False, True)),
            (dict(bf16=False), (False, False)),
            (dict(fp16=False), (False, False)),
            (dict(bf16=True, fp16=False), (True, False)),
            (dict(bf16=False, fp16=False), (False, False)),
        ],
    )
    def test_settings_are_stronger_than_the_card(self, card, capability, settings, expected):
        card(capability)
        for compiled in (True, False):
            use = choose_arithmetic(RunConfig(**settings, compile=compiled), self.CUDA)
            assert (use.bf16, use.fp16) == expected and use.compile is compiled
            assert use.chosen == "", "the machine chose nothing"

    def test_what_is_set_is_not_said(self, card):
        card((8, 0))
        use = choose_arithmetic(RunConfig(bf16=True), self.CUDA)
        assert use.chosen == "Some GPU (sm_80): compiled; otherwise: --compile False"

    @pytest.mark.parametrize("device", [CPU, MPS])
    def test_elsewhere_a_run_is_in_float32_not_compiled_and_quiet(self, device):
        assert choose_arithmetic(RunConfig(), device) == Arithmetic(False, False, False)

    @pytest.mark.parametrize("has_it, said", [(True, ""), (False, "--bf16 False")])
    def test_a_cpu_that_only_imitates_bfloat16_is_told(self, monkeypatch, has_it, said):
        what = "tiny_transformer.engineering.speed.multiplies_bfloat16"
        monkeypatch.setattr(what, lambda: has_it)
        use = choose_arithmetic(RunConfig(bf16=True), self.CPU)
        assert use.bf16 and use.chosen.endswith(said) and bool(use.chosen) is not has_it

    @pytest.mark.parametrize("has_it", [True, False])
    @pytest.mark.parametrize("has_tiles", [True, False])
    def test_a_cpu_computes_in_bfloat16_where_its_products_may_and_that_is_faster(
        self, monkeypatch, has_it, has_tiles
    ):
        what = "tiny_transformer.engineering.speed.multiplies_bfloat16"
        monkeypatch.setattr(what, lambda: has_it)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_tiles)
        use = choose_arithmetic(RunConfig(matmul_precision="medium"), self.CPU)
        assert use.bf16 is (has_it and not has_tiles)
        assert use.bf16 is ("otherwise: --bf16 False" in use.chosen)
        config = RunConfig(matmul_precision="medium", bf16=False)
        assert choose_arithmetic(config, self.CPU) == Arithmetic(False, False, False)

    @pytest.mark.parametrize("device", [CPU, CUDA])
    def test_a_run_that_must_be_compiled_and_cannot_is_an_error_that_says_why(self, card, device):
        card((8, 0), "there is no compiler")
        sentence = "compile is True, but there is no compiler; train with --compile False"
        with pytest.raises(ValueError, match=sentence):
            choose_arithmetic(RunConfig(compile=True), device)

    def test_a_run_whose_weights_are_sharded_is_not_compiled(self, card):
        card((8, 0), "")
        use = choose_arithmetic(RunConfig(), self.CUDA, sharded=True)
        assert not use.compile and "not compiled, since its weights are sharded" in use.chosen
        sentence = "compile is True, but its weights are sharded; train with --compile False"
        with pytest.raises(ValueError, match=sentence):
            choose_arithmetic(RunConfig(compile=True), torch.device("cpu"), sharded=True)

    def test_two_precisions_at_once_are_an_error(self):
        with pytest.raises(ValueError, match="fp16 is True, and so is bf16"):
            RunConfig(bf16=True, fp16=True)


def test_processes_that_average_their_gradients_can_train_in_float16():
    config = ModelConfig(vocab_size=5, max_len=8, d_model=8, n_layers=1, n_heads=2, d_ff=16)
    torch.manual_seed(0)
    alone, batch = TinyTransformerLM(config), torch.randint(5, (2, 4, 8))
    together = copy.deepcopy(alone)

    def end(model: nn.Module) -> torch.Tensor:
        scaler, optimizer = torch.amp.GradScaler("cpu"), torch.optim.SGD(model.parameters(), 0.1)
        train_step(model, optimizer, *batch, 1.0, 2, scaler=scaler)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    ends = [end(alone)]
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:  # `Parallel` must be gone before its group is: it would wait for threads that wait for it
        ends.append(end(Parallel(together, accumulate=2, group=None)))
    finally:
        gc.collect()  # as in `joined`
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(*ends)


class TestMatmulPrecision:
    CPU = torch.device("cpu")

    @pytest.mark.parametrize(
        "precision, instructions, inside, plain",
        [
            ("highest", True, "highest", False),
            ("medium", True, "medium", True),
            ("medium", False, "highest", False),
        ],
    )
    def test_only_a_cpu_with_instructions_for_bfloat16_leaves_the_fused_attention(
        self, monkeypatch, precision, instructions, inside, plain
    ):
        what = "tiny_transformer.engineering.speed.multiplies_bfloat16"
        monkeypatch.setattr(what, lambda: instructions)
        with matmul_precision(precision, self.CPU):
            assert torch.get_float32_matmul_precision() == inside
            assert torch.backends.cuda.flash_sdp_enabled() is not plain

    def test_it_ends_with_the_block_even_by_an_error(self):
        before = torch.get_float32_matmul_precision()
        with pytest.raises(KeyboardInterrupt), matmul_precision("medium", self.CPU):
            assert torch.get_float32_matmul_precision() == "medium"
            raise KeyboardInterrupt
        assert torch.get_float32_matmul_precision() == before

    def test_attention_and_its_gradient_are_the_same_up_to_rounding(self, monkeypatch):
        what = "tiny_transformer.engineering.speed.multiplies_bfloat16"
        monkeypatch.setattr(what, lambda: True)
        results = []
        for precision in ("highest", "medium"):
            q = torch.randn(2, 4, 32, 16, generator=torch.Generator().manual_seed(1))
            q.requires_grad_()
            with matmul_precision(precision, self.CPU):
                out = nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
                out.square().sum().backward()
            results.append((out.detach(), q.grad))
        for exact, rounded in zip(*results, strict=True):
            assert (exact - rounded).norm() < 0.02 * exact.norm()  # 8 bits of mantissa


@pytest.mark.parametrize("before", [(False, False), (True, False), (True, True)])
def test_what_was_deterministic_before_is_so_afterwards_even_after_an_error(before):
    def state():
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )

    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    try:
        with pytest.raises(KeyboardInterrupt), deterministic():
            assert state() == (True, False)
            raise KeyboardInterrupt
        assert state() == before
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_is_used_again_while_it_is_kept_and_then_given_back():
    program = """
import resource
import psutil
import torch
from contextlib import nullcontext
from tiny_transformer.engineering.speed import freed_memory_kept

def new_pages():
    for step in range(6):
        if step == 1:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [torch.ones(2**20) for _ in range(12)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(new_pages())
with freed_memory_kept():
    print(new_pages())
    print(psutil.Process().memory_info().rss)
print(psutil.Process().memory_info().rss)
"""
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    usually, while_kept, held, afterwards = map(int, out.stdout.split())
    assert while_kept < usually / 20
    assert afterwards < held - 20 * 2**20


needs_instructions = pytest.mark.skipif(
    not multiplies_float16(), reason="a CPU that does not multiply by weights in float16"
)


class TestPacked:
    @needs_instructions
    @pytest.mark.parametrize("tie_weights", [True, False])
    @pytest.mark.parametrize("bias", [True, False])
    def test_the_logits_are_those_of_weights_rounded_to_float16(self, tie_weights, bias):
        torch.manual_seed(0)
        model = build(ModelConfig(tie_weights=tie_weights, bias=bias, n_layers=2))
        tokens = torch.randint(65, (3, 20))
        copy = packed(model)
        assert not any(isinstance(module, nn.Linear) for module in copy.modules())
        with torch.no_grad():
            table = model.embedding.token.weight.clone()
            for module in model.modules():
                if isinstance(module, nn.Linear):
                    module.weight.copy_(module.weight.half())
            model.embedding.token.weight = nn.Parameter(table)  # the table of tokens stays exact
            torch.testing.assert_close(copy(tokens), model(tokens), rtol=0, atol=1e-5)
            model.head.weight.zero_()
            assert copy(tokens).abs().max() > 0.1  # a copy, not a view

    @needs_instructions
    def test_a_row_is_the_same_to_the_bit_whatever_stands_beside_it(self):
        layer = PackedLinear(nn.Linear(384, 65))
        rows = torch.randn(33, 384)
        together, alone = layer(rows), torch.cat([layer(row[None]) for row in rows])
        assert together.equal(alone) and layer(rows[:7]).equal(alone[:7])

    @needs_instructions
    @pytest.mark.parametrize("d_model, pays", [(192, False), (256, True)])
    def test_it_pays_for_a_large_model(self, d_model, pays):
        model = TinyTransformerLM(ModelConfig(d_model=d_model, d_ff=4 * d_model, n_layers=4))
        assert pays_to_pack(model) is pays

    @needs_instructions
    @pytest.mark.parametrize("scale", [2.0**20, 2.0**-20, math.inf, math.nan])
    def test_weights_that_float16_cannot_hold_stay_and_are_named(self, monkeypatch, scale):
        monkeypatch.setattr(speed, "LARGE", 1)
        model = TinyTransformerLM(ModelConfig())
        assert pays_to_pack(model)
        model.blocks[1].attention.v_proj.weight.data *= scale
        assert not pays_to_pack(model)
        with pytest.raises(ValueError, match=r"cannot hold the weights of blocks.1.*v_proj$"):
            packed(model)

    def test_a_cpu_that_cannot_keeps_plain_layers_and_is_named(self, monkeypatch):
        what = "tiny_transformer.engineering.speed.multiplies_float16"
        monkeypatch.setattr(what, lambda: False)
        monkeypatch.setattr(speed, "LARGE", 1)
        assert not pays_to_pack(TinyTransformerLM(ModelConfig()))
        with pytest.raises(ValueError, match="fp16 is True, but this CPU does not"):
            packed(TinyTransformerLM(ModelConfig()))


class TestProcesses:
    def draws(self, rank: int, done: int, until: int) -> list[float]:
        """What a process of two draws in each step, from the step at which it starts."""
        torch.manual_seed(done)  # whatever its state is when a run is resumed
        steps = (torch.rand(1).item() for _ in range(done, until))
        processes = Processes(rank, count=2)
        return list(processes.steps(steps, torch.Generator(), seed=7, done=done))

    def test_what_the_others_draw_depends_on_seed_rank_and_step_alone(self):
        whole = self.draws(1, 0, 6)
        assert self.draws(1, 3, 6) == whole[3:]
        assert len({*whole, *self.draws(2, 0, 6)}) == 12

    def test_the_first_goes_on_from_its_own_state(self):
        torch.manual_seed(3)
        expected = torch.rand(3).tolist()
        assert self.draws(0, 3, 6) == expected

    @pytest.mark.parametrize("size", ["", "y", "-1"])
    def test_without_torchrun_its_mark_alone_is_one_sentence(self, monkeypatch, size):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
        monkeypatch.setenv("WORLD_SIZE", size)
        with pytest.raises(ValueError, match="TORCHELASTIC_RUN_ID is set.*unset both"):
            with joined():
                pass
