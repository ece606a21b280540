"""Stand-ins for a model: activations that are a known sum, and answers that are read off patches by arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saelab.evaluation.ioi.control import Run
from saelab.evaluation.ioi.nodes import Node, Outcome
from saelab.evaluation.ioi.task import ATTRIBUTES, Prompts
from saelab.evaluation.ioi.toys import unwritten_prompts
from saelab.models import Site

NODE = ONE = Node(Site.parse("blocks.0.attn.z.head0"), "END")
TWO = Node(Site.parse("blocks.0.attn.z.head1"), "END")
N_NAMES, D = 6, 20


def first_number(patches: Mapping[Node, Tensor]) -> Outcome:
    """LD is the sum of all nodes' first numbers, and the answer is that sum, rounded."""
    total = torch.stack([x[:, 0] for x in patches.values()]).sum(0)
    return Outcome(total.round().long(), total)


@dataclass(frozen=True)
class Sums:
    """`a = offset + u_IO + u_S + u_Pos + noise`; all vectors linearly independent, each attribute's centred on zero."""

    parts: Mapping[str, Tensor]
    offset: Tensor

    @classmethod
    def make(cls, seed: int = 0) -> Sums:
        generator = torch.Generator().manual_seed(seed)
        parts: dict[str, Tensor] = {}
        for attribute in ATTRIBUTES:
            u = torch.randn(2 if attribute == "Pos" else N_NAMES, D, dtype=torch.float64, generator=generator)
            parts[attribute] = u - u.mean(0)
        return cls(parts, torch.randn(D, dtype=torch.float64, generator=generator))

    def activations(self, prompts: Prompts, noise: float = 0.0, seed: int = 0) -> Tensor:
        total = self.offset + sum(self.parts[a][prompts.value(a)] for a in ATTRIBUTES)
        generator = torch.Generator().manual_seed(seed)
        return total + noise * torch.randn(total.shape, dtype=torch.float64, generator=generator)

    def answer(self, x: Tensor, prompts: Prompts) -> Outcome:
        """The "token" is the triple of values that x holds; the logit of a name is how much of its u_IO there is."""
        vectors = torch.cat([self.parts[a] for a in ATTRIBUTES])
        amounts = (x - self.offset) @ torch.linalg.pinv(vectors)
        io, s, pos = amounts.split([N_NAMES, N_NAMES, 2], dim=1)
        token = (io.argmax(1) * N_NAMES + s.argmax(1)) * 2 + pos.argmax(1)
        rows = torch.arange(len(x))
        return Outcome(token, io[rows, prompts.io] - io[rows, prompts.s])

    def run(self, prompts: Prompts, clean: Tensor) -> Run:
        def run(patches: Mapping[Node, Tensor]) -> Outcome:
            return self.answer(patches.get(NODE, clean), prompts)

        return run


def all_prompts() -> Prompts:
    """Every combination of values once, IO = S too: a balanced design."""
    io, s, pos = torch.cartesian_prod(torch.arange(N_NAMES), torch.arange(N_NAMES), torch.arange(2)).unbind(1)
    return replace(unwritten_prompts(len(io), N_NAMES, torch.Generator()), io=io, s=s, pos=pos)
