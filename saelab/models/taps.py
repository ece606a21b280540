"""What a forward pass does besides computing: replace activations at some sites, keep those of others.

Slicing a head out of a hook point's tensor and putting it back is defined here and nowhere else.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.models.positions import Positions
from saelab.models.site import Site

Edit = Callable[[Float[Tensor, "batch position width"]], Float[Tensor, "batch position width"]]


@dataclass(frozen=True)
class Intervention:
    """Replace the activation x `[batch, position, width]` at `site` by `fn(x)`, and let the model go on from there.

    Attributes:
        per_position: a promise that `fn` treats every position alike and by itself, so that `fn` of a row's last
            position is the last position of `fn` of the row. Generation then keeps its key-value cache, in which only
            new positions are computed; without the promise it recomputes the whole row for every token.
        positions: where it acts, and all that `fn` sees; None is everywhere.
    """

    site: Site
    fn: Edit
    per_position: bool = False
    positions: Positions | None = None


class Span(NamedTuple):
    """Which part of its rows a forward pass computes."""

    offset: int
    """Position of the first token; those before it are in the key-value cache."""
    length: int
    """Tokens of each row."""
    prompt: int
    """Tokens of the prompt, from the end of which negative positions count."""

    def slice_of(self, positions: Positions | None) -> slice:
        """Those positions among the ones that are computed."""
        return slice(0, self.length) if positions is None else positions.within(*self)


class ForwardStopped(Exception):  # noqa: N818 (nothing went wrong)
    """Everything that was asked for has arrived; the rest of the forward pass isn't needed."""


class Taps:
    """The hooks of one forward pass.

    Args:
        interventions: applied in this order; several at one site compose.
        sites: kept in `captured`, as they are after all interventions.
        d_head: width of one head.
        span: the positions that it computes.
        device: where interventions get and leave what they replace; the model may be spread over several.
        stop: raise `ForwardStopped` as soon as every site has arrived.
        gradients: those of `sites` that will be differentiated with respect to. Autograd's graph begins at the input of
            the first one's layer, and the tensors captured there lie on the way to the logits.
    """

    def __init__(
        self,
        interventions: Sequence[Intervention],
        sites: Sequence[Site],
        d_head: int,
        span: Span,
        device: torch.device,
        stop: bool = False,
        gradients: Sequence[Site] = (),
    ) -> None:
        self.captured: dict[str, Tensor] = {}
        self._d_head = d_head
        self._device = device
        self._stop = stop
        self._differentiated = {site.hook_name for site in gradients}
        first = min((site.layer for site in gradients), default=None)
        self._graph_start = None if first is None else Site(first, "resid_pre").hook_name
        self._edits: dict[str, list[tuple[Intervention, slice]]] = {}
        for intervention in interventions:
            there = span.slice_of(intervention.positions)
            self._edits.setdefault(intervention.site.hook_name, []).append((intervention, there))
        self._awaited = {site.hook_name for site in sites}
        self._visited: set[str] = set()
        self._ignored: Collection[str] = ()
        # The residual stream's middle is also added to the block's output by a path on which there is no hook point,
        # so a change made there travels with us: from hook_resid_mid (key of the change) to hook_resid_post.
        self._mid_of = {
            Site(i.site.layer, "resid_post").hook_name: i.site.hook_name
            for i in interventions
            if i.site.kind == "resid_mid"
        }
        self._change: dict[str, Tensor] = {}

    def hooks(self) -> list[tuple[str, Callable[..., Tensor]]]:
        """(hook name, function) pairs as `TransformerBridge.hooks` takes them."""
        names = {*self._edits, *self._awaited, *self._mid_of}
        if self._graph_start is not None:
            names.add(self._graph_start)
        return [(name, partial(self._visit, name)) for name in sorted(names)]

    @property
    def missed(self) -> set[str]:
        """Hook names that should have been visited by now, and were not."""
        stopped = self._stop and self._awaited == self.captured.keys()
        return set() if stopped else {*self._edits, *self._awaited} - self._visited

    @contextmanager
    def ignoring(self, names: Collection[str]) -> Iterator[None]:
        """Let these hook points pass, for now."""
        self._ignored = names
        try:
            yield
        finally:
            self._ignored = ()

    def _visit(self, name: str, x: Tensor, hook: Any) -> Tensor:
        if name in self._ignored or name in self._visited:  # of attention that is computed twice, each shows its part
            return x
        arrived = x
        self._visited.add(name)
        if name == self._graph_start:
            x = x.detach().requires_grad_()
        if name in self._mid_of:
            x = x + self._change.pop(self._mid_of[name])
        for intervention, there in self._edits.get(name, ()):
            x = replace(x, intervention, there, self._d_head, self._device)
        if name in self._mid_of.values():
            self._change[name] = x - arrived
        if name in self._awaited:
            if name in self._differentiated and not x.requires_grad:
                x = x.detach().requires_grad_()
            self.captured[name] = x
            if self._stop and self._awaited == self.captured.keys():
                raise ForwardStopped
        return x


def read(x: Tensor, site: Site, d_head: int) -> Float[Tensor, "batch position width"]:
    """The site's part of its hook point's tensor, `[batch, position, width]` or `[batch, position, head, d_head]`."""
    flat = x.flatten(2)
    return flat if site.head is None else flat[..., _columns(site.head, d_head)]


def replace(x: Tensor, intervention: Intervention, there: slice, d_head: int, device: torch.device) -> Tensor:
    """The hook point's tensor with the site's part at the positions `there` replaced by `intervention.fn` of it."""
    site = intervention.site
    before = read(x, site, d_head)[:, there].to(device)
    if not before.shape[1]:
        return x
    after = intervention.fn(before)
    if after.shape != before.shape:
        raise ValueError(f"the intervention at {site} returned {tuple(after.shape)} for {tuple(before.shape)}")
    after = after.to(x.device, x.dtype)
    if site.head is None and after.shape[1] == x.shape[1]:
        return after.reshape(x.shape)
    flat = x.flatten(2).clone()
    flat[:, there, slice(None) if site.head is None else _columns(site.head, d_head)] = after
    return flat.reshape(x.shape)


def _columns(head: int, d_head: int) -> slice:
    return slice(head * d_head, (head + 1) * d_head)
