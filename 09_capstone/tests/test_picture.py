"""Module 09: the curve of a run."""

import math
from dataclasses import replace

import pytest
from PIL import Image

from tiny_transformer.capstone import picture, report
from tiny_transformer.engineering.config import PRESETS, write_config


@pytest.fixture
def config(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("ab" * 1000, encoding="utf-8")
    smoke = PRESETS["smoke"]
    return replace(smoke, corpus=str(text), model=replace(smoke.model, vocab_size=2))


def test_of_letters_in_turn_one_knows_nothing_until_one_sees_the_one_before(config):
    marks, counted = picture.landmarks(config)
    assert [*marks.values()] == pytest.approx([math.log(2), math.log(2), 0], abs=1e-3)
    assert counted == ""


def test_tiny_shakespeare_has_the_entropies_of_the_theory():
    marks, _ = picture.landmarks(PRESETS["cpu"])
    assert [round(loss, 2) for loss in marks.values()] == [4.17, 3.31, 2.45]


def test_of_a_long_text_only_the_beginning_is_counted_and_that_is_said(config, monkeypatch):
    monkeypatch.setattr(picture, "READ", 1000)
    assert "the first 900 characters" in picture.landmarks(config)[1]


def test_a_text_that_is_gone_leaves_the_loss_of_who_knows_nothing(config):
    marks, _ = picture.landmarks(replace(config, corpus="gone.txt"))
    assert [*marks.values()] == [math.log(2)]


@pytest.mark.parametrize("evaluations", [0, 1, 2])
def test_words_stand_beside_the_lines_and_not_on_each_other(
    config, tmp_path, monkeypatch, evaluations
):
    from matplotlib.figure import Figure

    figures, out = [], tmp_path / "mine"
    out.mkdir()
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    records = [{"step": step, "train_loss": 3 / step} for step in (1, 2, 3)]
    records += [{"step": step, "train_loss": 1.0, "val_loss": 0.5} for step in (4, 5)][:evaluations]
    picture.draw_losses(records, out, config)
    figure, ax = figures[0], figures[0].axes[0]
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert len(boxes) == 3 and all(box.x0 > ax.bbox.x1 for box in boxes)
    assert all(low.y1 <= high.y0 for high, low in zip(boxes, boxes[1:], strict=False))
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)
    named = ax.get_title(loc="left")
    assert named.startswith("mine, the shape of preset smoke")
    assert ("best validation loss 0.500 at step 4" in named) == bool(evaluations)


@pytest.mark.parametrize("records", [[], [{"step": 0, "train_loss": 1.0}]])
def test_a_run_of_no_steps_and_a_name_that_looks_like_a_formula_are_drawn_too(
    config, tmp_path, records
):
    out = tmp_path / "a $^$"
    out.mkdir()
    picture.draw_losses(records, out, config)
    assert (out / "loss.png").exists()


def test_a_report_has_it_on_a_light_and_on_a_dark_ground(config, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "draw_losses", picture.draw_losses)  # conftest.py saves its time
    write_config(tmp_path / "config.toml", config)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train_loss": 1.0}\n', encoding="utf-8")
    report.write_report(tmp_path)
    grounds = {
        name: Image.open(tmp_path / name).convert("RGBA").getpixel((0, 0))
        for name in ("loss.png", "loss-dark.png")
    }
    assert grounds == {"loss.png": (255, 255, 255, 255), "loss-dark.png": (13, 17, 23, 255)}
