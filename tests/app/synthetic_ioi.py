"""An IOI report made of thin air, in the schema of the real ones: one cross-section, two dictionaries."""

from __future__ import annotations

from saelab.evaluation.ioi.report import (
    About,
    AbovePart,
    AttributePart,
    BehaviourPart,
    CircuitPart,
    ControlPart,
    DictionaryPart,
    EditPart,
    HeatMap,
    IoiReport,
    Kind,
    MeaningPart,
    Measured,
    NodePart,
    OcclusionPart,
    SectionPart,
    Way,
)

NODE = "blocks.2.attn.z.head0 at END"


def ioi_report(name: str = "task topk") -> IoiReport:
    """Name of the dictionary beside the supervised one; texts of reports are not trusted, so any will do."""
    return IoiReport(
        about=About(
            model="demo", model_revision=None, model_fingerprint="0" * 64, dtype="float32", device="cpu",
            words={"names, train": (12, 20)}, dictionaries={}, seconds=1.0, created="2026-01-01T00:00:00+00:00",
            saelab_version="0.1.0",
            settings={
                "fit_prompts": 100, "fit_templates": [1, 2], "test_prompts": 50, "test_templates": [3],
                "patched_prompts": 20, "threshold": 0.05, "floor": 0.01,
            },
        ),
        behaviour=[
            BehaviourPart(
                names="train", template=None, pattern=None, n=50, accuracy=1.0, prefers_io=1.0, logit_difference=9.0
            )
        ],
        circuit=CircuitPart(
            source="found", heads={"name movers": ["2.0"], "S-inhibition": []},
            maps=[HeatMap(title="noising z at END", values=[[0.0, 0.1], [0.5, None]])],
        ),
        sections=[section(name)],
        occlusion=[
            OcclusionPart(section="(B)NM z", node=NODE, architecture="topk", alpha=alpha, named=dict.fromkeys(
                ("IO", "S", "Pos"), 1 - alpha
            ))
            for alpha in (0.0, 1.0)
        ],
        published=[],
    )  # fmt: skip


def section(name: str) -> SectionPart:
    attributes = [
        AttributePart(attribute=attribute, no_edit=measured(0.07), carried=attribute == "IO", logit_difference=4.7)
        for attribute in ("IO", "S", "Pos")
    ]
    dictionaries = [dictionary("supervised MSE", "supervised", ["supervised"]), dictionary(name, "task", ["agnostic"])]
    return SectionPart(name="(B)NM z", nodes=[NODE], ablated=0.1, attributes=attributes, dictionaries=dictionaries)


def dictionary(name: str, kind: Kind, ways: list[Way]) -> DictionaryPart:
    edits = [
        EditPart(k=k, accuracy=measured(0.5), normalised=measured(0.4), relative=None, magnitude=measured(0.3))
        for k in (1, 4)
    ]
    above = [AbovePart(threshold=0.5, latents=3, sufficiency=measured(0.8), necessity=measured(0.7))]
    node = NodePart(
        node=NODE, d_sae=8, active=3, l0=2.0, fvu=0.1, named={"IO": 0.5},
        splitting={"ABB": 1}, splitting_f1={"ABB": 0.9},
        f1_histogram=[1] * 20, best=[MeaningPart(latent=4, family="IO", values=["Mary"], f1=0.9)],
    )  # fmt: skip
    return DictionaryPart(
        name=name, kind=kind, sufficiency=measured(0.98), necessity=measured(0.93),
        control=[ControlPart(attribute="IO", way=way, edits=edits) for way in ways],
        above=above if kind == "task" else [], nodes=[node],
    )  # fmt: skip


def measured(value: float) -> Measured:
    return Measured(value=value, low=value - 0.05, high=value + 0.05)
