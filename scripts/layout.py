"""Which layout of a training is fastest on paper: data × latent for a number of GPUs, by the model of docs/scaling.md.

    python scripts/layout.py --d-sae 131072 --d-in 2304 --k 64 --batch 65536 --gpus 64 --machine h100
    python scripts/layout.py --d-sae 24576 --d-in 768 --gpus 8 --machine h100 --network 12.5
    python scripts/layout.py --d-sae 24576 --d-in 768 --gpus 2 --machine epyc

It adds up, for one step of one rank: the encoder product, the selection, decoding, row gradients and Adam, each
divided as the layout divides it, and the bytes that the rank receives over the bandwidth of the slowest link on the
way. It prints a table of all layouts, the fastest first. The bytes are exact (tests compare them with real steps); the
times are a model. Rates of GPUs are data-sheet numbers times --reached, which nobody has measured here; those of "epyc"
were measured on a CPU (docs/performance.md). How fast activations come from the disk or the language model is no part
of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from saelab.config import load_config
from saelab.errors import EXIT_USER_ERROR, UserError, tell
from saelab.training.config import PRESETS, TrainConfig
from saelab.training.parallel import Layout
from saelab.training.sizes import Size
from saelab.training.traffic import AxisName, Kept, Step, moves_rows, share


@dataclass(frozen=True)
class Machine:
    """Rates of one rank's device and of its links.

    Args:
        product: multiply-adds of the encoder product, counted twice, per second.
        scores: bytes per second at which the selection gets through a table of scores.
        rows: bytes per second at which rows of the matrices are gathered.
        stream: bytes per second at which Adam reads and writes.
        link, network: bytes per second that a rank receives from its own machine, and from another.
        latency, far_latency: seconds of an exchange of nothing, likewise.
        memory: bytes; 0 where it is not known.
        reached: share of these that real work is assumed to reach.
        source: where the figures are from.
    """

    product: float
    scores: float
    rows: float
    stream: float
    link: float
    network: float
    latency: float
    far_latency: float
    memory: float
    reached: float
    source: str


SHEET = "data-sheet numbers, not measured by us; the product in fp32 without tensor cores; latencies are guesses"
MACHINES = {
    "a100": Machine(19.5e12, 2.0e12, 2.0e12, 2.0e12, 300e9, 25e9, 2e-5, 4e-5, 80e9, 0.6, SHEET),
    "h100": Machine(67e12, 3.35e12, 3.35e12, 3.35e12, 450e9, 50e9, 2e-5, 4e-5, 80e9, 0.6, SHEET),
    "h200": Machine(67e12, 4.8e12, 4.8e12, 4.8e12, 450e9, 50e9, 2e-5, 4e-5, 141e9, 0.6, SHEET),
    "epyc": Machine(
        196e9, 6.8e9, 24e9, 35e9, 1e9, 1e9, 2e-4, 2e-4, 0, 1.0,
        "stages of a topk step measured on two cores of an AMD EPYC (docs/performance.md), each rank with two cores of "
        "its own; links between processes guessed",
    ),
}  # fmt: skip


class Estimate(NamedTuple):
    """One layout, for the rank that has most to do."""

    layout: Layout
    sharded: bool
    compute_s: float
    exchange_s: float
    broadcast_s: float
    """Of the next batch, while this one is worked on."""
    received: int
    """Bytes in a step, the batch included."""
    memory: int

    @property
    def step_s(self) -> float:
        return max(self.compute_s + self.exchange_s, self.broadcast_s)


def estimate(config: TrainConfig, d_in: int, d_out: int, layout: Layout, per_node: int, machine: Machine) -> Estimate:
    """Time, traffic and memory of a layout."""
    data, latent, ranks = layout.data, layout.latent, layout.data * layout.latent
    sae, tokens, k = config.sae, config.batch, config.sae.k
    matches = share(k * tokens, ranks)
    sharded = moves_rows(sae, data, latent, tokens, d_in, d_out)
    step = Step(sae, data, latent, tokens, d_in, d_out, k, sharded=sharded)
    exchanges = step.exchanges(Kept([matches] * data))
    rates, delays = _links(layout, per_node, machine)
    exchange_s = sum(one.nbytes / rates[one.axis] + delays[one.axis] for one in exchanges)
    batch = tokens * (4 * d_in + 8) * (ranks - 1) // ranks  # each rank reads its share
    size = Size.of(config, d_in, d_out, layout)
    return Estimate(
        layout, sharded, _compute(step, matches, machine), exchange_s, batch / rates["world"],
        batch + sum(one.nbytes for one in exchanges),
        size.kept_bytes + size.step_bytes + 2 * 4 * tokens * (d_in + d_out),
    )  # fmt: skip


def _compute(step: Step, matches: int, machine: Machine) -> float:
    """Seconds of a rank's arithmetic; least bytes over bandwidth for all but the product."""
    pairs, width = step.own_tokens * step.own_latents, step.d_in + step.d_out
    seen = matches if step.sharded else matches * step.data
    moved = share(step.own_latents, step.data) if step.sharded else step.own_latents
    seconds = (
        2 * pairs * step.d_in / machine.product
        + 4 * pairs / machine.scores
        + 4 * 2 * matches * step.d_out / machine.rows  # decode, gradient of the values
        + 4 * seen * width / machine.rows  # row gradients
        + 28 * moved * width / machine.stream  # Adam reads four numbers and writes three
        + 4 * 6 * step.tokens * width / machine.stream  # every rank scales and centres the whole batch
    )
    return seconds / machine.reached


def _links(layout: Layout, per_node: int, machine: Machine) -> tuple[dict[AxisName, float], dict[AxisName, float]]:
    """Bytes per second, and seconds of an exchange, of each axis; one that leaves the machine has the network's."""
    inside: dict[AxisName, bool] = {
        "latent": per_node % layout.latent == 0,  # ranks that follow one another
        "data": layout.data * layout.latent <= per_node,
        "world": layout.data * layout.latent <= per_node,
    }
    rates: dict[AxisName, float] = {}
    delays: dict[AxisName, float] = {}
    for axis, near in inside.items():
        rates[axis] = machine.reached * (machine.link if near else machine.network)
        delays[axis] = machine.latency if near else machine.far_latency
    return rates, delays


def layouts(gpus: int, config: TrainConfig) -> list[Layout]:
    """All ways to write `gpus` as data × latent that leave every rank a token and a latent."""
    pairs = [(gpus // latent, latent) for latent in range(1, gpus + 1) if gpus % latent == 0]
    return [Layout(data, latent) for data, latent in pairs if data <= config.batch and latent <= config.sae.d_sae]


def table(found: Sequence[Estimate], alone: Estimate, tokens: int, memory: float) -> list[str]:
    """Lines of text, the fastest layout that fits first."""
    lines = [
        f"{'data':>5} {'latent':>6}  rows     compute ms  exchange ms  step ms    tokens/s  speed-up"
        "  received MB  memory GB"
    ]
    for one in found:
        too_large = "  too large" if 0 < memory < one.memory else ""
        lines.append(
            f"{one.layout.data:>5} {one.layout.latent:>6}  {'sharded' if one.sharded else 'sparse':<7}"
            f"  {one.compute_s * 1e3:>10,.2f}  {one.exchange_s * 1e3:>11,.2f}  {one.step_s * 1e3:>7,.2f}"
            f"  {tokens / one.step_s:>10,.0f}  {alone.step_s / one.step_s:>8.2f}"
            f"  {one.received / 1e6:>11,.1f}  {one.memory / 1e9:>9,.1f}{too_large}"
        )
    return lines


def ranked(found: Sequence[Estimate], memory: float) -> list[Estimate]:
    """The fastest that fits first; what does not fit comes last."""
    return sorted(found, key=lambda one: (0 < memory < one.memory, one.step_s))


def main(words: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(words)
    for name in ("d_sae", "d_in", "batch", "k", "gpus", "gpus_per_node"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it counts something, from 1 on")
    machine = _machine(options)
    d_out = options.d_out or options.d_in
    config = _config(options)
    per_node = min(options.gpus_per_node, options.gpus)
    if options.gpus % per_node:
        raise UserError(f"--gpus {options.gpus} are no whole number of machines with --gpus-per-node {per_node}")
    possible = layouts(options.gpus, config)
    if not possible:
        raise UserError(f"--gpus {options.gpus} are more than --batch has tokens and --d-sae has latents")
    found = ranked([estimate(config, options.d_in, d_out, one, per_node, machine) for one in possible], machine.memory)
    alone = estimate(config, options.d_in, d_out, Layout(), 1, machine)
    print(f"{options.machine}: {machine.source}; {machine.reached:g} of these rates assumed\n")
    print("\n".join(table(found, alone, options.batch, machine.memory)))
    best = found[0]
    print(
        f"\nbest: --parallel.data {best.layout.data} --parallel.latent {best.layout.latent}"
        if not 0 < machine.memory < best.memory
        else f"\nnone fits into {machine.memory / 1e9:g} GB; take more --gpus or a smaller --batch"
    )


def _config(options: argparse.Namespace) -> TrainConfig:
    values = {
        "sae.preset": options.preset, "sae.d_sae": options.d_sae, "sae.k": options.k, "tokens": options.batch,
        "batch": options.batch, "buffer": options.batch,
    }  # fmt: skip
    return load_config(TrainConfig, None, values)


def _machine(options: argparse.Namespace) -> Machine:
    machine = MACHINES[options.machine]
    given = {
        "product": options.tflops and options.tflops * 1e12,
        "link": options.link and options.link * 1e9,
        "network": options.network and options.network * 1e9,
        "memory": options.memory and options.memory * 1e9,
        "reached": options.reached,
        **dict.fromkeys(("scores", "rows", "stream"), options.bandwidth and options.bandwidth * 1e9),
    }
    own = {name: value for name, value in given.items() if value is not None}
    if any(value <= 0 for value in own.values()):
        raise UserError("--tflops, --bandwidth, --link, --network, --memory and --reached are rates and sizes above 0")
    if own.get("reached", 1) > 1:
        raise UserError(f"--reached {own['reached']:g} is a share of the rates, 1 at most")
    source = f"{machine.source}; yours: {', '.join(sorted(own))}" if own else machine.source
    return replace(machine, **own, source=source)


def _parser() -> argparse.ArgumentParser:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=f"{summary}\n\n{rest}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whole = {"type": int, "metavar": "N"}
    parser.add_argument("--d-sae", **whole, required=True, help="latents of the dictionary")
    parser.add_argument("--d-in", **whole, required=True, help="width of the activations")
    parser.add_argument("--d-out", **whole, help="width of a transcoder's target; left out, that of the activations")
    parser.add_argument("--k", **whole, default=32, help="active latents per token (32)")
    parser.add_argument("--batch", **whole, default=8192, help="tokens of the global batch (8192)")
    parser.add_argument("--preset", choices=PRESETS, default="topk", help="architecture (topk); no latent is starved")
    parser.add_argument("--gpus", **whole, required=True, help="ranks, of all machines together")
    parser.add_argument("--gpus-per-node", **whole, default=8, help="of one machine (8)")
    parser.add_argument("--machine", choices=MACHINES, default="h100", help="whose rates (h100)")
    own = parser.add_argument_group("rates of your own, in place of the machine's")
    rate = {"type": float, "metavar": "X"}
    own.add_argument("--tflops", **rate, help="of the encoder product (tensor cores: what your precision reaches)")
    own.add_argument("--bandwidth", **rate, help="of the device's memory, GB/s")
    own.add_argument("--link", **rate, help="what a GPU receives from its own machine, GB/s")
    own.add_argument("--network", **rate, help="what a GPU receives from other machines, GB/s (400 Gb/s are 50)")
    own.add_argument("--memory", **rate, help="of a GPU, GB")
    own.add_argument("--reached", **rate, help="share of all rates that real work reaches")
    return parser


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        tell(error)
        sys.exit(EXIT_USER_ERROR)
