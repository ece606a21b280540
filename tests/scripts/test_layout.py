"""The best layout on paper: what the model adds up, by hand; which layout wins when; and plain sentences."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from saelab.config import load_config
from saelab.errors import UserError
from saelab.training.config import TrainConfig
from saelab.training.parallel import Layout
from scripts.layout import MACHINES, Machine, estimate, layouts, main, ranked

SLOW = Machine(1e12, 1e11, 1e11, 1e11, 1e9, 1e8, 0, 0, 0, 1.0, "made up")


def config(d_sae: int, k: int, batch: int) -> TrainConfig:
    values = {"sae.d_sae": d_sae, "sae.k": k, "batch": batch, "buffer": batch, "tokens": batch}
    return load_config(TrainConfig, None, values)


def test_one_process_by_hand():
    """1,000 latents, 100 wide, k 10, 500 tokens, no traffic."""
    alone = estimate(config(1000, 10, 500), 100, 100, Layout(), 1, SLOW)
    product = 2 * 500 * 1000 * 100 / 1e12
    scores = 4 * 500 * 1000 / 1e11
    rows = (4 * 2 * 5000 * 100 + 4 * 5000 * 200) / 1e11
    adam = (28 * 1000 * 200 + 4 * 6 * 500 * 200) / 1e11
    assert alone.compute_s == pytest.approx(product + scores + rows + adam)
    assert (alone.exchange_s, alone.broadcast_s, alone.received) == (0, 0, 0)


def test_two_shards_by_hand():
    """What two ranks exchange over a link of 1 GB/s: keys, the reconstruction, counts, sums; and the batch before."""
    both = estimate(config(1000, 10, 500), 100, 100, Layout(1, 2), 2, SLOW)
    keys, reconstruction, counts = 4 * 500 * 10, 4 * 500 * 100, 8 * 500
    sums = 4 * 100 + 3 * 8 + 2 * 8 + 4
    assert both.exchange_s == pytest.approx((keys + reconstruction + counts + sums) / 1e9)
    batch = 500 * (400 + 8) // 2
    assert both.broadcast_s == pytest.approx(batch / 1e9)
    assert both.received == keys + reconstruction + counts + sums + batch
    far = estimate(config(1000, 10, 500), 100, 100, Layout(1, 2), 1, SLOW)
    assert far.exchange_s == pytest.approx(10 * both.exchange_s)
    half = estimate(config(1000, 10, 500), 100, 100, Layout(1, 2), 2, replace(SLOW, reached=0.5))
    assert half.step_s == pytest.approx(2 * both.step_s)


def test_shards_of_latents_win_within_a_machine_and_slices_of_the_batch_across_a_slow_network():
    large = config(131_072, 64, 16_384)
    near = [estimate(large, 2304, 2304, one, 8, MACHINES["h100"]) for one in layouts(8, large)]
    assert ranked(near, 0)[0].layout == Layout(1, 8)
    slow = replace(MACHINES["h100"], network=1e9)
    small = config(8192, 32, 65_536)
    far = [estimate(small, 768, 768, one, 1, slow) for one in layouts(8, small)]
    assert ranked(far, 0)[0].layout.data > 1


def test_layouts_are_all_products_that_leave_everyone_something():
    assert layouts(12, config(64, 4, 64)) == [
        Layout(12, 1),
        Layout(6, 2),
        Layout(4, 3),
        Layout(3, 4),
        Layout(2, 6),
        Layout(1, 12),
    ]
    assert layouts(12, config(4, 4, 3)) == [Layout(3, 4)]


def test_what_does_not_fit_comes_last():
    found = [estimate(config(1000, 10, 500), 100, 100, one, 4, SLOW) for one in layouts(4, config(1000, 10, 500))]
    least = min(one.memory for one in found)
    assert ranked(found, least)[0].memory == least


def run(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    main(words.split())
    return capsys.readouterr().out


def test_it_prints_every_layout_and_the_best(capsys: pytest.CaptureFixture[str]):
    out = run("--d-sae 24576 --d-in 768 --gpus 8", capsys)
    rows = re.findall(r"^ +(\d+) +(\d+)  sp|^ +(\d+) +(\d+)  sh", out, re.MULTILINE)
    assert {tuple(int(n) for n in row if n) for row in rows} == {(8, 1), (4, 2), (2, 4), (1, 8)}
    assert "best: --parallel.data 1 --parallel.latent 8" in out
    assert "data-sheet numbers, not measured by us" in out
    assert "yours: memory" in run("--d-sae 24576 --d-in 768 --gpus 8 --memory 0.001", capsys)
    assert "none fits into 0.001 GB" in run("--d-sae 24576 --d-in 768 --gpus 8 --memory 0.001", capsys)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--gpus 0", "--gpus is 0"),
        ("--gpus 6 --gpus-per-node 4", "no whole number of machines"),
        ("--gpus 67 --gpus-per-node 67 --batch 2", "more than --batch has tokens"),
        ("--gpus 2 --reached 2", "share of the rates"),
        ("--gpus 2 --network 0", "above 0"),
        ("--gpus 2 --k 9999", "d_sae"),
    ],
)
def test_mistakes_get_a_sentence(words: str, sentence: str):
    with pytest.raises(UserError, match=sentence):
        main(["--d-sae", "64", "--d-in", "768", *words.split()])
