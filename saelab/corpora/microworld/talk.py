"""Dialogues, in which the one addressed is the one who answers; and quotations."""

from __future__ import annotations

from saelab.corpora.microworld.frames import Scene, frames

_GREETINGS = frames(
    """
    {A} met {B} at the {place}. « Hello/I, {B+addressee}, »- said {A+speaker}. \
        « Hello/I, {A+addressee}, »- said {B+speaker}.
    {A} and {B} met at the {place}. « Good morning/N, {B+addressee}! »- said {A+speaker}. \
        « Good morning/N, {A+addressee}! »- said {B+speaker}.
    « Hi/I, {B+addressee}! »- {said} {A+speaker}. « Oh/I, hello/I, {A+addressee}! »- {said} {B+speaker}.
    {A} called {B}. « Is that/R you, {B+addressee}? »- asked {A+speaker}. \
        « Yes/I, {A+addressee}, it's me, »- said {B+speaker}.
    """
)
_EXCHANGES = frames(
    """
    « Where/A are you going/V, {B+addressee}? »- asked {A+speaker}. \
        « I am going/V to/P the {place}, »- said {B+speaker}.
    « Do/X you like/V {foods:f}, {B+addressee}? »- asked {A+speaker}. \
        « No/I, {A+addressee}, but/C I like/V {foods}, »- said {B+speaker}.
    « Do/X you like/V {foods:f}, {A+addressee}? »- asked {B+speaker}. \
        « Yes/I, I love/V {foods:f+repeated}, {B+addressee}, »- {said} {A+speaker}.
    « What/R is in/P the {object}, {A+addressee}? »- asked {B+speaker}. \
        « There is a {adj} {object} in/P it/R, {B+addressee}, »- said {A+speaker}.
    « Give/V me the {object:o}, {B+addressee}, »- said {A+speaker}. \
        « No/I, it's my {object:o+repeated}, »- {said} {B+speaker}.
    « Will/X you help/V me, {B+addressee}? »- asked {A+speaker}. \
        « Of/P course/N, {A+addressee}, »- said {B+speaker} {manner}.
    « I saw/V a {adj} {animal:x} in/P the {place}, »- said {B+speaker}. \
        « I never/A saw/V a {animal:x}, »- said {A+speaker}.
    « Can you see/V the {thing}, {A+addressee}? »- {B+speaker} asked. \
        « No/I, I can't see/V it/R, {B+addressee}, »- {A+speaker} answered.
    « Why/A are you {feeling:e}, {B+addressee}? »- asked {A+speaker}. \
        « I am {feeling:e+repeated} because/C I lost/V my {object}, »- said {B+speaker}.
    « My {mother} is a {role}, »- said {A+speaker}. « My {father} is a {role}, »- said {B+speaker}.
    {A} asked/V+speech_verb {B} about/P the {object:o}. {B} said that/C the {object:o} was {quality}. \
        « Are you sure/J, {B+addressee}? »- asked {A+speaker}.
    {A} smiled at/P {B}. {B} smiled at/P {A}. « You are {quality}, {B+addressee}, »- said {A+speaker}.
    {B} gave {A} a {adj} {object:o}. « Thank/V you for/P the {object:o}, {B+addressee}, »- said {A+speaker}.
    {A} told/V+speech_verb {B} a {adj} story. « That/R was {quality}, {A+addressee}, »- said {B+speaker}.
    """
)
_FAREWELLS = frames(
    """
    « Goodbye/I, {B+addressee}, »- said {A+speaker}. « Goodbye/I, {A+addressee}, »- said {B+speaker}.
    « See/V you on/P {weekday:w}, {B+addressee}! »- said {A+speaker}. \
        « See/V you on/P {weekday:w+repeated}, {A+addressee}! »- said {B+speaker}.
    Then {A} and {B} laughed and went home/A.
    {A} waved at/P {B}, and {B} waved at/P {A}.
    """
)
_QUOTATIONS = frames(
    """
    The sign at the {place} said, « No/D {animals}! »
    The {role} always/A says, « A {adj} {object} is better than/C two {adj} {things}. »
    {A} wrote/V one/# word in/P the sand/N: « {quality} ».
    On/P the door/N there was a note/N: « Gone/V to/P the {place}. »
    {A}'s {mother} says, « Be/V {quality}, and never/A be/V {quality}. » {A} never/A forgot/V it/R.
    « {quality:q}, {quality:r}, {quality:s}, »- {said} the {role+speaker}. \
        « {quality:q+repeated}, {quality:r+repeated}, {quality:s+repeated}, »- {said} {A+speaker}.
    {A+speaker} said, « My {mother} told/V me, we must/X be/X {quality}. » But/C {B} did/X not listen/V.
    « The {animal:x} is {quality:q}, »- {said} {A+speaker}. « The {animal:x+repeated} is not {quality:q}, »- {said} \
        {B+speaker}.
    The book begins with these/D words: « Once there was a {role}. »
    """
)


def dialogue(scene: Scene) -> None:
    """A greeting, some exchanges, often a farewell. The name that is addressed is the next to speak."""
    scene.say_one(_GREETINGS)
    for _ in range(scene.rng.randrange(1, 5)):
        scene.words.clear()
        scene.say_one(_EXCHANGES)
    if scene.chance(0.6):
        scene.say_one(_FAREWELLS)


def quotations(scene: Scene) -> None:
    """A few sentences that quote something."""
    for _ in range(scene.rng.randrange(1, 4)):
        scene.words.clear()
        scene.say_one(_QUOTATIONS)
