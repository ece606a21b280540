"""What the suite's report holds: every number with a title, a description and a unit; the published schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from saelab.evaluation.provenance import ReportPart
from saelab.evaluation.report import Number, SavedReport, number

if TYPE_CHECKING:  # who only reads reports needs no torch
    from saelab.evaluation.ioi.estimates import Estimate

Kind = Literal["supervised", "baseline", "task", "full-distribution", "given"]
"""Constructed from labels; a sanity baseline; trained on the node's activations in the task's prompts; trained on text;
given, and trained on nobody says what."""
Way = Literal["supervised", "agnostic", "guided"]
"""How an edit's latents are chosen: by the labels, greedily by distance, or by F1 with the attribute's values."""


class Measured(ReportPart):
    """A number, and where it lies in 95 % of bootstrap samples of the prompts."""

    value: Number
    low: Number
    high: Number

    @classmethod
    def of(cls, estimate: Estimate) -> Measured:
        return cls(value=estimate.value, low=estimate.low, high=estimate.high)


class About(ReportPart):
    """The conditions that the numbers hold under."""

    model: str
    """Name or folder of the language model."""
    model_revision: str | None
    """Revision of the model on the Hub, where there is one."""
    model_fingerprint: str
    """SHA-256 over the model's configuration and weights."""
    dtype: str
    """Number format that the language model ran in."""
    device: str
    """Device that the model ran on."""
    words: dict[str, tuple[int, int]]
    """Of each list of words: how many are single tokens, of how many."""
    dictionaries: dict[str, str]
    """Checksums of the dictionaries that were given, by the path they were read from."""
    settings: dict[str, Any]
    """All settings that decide the numbers."""
    seconds: float
    """Wall-clock time of everything."""
    created: str
    """When, in ISO 8601 (UTC)."""
    saelab_version: str
    """Version of saelab that measured."""


class BehaviourPart(ReportPart):
    """The untouched model's answers to some prompts."""

    names: Literal["train", "test", "all"]
    """Which half of the names; places and objects are of the test half."""
    template: int | None
    """The template; null for all together."""
    pattern: str | None
    """ABB or BAB; null for both together."""
    n: int = number("Prompts", "How many.", "prompts")
    accuracy: Number = number("Accuracy", "Share of prompts whose likeliest of all tokens is IO.", "")
    prefers_io: Number = number("IO above S", "Share of prompts whose logit of IO exceeds that of S.", "")
    logit_difference: Number = number("Logit difference", "Mean of logit(IO) - logit(S).", "nats")


class HeatMap(ReportPart):
    """A score of every head."""

    title: str
    """What was patched, and how."""
    values: list[list[Number]] = number(
        "Effect", "Layer by head: share of the way from the clean to the corrupted logit difference.", ""
    )


class CircuitPart(ReportPart):
    """Which heads do the task."""

    source: Literal["published", "found"]
    """published: GPT-2 small's, typed in; found: by patching on this model."""
    heads: dict[str, list[str]]
    """Role → heads as layer.head, strongest first where they were found. A role may have none."""
    maps: list[HeatMap]
    """Scores of the search; empty for a published circuit."""


class AttributePart(ReportPart):
    """What the true patch of one attribute does in one cross-section."""

    attribute: Literal["IO", "S", "Pos"]
    no_edit: Measured = number("No edit", "Share of prompts whose answer the true patch leaves as it is.", "")
    carried: bool
    """Whether the true patch changes enough answers for edits to be scored."""
    logit_difference: Number = number(
        "Logit difference",
        "Mean of logit(IO) - logit(S), of the unchanged prompts' names, under the true patch.",
        "nats",
    )


class EditPart(ReportPart):
    """Edits of one budget."""

    k: int = number("k", "Latents that may be edited at each node.", "latents")
    accuracy: Measured = number("Edit accuracy", "Share of prompts answered as under the true patch.", "")
    normalised: Measured = number("Normalised", "(accuracy - no edit) / (1 - no edit).", "")
    relative: Measured | None = number(
        "Relative to supervised", "(accuracy - no edit) / (accuracy of the MSE supervised edit - no edit).", ""
    )
    magnitude: Measured = number(
        "Edit magnitude", "Removed latents' share of the activation, Σ (f_i u_i)·(a_hat - b) / |a_hat - b|².", ""
    )


class ControlPart(ReportPart):
    """Sparse control of one attribute."""

    attribute: Literal["IO", "S", "Pos"]
    way: Way
    """How the latents were chosen."""
    edits: list[EditPart]


class AbovePart(ReportPart):
    """Test 1 with the latents alone that a property describes well enough."""

    threshold: float = number("F1 threshold", "Latents with a lower best F1 are left out.", "")
    latents: int = number("Latents", "How many are left, over all nodes.", "latents")
    sufficiency: Measured = number("Sufficiency", "LD(a ← a_hat) / LD(clean) with these latents alone.", "")
    necessity: Measured = number("Necessity", "As necessity, with these latents alone.", "")


class MeaningPart(ReportPart):
    """A latent and the property that describes it best."""

    latent: int
    family: str
    """Kind of property."""
    values: list[str]
    """The property, or the names of a union."""
    f1: Number = number("F1", "Of the latent's active set against the property's prompts.", "")


class NodePart(ReportPart):
    """A dictionary at one node."""

    node: str
    """Site and position."""
    d_sae: int = number("Latents", "Size of the dictionary.", "latents")
    active: int = number("Active latents", "Latents that are active on any test prompt.", "latents")
    l0: Number = number("L0", "Mean number of active latents.", "latents/prompt")
    fvu: Number = number("FVU", "Fraction of variance unexplained on the test prompts.", "")
    named: dict[str, Number] = number(
        "Named values", "By attribute: share of its values that have a latent with F1 > 0.5.", ""
    )
    splitting: dict[str, int] = number(
        "Split",
        "By value of Pos: latents that make it up, taken while the union's F1 rises by 0.01.",
        "latents",
    )
    splitting_f1: dict[str, Number] = number("Split F1", "By value of Pos: F1 of that union.", "")
    f1_histogram: list[int] = number(
        "F1 histogram", "Active latents by their best F1 over all properties, in 20 bins from 0 to 1.", "latents"
    )
    best: list[MeaningPart]
    """The best described latents."""


class DictionaryPart(ReportPart):
    """One kind of dictionary in one cross-section: one at each node, all tested together."""

    name: str
    kind: Kind
    sufficiency: Measured = number("Sufficiency", "LD(a ← a_hat) / LD(clean).", "")
    necessity: Measured = number(
        "Necessity", "1 - |LD_mean - LD_int| / |LD_mean - LD_clean|, LD_int with a ← E[a] + (a - a_hat).", ""
    )
    control: list[ControlPart]
    above: list[AbovePart]
    """Test 3, causal: empty for dictionaries without interpretable latents (PCA) or with true labels (supervised)."""
    nodes: list[NodePart]


class SectionPart(ReportPart):
    """One cross-section."""

    name: str
    nodes: list[str]
    """Sites and positions, patched all at once."""
    ablated: Number = number("Ablated logit difference", "With every node at its mean activation.", "nats")
    attributes: list[AttributePart]
    dictionaries: list[DictionaryPart]


class OcclusionPart(ReportPart):
    """A dictionary trained on activations from which a part of IO was taken."""

    section: str
    node: str
    architecture: str
    alpha: float = number("α", "Multiple of u_IO that was subtracted.", "")
    named: dict[str, Number] = number("Named values", "By attribute: share of values with a latent of F1 > 0.5.", "")


class PublishedPart(ReportPart):
    """A number of the paper's beside ours. Only GPT-2 small can be held against it."""

    what: str
    published: float = number("Published", "The paper's number.", "")
    low: float = number("At least", "The least that counts as reproduced.", "")
    high: float | None = number("At most", "The most that counts as reproduced; null for no limit.", "")
    ours: Number = number("Ours", "Null where it was not measured.", "")
    verdict: Literal["pass", "fail", "not measured"]


class IoiReport(SavedReport):
    """The suite's findings on one model and any number of dictionaries."""

    suite: Literal["ioi"] = "ioi"
    about: About
    behaviour: list[BehaviourPart]
    circuit: CircuitPart
    sections: list[SectionPart]
    occlusion: list[OcclusionPart]
    """Empty where no dictionary was trained on the task."""
    published: list[PublishedPart]
    """Empty for any model but GPT-2 small."""


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the report, with title, description and unit of every number."""
    return IoiReport.model_json_schema(mode="serialization")
