"""`LanguageModel`: what the rest of saelab knows of a language model."""

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelab.errors import UserError
from saelab.models.bridge import Bridge, Outcome, cut, whole_cache
from saelab.models.devices import resolve_device, resolve_dtype
from saelab.models.fingerprints import model_fingerprint, tokenizer_fingerprint
from saelab.models.generation import check_sampling, sample
from saelab.models.loading import load_pretrained
from saelab.models.placement import home_of
from saelab.models.site import HEAD_KINDS, Site
from saelab.models.size import ModelSize, size_of
from saelab.models.source import locate
from saelab.models.taps import Intervention, read

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Rest(Protocol):
    """The rest of some rows, from a position on; see `LanguageModel.from_position`."""

    def __call__(
        self, sites: Sequence[Site] = (), copies: int = 1
    ) -> tuple[Float[Tensor, "rows rest d_vocab"], dict[Site, Tensor]]:
        """Logits, and activations at `sites`."""
        ...


class LanguageModel:
    """A causal language model with raw weights: ids in; activations, losses, gradients and text ids out.

    Shapes: tokens `[batch, position]`; a site's activation `[batch, position, width(site)]` in the model's dtype, on
    `device`. Rows are whole contexts: there is no padding and no mask. Positions count from 0 in every row.

    Attributes:
        name: what `load` was given ("demo" = the bundled model). `revision`: the Hub's commit, None for a folder.
        tokenizer: Hugging Face tokenizer, or None. saelab turns text into ids elsewhere; nothing here reads strings.
        bos_token_id: the tokenizer's beginning-of-text id, else the model's own; None if there is none.
        fingerprint: SHA-256 of config and weights, equal in fp32 and bf16. `tokenizer_fingerprint`: None without.
        device: of token ids and activations; of a model spread over devices, the one that it begins on.
        size: how much memory it takes, whole.
        n_kv_heads: heads of k and v; fewer than `n_heads` under grouped-query attention.
        n_ctx: the longest row. `d_vocab`: number of token ids the model embeds.
    """

    def __init__(
        self,
        hf_model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase | None",
        name: str,
        revision: str | None = None,
        attention: str | None = None,
    ) -> None:
        self.name = name
        self.revision = revision
        self.tokenizer = tokenizer
        self.tokenizer_fingerprint = None if tokenizer is None else tokenizer_fingerprint(tokenizer)
        self.fingerprint = model_fingerprint(hf_model)
        self.size: ModelSize = size_of(hf_model)
        self.device: torch.device = home_of(hf_model)
        self.dtype: torch.dtype = hf_model.dtype
        self._bridge = Bridge(hf_model, name, self.device, attention)
        self.n_layers = self._bridge.n_layers
        self.d_model = self._bridge.d_model
        self.n_heads = self._bridge.n_heads
        self.n_kv_heads = self._bridge.n_kv_heads
        self.d_head = self._bridge.d_head
        self.n_ctx = self._bridge.n_ctx
        self.d_vocab = self._bridge.d_vocab
        bos = hf_model.config.bos_token_id if tokenizer is None else tokenizer.bos_token_id
        self.bos_token_id: int | None = bos if isinstance(bos, int) and 0 <= bos < self.d_vocab else None
        self._in_force = threading.local()  # of each thread its own: an app serves several people with one model

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        dtype: str = "float32",
        device: str = "auto",
        revision: str | None = None,
        device_map: str | dict[str, Any] | None = None,
        attn_implementation: str = "auto",
        up_to: int | None = None,
    ) -> "LanguageModel":
        """Load "demo" (the bundled model), a local Hugging Face folder, or a name on the Hugging Face Hub.

        Args:
            dtype: of weights and activations, whatever the file holds: "float32", "bfloat16" or "float16".
            device: "auto" (CUDA, else MPS, else CPU), or a torch device.
            revision: branch, tag or commit on the Hub.
            device_map: spread the model over devices and disk as transformers does: "auto", "balanced", "sequential",
                or {part: device or "disk"}. `device` then means nothing.
            attn_implementation: "eager", "sdpa" or another of transformers' names; "auto" is the one that transformers
                and transformer-lens choose for the architecture.
            up_to: the last block whose activations matter. Later blocks and an untied unembedding stay on the disk and
                are read, slowly, only if something needs them all the same. It has no meaning with a `device_map`.

        Raises:
            UserError: it isn't there, isn't whole, doesn't fit, or isn't a kind of model that saelab can open.
        """
        to_device, to_dtype = resolve_device(device), resolve_dtype(dtype)
        attention = None if attn_implementation == "auto" else attn_implementation
        source = locate(name_or_path, revision)
        hf_model, tokenizer = load_pretrained(source, to_dtype, to_device, device_map, attention, up_to)
        return cls(hf_model, tokenizer, source.name, source.commit, attention)

    @classmethod
    def from_hf(
        cls, hf_model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase | None" = None, *, name: str
    ) -> "LanguageModel":
        """Take over a Hugging Face model in memory, quantised ones and ones spread over devices too.

        It gets hook points put into it: don't use it any more.
        """
        return cls(hf_model, tokenizer, name)

    def width(self, site: Site) -> int:
        """Length of the site's vector: d_model, or for q, k, v, z all heads' d_head, or one head's."""
        if site.kind not in HEAD_KINDS:
            return self.d_model
        return self.d_head * (self._heads(site) if site.head is None else 1)

    def check(self, site: Site) -> None:
        """Raise UserError unless the model has this site."""
        if site.layer >= self.n_layers:
            raise UserError(f"site {site} isn't in model {self.name!r}, which has layers 0 to {self.n_layers - 1}")
        if site.head is not None and site.head >= self._heads(site):
            raise UserError(
                f"site {site} isn't in model {self.name!r}: {site.kind} has {self._heads(site)} heads there"
            )
        if not self._bridge.has(site):
            why = " (attention and MLP read the same input side by side)" if site.kind == "resid_mid" else ""
            raise UserError(f"model {self.name!r} has no {site.kind}{why}; choose another kind of site than {site}")

    @contextmanager
    def intervene(self, *interventions: Intervention) -> Iterator[None]:
        """Replace activations in everything the model computes inside the `with`.

        Interventions compose in the order given, those of an outer `with` first.
        """
        for intervention in interventions:
            self.check(intervention.site)
        outer = self._interventions
        self._in_force.interventions = (*outer, *interventions)
        try:
            yield
        finally:
            self._in_force.interventions = outer

    @torch.no_grad()
    def activations(
        self, tokens: Int[Tensor, "batch position"], sites: Sequence[Site]
    ) -> dict[Site, Float[Tensor, "batch position width"]]:
        """Activations at `sites`, after any interventions. The forward pass ends where the last of them is known."""
        if not sites:
            return {}
        return self._at_sites(self._run(tokens, sites, stop=True).captured, sites)

    @torch.no_grad()
    def logits(self, tokens: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position d_vocab"]:
        """Next-token logits, in the model's dtype."""
        return self._run(tokens).logits

    @torch.no_grad()
    def loss(self, tokens: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position-1"]:
        """Cross-entropy of the next token in nats, fp32: entry t is about token t + 1."""
        return next_token_loss(self._run(tokens).logits, tokens)

    @torch.no_grad()
    def activations_and_loss(
        self, tokens: Int[Tensor, "batch position"], sites: Sequence[Site]
    ) -> tuple[dict[Site, Float[Tensor, "batch position width"]], Float[Tensor, "batch position-1"]]:
        """`activations` and `loss` from one forward pass."""
        outcome = self._run(tokens, sites)
        return self._at_sites(outcome.captured, sites), next_token_loss(outcome.logits, tokens)

    def activations_and_gradients(
        self,
        tokens: Int[Tensor, "batch position"],
        sites: Sequence[Site],
        gradients: Sequence[Site] | None = None,
        real: Bool[Tensor, "batch position"] | None = None,
    ) -> tuple[dict[Site, Float[Tensor, "batch position width"]], dict[Site, Float[Tensor, "batch position width"]]]:
        """Activations x, and the gradient of the loss summed over all positions and rows with respect to x.

        A sum, so that gradients don't shrink with the batch. The gradient at position t collects the losses of all
        positions from t on, since later ones read t through attention; the last position's reaches no loss and is 0.

        Args:
            gradients: those of `sites` whose gradient is wanted; left out, all.
            real: False at the padding on a row's right; no loss of predicting padding enters the sum.
        """
        gradients = sites if gradients is None else gradients
        if not gradients:
            raise UserError("gradients need at least one site")
        with torch.enable_grad():
            logits, captured, _ = self._run(tokens, sites, gradients=gradients)
            loss = next_token_loss(logits, tokens)
            if real is not None:
                loss = loss * real[:, 1:].to(loss.device)
            at = {name: captured[name] for name in (site.hook_name for site in gradients)}
            # A site whose activation an intervention overwrites further on has gradient 0, not none.
            found = torch.autograd.grad(loss.sum(), list(at.values()), allow_unused=True, materialize_grads=True)
        return self._at_sites(captured, sites), self._at_sites(dict(zip(at, found, strict=True)), gradients)

    def generate(
        self,
        prompt_tokens: Int[Tensor, "*batch position"],
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> Int[Tensor, "batch total"]:
        """Continue prompts of one length by exactly `max_new_tokens` tokens, under the interventions in force.

        Temperature 0 is greedy. Same seed, prompts and machine: same tokens. Keys and values are cached unless an
        intervention without `per_position` is in force; such a one sees whole rows, as it does everywhere else.
        """
        new = self.stream(prompt_tokens, max_new_tokens, temperature, top_k, top_p, seed)
        return torch.cat([self._checked(torch.atleast_2d(prompt_tokens)), torch.stack(list(new), dim=1)], dim=1)

    def stream(
        self,
        prompt_tokens: Int[Tensor, "*batch position"],
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> Iterator[Int[Tensor, "batch"]]:
        """The new tokens of `generate`, one for each row at a time, as they are drawn; close it to stop.

        Settings are checked at once. A token is computed under the interventions that are in force when it is asked
        for; whether keys and values are cached is decided at the first.
        """
        check_sampling(max_new_tokens, temperature, top_k, top_p)
        tokens = torch.atleast_2d(prompt_tokens)
        if tokens.shape[-1] + max_new_tokens > self.n_ctx:
            raise UserError(
                f"a prompt of {tokens.shape[-1]} tokens and max_new_tokens {max_new_tokens} exceed the model's "
                f"context of {self.n_ctx}"
            )
        generator = torch.Generator().manual_seed(seed)
        choose = partial(sample, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
        return self._continued(self._checked(tokens), max_new_tokens, choose)

    @torch.no_grad()
    def _continued(
        self, tokens: Int[Tensor, "batch position"], n: int, choose: Callable[[Tensor], Tensor]
    ) -> Iterator[Int[Tensor, "batch"]]:
        """`n` tokens for each row, as `choose` takes them from the logits."""
        cached, cache, prompt = all(i.per_position for i in self._interventions), None, tokens.shape[1]
        for _ in range(n):
            fresh = tokens if cache is None else tokens[:, -1:]
            logits, _, cache = self._bridge.run(
                fresh, self._interventions, cache=cache, use_cache=cached, prompt=prompt
            )
            chosen = choose(logits[:, -1])
            tokens = torch.cat([tokens, chosen[:, None]], dim=1)
            yield chosen

    @torch.no_grad()
    def at_the_end(
        self, tokens: Int[Tensor, "batch position"]
    ) -> Callable[[int], Float[Tensor, "batch copies d_vocab"]]:
        """Compute all but the last position once, untouched; the function returned runs the last one in `copies`.

        Interventions in force when it is called see the last position alone, `[batch · copies, 1, width]`, the copies
        of a row side by side. So many edits of one position cost one token each.
        """
        rest = self.from_position(tokens, tokens.shape[1] - 1)
        return lambda copies: rest((), copies)[0][:, -1].unflatten(0, (-1, copies))

    @torch.no_grad()
    def from_position(self, tokens: Int[Tensor, "batch position"], start: int) -> Rest:
        """Compute the positions before `start` once, untouched; the function returned runs the rest, as often as it is
        called, and gives its logits `[batch · copies, rest, d_vocab]` and its activations at some sites.

        Interventions in force when it is called see positions from `start` on alone, `[batch · copies, rest, width]`,
        the copies of a row side by side.
        """
        tokens = self._checked(tokens)
        cache = self._cache(tokens[:, :start])

        @torch.no_grad()
        def rest(sites: Sequence[Site] = (), copies: int = 1) -> tuple[Tensor, dict[Site, Tensor]]:
            before = copy.deepcopy(cache)  # a pass appends to what it is given
            if before is not None and copies > 1:
                before.batch_repeat_interleave(copies)
            fresh, use_cache = tokens[:, start:].repeat_interleave(copies, dim=0), before is not None
            outcome = self._bridge.run(fresh, self._interventions, sites, cache=before, use_cache=use_cache)
            return outcome.logits, self._at_sites(outcome.captured, sites)

        return rest

    @torch.no_grad()
    def at_positions(
        self, tokens: Int[Tensor, "batch position"]
    ) -> Callable[[int, Int[Tensor, "n"]], Float[Tensor, "n d_vocab"]]:
        """Compute all positions once, untouched; the function returned runs one position of some rows again (a row may
        be named several times) and gives its logits.

        Interventions in force when it is called see that position alone, `[n, 1, width]`. So edits of many positions
        cost one token each.
        """
        tokens = self._checked(tokens)
        whole = self._bridge.run(tokens, cache=whole_cache(), use_cache=True).cache

        @torch.no_grad()
        def position_logits(position: int, rows: Int[Tensor, "n"]) -> Float[Tensor, "n d_vocab"]:
            rows = rows.to(tokens.device)
            before = cut(whole, position, rows)
            fresh = tokens[rows, position : position + 1]
            return self._bridge.run(fresh, self._interventions, cache=before, use_cache=True).logits[:, -1]

        return position_logits

    def _cache(self, tokens: Int[Tensor, "batch position"]) -> Any:
        """Keys and values of the clean run; None if there is no position."""
        return self._bridge.run(tokens, use_cache=True).cache if tokens.shape[1] else None

    def direct_logits(self, directions: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_vocab"]:
        """What each residual-stream direction adds to the logits directly: through the final norm's gain (centred
        first for a LayerNorm), then the unembedding, fp32. Biases and the norm's data-dependent scale are left out.
        """
        return self._bridge.direct_logits(directions.to(self.device))

    def embeddings(self, tokens: Int[Tensor, "n"]) -> Float[Tensor, "n d_model"]:
        """Each token's row of the embedding, fp32: without positions, and unscaled where a model scales them."""
        return self._bridge.embeddings(tokens)

    def logit_directions(self, tokens: Int[Tensor, "n"]) -> Float[Tensor, "n d_model"]:
        """For each token the residual-stream direction u such that r · u is what `direct_logits` says of r and the
        token, less the mean of that over the vocabulary; fp32."""
        return self._bridge.logit_directions(tokens)

    def final_scale(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """The final norm's data-dependent scale, fp32, at residual streams `x` that arrive there: 1 / std for a
        LayerNorm, 1 / rms for an RMSNorm. Times `direct_logits` it gives logits."""
        return self._bridge.final_scale(x.to(self.device))

    @property
    def _interventions(self) -> tuple[Intervention, ...]:
        return getattr(self._in_force, "interventions", ())

    def _heads(self, site: Site) -> int:
        return self.n_kv_heads if site.kind in ("k", "v") else self.n_heads

    def _run(self, tokens: Tensor, sites: Sequence[Site] = (), **options: Any) -> Outcome:
        for site in sites:
            self.check(site)
        return self._bridge.run(self._checked(tokens), self._interventions, sites, **options)

    def _at_sites(self, whole: dict[str, Tensor], sites: Sequence[Site]) -> dict[Site, Tensor]:
        """Each site's part of what arrived at its hook point."""
        parts = {site: read(whole[site.hook_name].detach(), site, self.d_head).to(self.device) for site in sites}
        for site, part in parts.items():
            if part.shape[-1] != self.width(site):
                raise RuntimeError(f"internal error: {site} is {part.shape[-1]} wide, not {self.width(site)}")
        return {site: part if site.head is None else part.contiguous() for site, part in parts.items()}

    def _checked(self, tokens: Tensor) -> Tensor:
        """Token ids on the model's device; UserError if they can't be a batch of rows for this model."""
        if tokens.ndim != 2 or tokens.is_floating_point() or tokens.numel() == 0:
            raise UserError(f"tokens must be ids of shape [batch, position], not {tokens.dtype} {list(tokens.shape)}")
        if tokens.shape[1] > self.n_ctx:
            raise UserError(f"rows of {tokens.shape[1]} tokens exceed the context of model {self.name!r}, {self.n_ctx}")
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= self.d_vocab:
            raise UserError(
                f"token id {low if low < 0 else high} isn't among the model's {self.d_vocab} (0 to {self.d_vocab - 1})"
            )
        return tokens.to(self.device, torch.long)


def next_token_loss(
    logits: Float[Tensor, "batch position d_vocab"], tokens: Int[Tensor, "batch position"]
) -> Float[Tensor, "batch position-1"]:
    """-log p(token t + 1 | tokens up to t) in nats, in fp32."""
    targets = tokens[:, 1:].to(logits.device, torch.long)
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), targets.flatten(), reduction="none"
    )
    return losses.view(targets.shape)
