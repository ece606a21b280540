"""A dictionary as SAEBench's evaluations take it: dense codes, unit-norm decoder rows, a configuration in its words.

    from saelab.hub.saebench import SAEBenchAdapter
    selected = [("mine", SAEBenchAdapter(saelab.load("runs/mine")))]     # for any run_eval of sae_bench

SAEBench is no dependency: it asks for nothing but this interface.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.hub.formats.places import known
from saelab.models.site import Site

_NORM_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 1e-2, torch.bfloat16: 1e-2}


@dataclass
class SAEBenchConfig:
    """What SAEBench reads of `sae.cfg`."""

    model_name: str
    d_in: int
    d_sae: int
    hook_layer: int
    hook_name: str
    architecture: str
    context_size: int
    prepend_bos: bool
    training_tokens: int
    dtype: str = "float32"
    device: str = "cpu"
    hook_head_index: int | None = None
    apply_b_dec_to_input: bool = True
    normalize_activations: str = "none"
    neuronpedia_id: str | None = None
    dataset_path: str = ""
    dataset_trust_remote_code: bool = False
    seqpos_slice: tuple[int | None, ...] = (None,)
    sae_lens_training_version: str | None = None
    model_from_pretrained_kwargs: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """All of it, for the result files."""
        return asdict(self)


class SAEBenchAdapter(nn.Module):
    """`encode`, `decode` and `forward` of a dictionary, its scale folded in and decoder rows brought to norm 1.

    The norms go into the codes, after selection, so that reconstructions are those of the dictionary.

    Attributes:
        W_enc: `[d, F]`.  W_dec: `[F, d]`, unit rows.  b_enc: `[F]`.  b_dec: `[d]`.

    Raises:
        UserError: a transcoder, or a dictionary at a site that saelab does not know.
    """

    def __init__(self, dictionary: Dictionary, model_name: str | None = None) -> None:
        super().__init__()
        if dictionary.config.targets:
            raise UserError("SAEBench evaluates autoencoders; this is a transcoder")
        if not known(dictionary.site):
            raise UserError(f"the dictionary's site {dictionary.site!r} is none that SAEBench could hook")
        folded = dictionary.folded()
        norms = folded.W_dec.norm(dim=1)
        norms = torch.where(norms > 0, norms, torch.ones_like(norms))
        self._config = folded.config
        self.W_enc = nn.Parameter(folded.W_enc.T, requires_grad=False)
        self.W_dec = nn.Parameter(folded.W_dec / norms[:, None], requires_grad=False)
        self.b_enc = nn.Parameter(folded.b_enc, requires_grad=False)
        self.b_dec = nn.Parameter(folded.b_dec, requires_grad=False)
        for name, tensor in (
            ("norms", norms), ("threshold", folded.threshold), ("gain", folded.gain), ("shift", folded.shift)
        ):  # fmt: skip
            self.register_buffer(name, tensor)
        self.cfg = _config(folded, model_name or folded.model_name)

    @property
    def device(self) -> torch.device:
        return self.W_dec.device

    @property
    def dtype(self) -> torch.dtype:
        return self.W_dec.dtype

    def to(self, *args: Any, **kwargs: Any) -> SAEBenchAdapter:
        """As every module; `cfg` says where it went."""
        super().to(*args, **kwargs)
        self.cfg = replace(self.cfg, device=str(self.device), dtype=str(self.dtype).removeprefix("torch."))
        return self

    def encode(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch F"]:
        """Dense codes, in the length of what each latent adds."""
        folded = Dictionary(
            self.W_enc.T, self.W_dec, self.b_enc, self.b_dec, self.get_buffer("threshold"), self._config,
            self.get_buffer("gain"), self.get_buffer("shift"),
        )  # fmt: skip
        codes = folded.encode(x.to(self.dtype))
        return codes.to_dense().reshape(*x.shape[:-1], -1) * self.get_buffer("norms")

    def decode(self, f: Float[Tensor, "*batch F"]) -> Float[Tensor, "*batch d"]:
        """`f W_dec + b_dec`."""
        return f @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """`decode(encode(x))`."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def check_decoder_norms(self) -> bool:
        """Whether all decoder rows have norm 1; a row of zeros has not."""
        norms = self.W_dec.float().norm(dim=1)
        return bool(((norms - 1).abs() <= _NORM_TOLERANCE[self.dtype]).all())


def _config(dictionary: Dictionary, model_name: str) -> SAEBenchConfig:
    config, place = dictionary.config, Site.parse(dictionary.site)
    return SAEBenchConfig(
        model_name=model_name, d_in=config.d_in, d_sae=config.d_sae, hook_layer=place.layer,
        hook_name=place.hook_name, hook_head_index=place.head, architecture=config.architecture,
        context_size=int(config.policy.get("context", 128)), prepend_bos=bool(config.policy.get("bos", False)),
        training_tokens=config.tokens_trained, device=str(dictionary.W_dec.device),
    )  # fmt: skip
