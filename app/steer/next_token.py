"""The next token after the prompt, before and after the edits, and how it answers to their strength."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app import blocks, model
from app.curves import curves
from app.next_tokens import Chance, chances
from app.notation import short
from app.prompt import prompts
from app.steer import steering
from app.tokens import quoted
from app.workspace import Run
from saelab.steering.config import SteerConfig

if TYPE_CHECKING:
    from torch import Tensor

AT, TOKENS = "at_strength", "tokens"  # in the address
SHOWN = 6  # likeliest tokens of each side
CURVES = 3  # tokens that are followed unasked
MOST = 7  # as many as there are colours


def next_token(run: Run, config: SteerConfig) -> None:
    """The section: bars on the left, curves on the right."""
    from saelab.steering.response import divergence

    answers = steering.answers(run, config)
    st.subheader("The next token", anchor=False)
    if answers.change_nothing:
        st.caption("The edits change nothing here: they begin after the prompt, or the latents are off as they are.")
    left, right = st.columns([1, 1.6], gap="large")
    with left:
        strength = _strength(config)
        after = answers.at(strength)
        st.html(
            blocks.titled(
                "Likeliest next tokens",
                chances(_chances(model.vocabulary(run), answers.clean, after), "as it is", "steered"),
                f"KL {short(float(divergence(answers.clean, after[None])[0]))} nats",
            )
        )
    with right:
        if config.mode == "zero":
            st.caption("Mode zero has no strength, and so no curves over it.")
        else:
            _curves(run, config, answers)


def _strength(config: SteerConfig) -> float | None:
    """Which of the strengths the bars show."""
    if config.mode == "zero":
        return None
    names = {f"{strength:g}": strength for strength in config.strength}
    named = st.query_params.get(AT)
    st.session_state["steer_at"] = named if named in names else list(names)[-1]
    chosen = st.segmented_control(
        "At strength", list(names), required=True, key="steer_at", on_change=_keep, args=(AT, "steer_at")
    )
    return names[chosen or list(names)[-1]]


def _keep(name: str, key: str) -> None:
    st.query_params[name] = str(st.session_state[key])


def _chances(vocabulary: list[str], clean: Tensor, after: Tensor) -> list[Chance]:
    """The likeliest before and the likeliest after, by the larger of the two probabilities."""
    p, q = clean.softmax(-1), after.softmax(-1)
    ids = {*p.topk(min(SHOWN, len(p))).indices.tolist(), *q.topk(min(SHOWN, len(q))).indices.tolist()}
    ordered = sorted(ids, key=lambda id_: max(float(p[id_]), float(q[id_])), reverse=True)
    return [Chance(vocabulary[id_], float(p[id_]), float(q[id_])) for id_ in ordered]


def _curves(run: Run, config: SteerConfig, answers: steering.Answers) -> None:
    """KL, and the logits of chosen tokens, over the strength."""
    from saelab.steering.response import divergence, shift

    vocabulary = model.vocabulary(run)
    rise = shift(answers.clean, answers.logits)
    tokens = _tokens(run, vocabulary, answers.at(max(config.strength, key=abs)) - answers.clean)
    strengths = [strength for strength in answers.strengths if strength is not None]
    kl = {"KL": divergence(answers.clean, answers.logits).tolist()}
    change = {quoted(vocabulary[id_]): rise[:, id_].tolist() for id_ in tokens}
    st.html(
        f'<div class="sl-pair">{curves(strengths, kl, "strength", "KL from unsteered (nats)", config.strength, ".3f")}'
        f"{curves(strengths, change, 'strength', 'change of logit', config.strength)}</div>"
    )
    unit = "a factor" if config.mode == "scale" else "in units of each latent's largest activation"
    st.caption(
        f"At the end of the prompt, over the strength ({unit}). Changes of logits are less their mean over the "
        "vocabulary, which changes no probability. Dotted: the strengths of the texts below."
    )


def _tokens(run: Run, vocabulary: list[str], rise: Tensor) -> list[int]:
    """The tokens that are followed: chosen, else those that rise most."""
    asked = [part for part in st.query_params.get(TOKENS, "").split(",") if part.isascii() and part.isdigit()]
    known = [int(part) for part in asked[:MOST] if len(part) < 10 and int(part) < len(vocabulary)]
    risen = rise.topk(min(20, len(rise))).indices.tolist()
    chosen = list(dict.fromkeys(known)) or risen[:CURVES]
    st.session_state["steer_tokens"] = chosen
    st.multiselect(
        "Tokens to follow", list(dict.fromkeys([*chosen, *risen])), key="steer_tokens", on_change=_keep_tokens,
        args=(run,), format_func=lambda token: quoted(vocabulary[token]) if isinstance(token, int) else token,
        accept_new_options=True, max_selections=MOST, help="Those whose logits rise most, or any: type it.",
    )  # fmt: skip
    return chosen


def _keep_tokens(run: Run) -> None:
    picked = st.session_state["steer_tokens"]
    ids = [prompts.token_id(run, each) if isinstance(each, str) else each for each in picked]
    known = [str(id_) for id_ in ids if id_ is not None]
    if known:
        st.query_params[TOKENS] = ",".join(known)
    else:
        st.query_params.pop(TOKENS, None)
