"""`python -m tiny_transformer.setup`: what it finds, and what it says when something is broken."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from types import ModuleType

import pytest
import torch

from tiny_transformer.setup import environment
from tiny_transformer.setup.environment import Check, report


def broken() -> str:
    raise OSError("the disk is full\nand a second line")


class TestReport:
    def test_a_machine_in_order_has_no_failures(self, capsys):
        assert report([Check("Python", lambda: "3.12.1", "install it")]) == []
        table, verdict = capsys.readouterr().out.split("\n\n")
        assert table.split() == ["Python", "ok", "3.12.1"]
        assert verdict.startswith("Ready")

    def test_a_failure_is_one_line_and_its_remedy(self, capsys):
        check = Check("Corpus", broken, "make room")
        assert report([check]) == [check]
        table, verdict = capsys.readouterr().out.split("\n\n")
        assert table.split(maxsplit=2) == ["Corpus", "failed", "the disk is full"]
        assert "- Corpus: make room" in verdict.splitlines()

    def test_the_checks_after_a_failure_still_run(self, capsys):
        report([Check("One", broken, ""), Check("Two", lambda: "fine", "")])
        assert "Two       ok      fine" in capsys.readouterr().out

    def test_a_check_whose_need_failed_is_not_run(self, capsys):
        torch_check = Check("PyTorch", broken, "install it")
        assert report([torch_check, Check("Device", broken, "", needs="PyTorch")]) == [torch_check]
        assert "Device    failed  not run: it needs PyTorch" in capsys.readouterr().out


class TestChecks:
    def test_this_python_is_supported(self):
        assert environment.find_python() == sys.version.split()[0]

    def test_an_unsupported_python_is_named_with_what_is_needed(self, monkeypatch):
        monkeypatch.setattr(environment, "metadata", lambda name: {"Requires-Python": ">=9.1"})
        with pytest.raises(RuntimeError, match=r"this is Python 3\..*needs >=9.1"):
            environment.find_python()

    def test_the_packages_are_those_of_the_metadata_without_extras(self, monkeypatch):
        needed = ["torch>=2.9", "no-such-package; extra == 'dev'", "numpy; python_version < '3'"]
        monkeypatch.setattr(environment, "requires", lambda name: needed)
        assert environment.find_packages() == "all 1 installed"

    def test_every_missing_or_old_package_is_named(self, monkeypatch):
        def version(name: str) -> str:
            if name == "tqdm":
                raise PackageNotFoundError(name)
            return "2.8.1"

        monkeypatch.setattr(environment, "requires", lambda name: ["torch>=2.9", "tqdm", "numpy"])
        monkeypatch.setattr(environment, "version", version)
        with pytest.raises(RuntimeError) as error:
            environment.find_packages()
        assert str(error.value) == "torch is 2.8.1, not >=2.9; tqdm is not installed"

    def test_a_torch_that_cannot_be_imported_is_said_in_a_sentence(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)  # makes `import torch` an ImportError
        with pytest.raises(RuntimeError, match="torch cannot be imported"):
            environment.find_torch()

    @pytest.mark.parametrize(
        "kind, found",
        [
            ("cpu", r"cpu \(\d+ threads, .* GiB\); float32; compiles"),
            ("cuda", r"cuda \(Some GPU, 8.0 GiB, sm_75\); float16; compiles"),
            ("mps", r"mps \(Apple GPU, 4.0 GiB\); float32"),
        ],
    )
    @pytest.mark.parametrize("obstacle", ["", "Triton is not installed"])
    def test_a_device_comes_with_what_it_can_do(self, monkeypatch, kind, found, obstacle):
        device = torch.device(kind)
        monkeypatch.setattr("tiny_transformer.setup.device.choose_device", lambda: device)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**30, 8 * 2**30))
        monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 4 * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
        what = "tiny_transformer.setup.device.compile_obstacle"
        monkeypatch.setattr(what, lambda device: obstacle)
        if obstacle:
            found = found.replace("compiles", "does not compile: " + obstacle)
        assert re.fullmatch(found, environment.find_device())

    def test_the_corpus_is_prepared_and_measured(self, monkeypatch, tmp_path):
        text = tmp_path / "input.txt"
        text.write_bytes(b"x" * 1234)
        corpus = ModuleType("tiny_transformer.data.corpus")
        corpus.prepare = lambda: text
        monkeypatch.setitem(sys.modules, "tiny_transformer.data.corpus", corpus)
        assert environment.find_corpus() == f"{text} (1,234 bytes)"

    def test_training_makes_the_loss_fall(self):
        assert "the loss went from 3." in environment.train_briefly(steps=10)

    def test_training_that_learns_nothing_fails(self, monkeypatch):
        monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
        with pytest.raises(RuntimeError, match="in 10 steps instead of falling"):
            environment.train_briefly(steps=10)

    def test_training_that_turns_to_nan_fails(self, monkeypatch):
        monkeypatch.setattr(torch.nn.functional, "cross_entropy", lambda x, y: x.sum() * torch.nan)
        with pytest.raises(RuntimeError, match="to nan"):
            environment.train_briefly(steps=2)


class TestCommand:
    def test_a_broken_torch_gives_a_table_and_no_traceback(self, tmp_path):
        (tmp_path / "torch.py").write_text("raise OSError('libfoo is missing')", encoding="utf-8")
        # the corpus is another check's business, and may need the network
        script = (
            f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
            "from tiny_transformer.setup import environment as e\n"
            "e.CHECKS = [check for check in e.CHECKS if check.name != 'Corpus']\n"
            "sys.exit(e.main())"
        )
        result = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, encoding="utf-8", timeout=60
        )
        assert result.returncode == 1
        assert "PyTorch   failed  torch cannot be imported: libfoo is missing" in result.stdout
        assert "Training  failed  not run: it needs PyTorch" in result.stdout
        assert result.stderr == ""
