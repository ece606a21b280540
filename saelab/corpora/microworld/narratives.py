"""Short stories, scenes with agreeing pronouns, walks from place to place, comparisons, questions, letters."""

from __future__ import annotations

from saelab.corpora.microworld.frames import Scene, frames

_OPENINGS = frames(
    """
    Once upon/P a time, there was a {adj} {animal:pet} in/P the {place:here}. {A} loved the {animal:pet}.
    One/# day, {A} went to/P the {place:here} with {A.his} {mother:kin}.
    One/# day, {A} and {B} went to/P the {place:here} together.
    One/# {weather} {daypart}, {A} {moved} to/P the {place:here}.
    {A} had/V+past_tense a {colour} {object:toy}. {A.he} loved/V the {object:toy} very much/A.
    {A} and {B} were good friends. They played/V in/P the {place:here} every day.
    {A} lived in/P a {size} house near/P the {place:here}.
    In/P the {daypart}, {A} {verbed} a {adj} {object:toy}.
    There was a {size} {animal:pet} in/P the {place:here}. {A} liked/V the {animal:pet}.
    Last/J {season}, {A} and {A.his} {father:kin} built a {size} boat.
    """
)
_EVENTS = frames(
    """
    {A.he} saw/V a {adj} {animal} near/P the {thing}.
    {A.he} {verbed} a {adj} {object} and {acted}.
    There, {A.he} met {B}.
    {A} met a {adj} {role} with a {adj} {object}.
    {B} {verbed} the {object:toy} and gave it/R to/P {A}.
    {A} and {B} {moved} across/P the {place}.
    The {role} {manner} {verbed} a {adj} {object}.
    Then {A} {moved} back/A to/P the {place:here}.
    {A} ate/V a {adj} {food} and two {foods}.
    They saw/V {number} {animals} behind/P the {thing}.
    A {adj} {animal} {moved} over/P the {thing}.
    {B} put/V+past_tense the {object:toy} on/P the table.
    {A.his} {mother} made/V a {adj} {food} for/P {A.him}.
    {A} looked/V under/P the {object} and behind/P the {thing}.
    {A.his} {body} hurt/V+past_tense, but/C {A.he} did not cry.
    The {things} were {adj}, and the {animals} were {adj}.
    {A} and {B} {acted} all/D {daypart}.
    {B} was {feeling} because/C {B.he} had/X lost/V {B.his} {object}.
    {A} wanted/V to/T play with the {object:toy}, but/C {B} was {feeling}.
    Nobody saw/V the {adj} {animal}.
    {A} heard a {adj} noise and {acted} {manner}.
    {B} never/A saw/V such a {adj} {thing}.
    It/R was a {weather} day, and the {place:here} was {quality}.
    A {role} and a {role} came/V out/A of/P the {place}.
    {A.he} was not {feeling}. {A.he} was {feeling}.
    """
)
_TALK = frames(
    """
    « Look, {B+addressee}! »- said {A+speaker}. « It's a {adj} {object}! »
    « Where/A is my {object:toy}? »- asked {A+speaker}. « I do/X not know, {A+addressee}, »- {said} {B+speaker}.
    {A+speaker} said, « I want a {adj} {food}. »
    « Can I have/V the {object:toy}, {A+addressee}? »- asked {B+speaker}. \
        « Yes/I, {B+addressee}, you can, »- {said} {A+speaker}.
    « Don't be/X {feeling}, {B+addressee}, »- said {A+speaker}.
    « I am {feeling}, »- {said} {B+speaker} {manner}.
    « Please/I help/V me, »- {said} the {role+speaker}.
    « What/R a {adj} {animal}! »- {said} {A+speaker}.
    """
)
_ENDINGS = frames(
    """
    {A} and {B} were {feeling}.
    Then {A} and {B} went home/A.
    {A} hugged/V {B}, and {B} {acted}.
    {A} thanked/V {B}. {B} thanked/V {A} too.
    At last/N, {A} was {feeling} and {acted}.
    From that/D day, {A} and {B} were friends.
    In/P the evening, {A} put/V+past_tense the {object:toy} in/P {A.his} {object} and slept.
    {A} never/A forgot/V the {adj} {place:here}.
    They lived happily ever/A after/A.
    """
)
_AGREEMENT = frames(
    """
    {A} lost/V {A.his} {object:x}. {A.he} looked/V for/P it/R in/P the {place}. {A.his} {mother} helped/V {A.him}.
    {A} cut/V+past_tense {A.his} {body}. {A.he} {acted}, and {B} helped/V {A.him}.
    {A} made/V {A.himself} a {food}. {A.he} ate/V it/R {manner}.
    {A} looked/V at/P {A.himself} in/P the mirror. {A.he} was {feeling}.
    {A}'s {father} gave {A.him} a {object:x}. {A.he} put/V+past_tense the {object:x} in/P {A.his} bag.
    {B} saw/V {B.his} {mother} in/P the {place}. {B.he} {moved} to/P {B.his} {mother}.
    {A} likes {A.his} {role:r}. {A.he} says that/C the {role:r} is {quality}.
    The {animals} were {feeling}, so/C {A} gave them some/D {foods}. They ate/V them {manner}.
    {A} and {B} had/X lost/V their {object:x}. They looked/V for/P their {object:x} until/C they found/V it/R.
    {A} was {feeling} because/C {A.his} {animal:x} was {feeling}. {A.he} gave {A.his} {animal:x} a {food}.
    {B} did/V the work/N {B.himself}. {B.he} was proud of/P {B.himself}.
    """
)
_PLACES = frames(
    """
    {A} {moved} from the {place:p} to/P the {place:q}. From the {place:q}, {A.he} {moved} to/P the {place:r}. \
        From the {place:r}, {A.he} {moved} home/A.
    The {place:p} is between/P the {place:q} and the {place:r}. {A} lives near/P the {place:p}.
    The {place:p} is north/N of/P the {place:q}. The {place:q} is south/N of/P the {place:p}.
    {A} lives near/P the {place:p}, and {B} lives near/P the {place:q}. \
        So/C {A} often walks to/P the {place:q}, and {B} often walks to/P the {place:p}.
    To/T find the {place:p}, cross/V the {size} bridge, turn/V left/A at the {place:q}, and walk/V past/P the {adj} \
        {thing}.
    There is a {adj} {place:p} in/P our town. Behind/P the {place:p} there is a {adj} {place:q}. \
        In/P the {place:q} you can see many/D {animals}.
    {A} works/V at the {place:p}. {B} works/V at the {place:q}. {A} works/V with {roles}, and {B} works/V with {roles}.
    The road goes from the {place:p} to/P the {place:q}, and it/R passes/V a {adj} {thing}.
    """
)
_COMPARISONS = frames(
    """
    The {object:x} is {comparative:k} than/C the {object:y}. The {object:y} is not {comparative:k} than/C the \
        {object:x}.
    {A} is {comparative:k} than/C {B}. {B} is not {comparative:k} than/C {A}.
    The {animal:x} is {comparative} than/C the {animal:y}, but/C the {animal:y} is {comparative}.
    {A}'s {object:x} is {colour:c}, and {B}'s {object:x} is {colour:d}. {A} likes {colour:c}. {B} likes {colour:d}.
    Is the {animal:x} {comparative:k} than/C the {animal:y}? Yes/I, the {animal:x+answer} is {comparative:k+answer}.
    """
)
_QUESTIONS = frames(
    """
    {A} has/V a {colour:c} {object:x}. {B} has/V a {colour:d} {object:y}. Who/R has/V the {object:x}? \
        {A+answer} has/V the {object:x}.
    {A} has/V a {colour:c} {object:x}. {B} has/V a {colour:d} {object:y}. Who/R has/V the {object:y}? \
        {B+answer} has/V the {object:y}.
    The {object:x} is {colour:c}. The {object:y} is {colour:d}. What/D color/N is the {object:x}? \
        The {object:x} is {colour:c+answer}.
    The {object:x} is {colour:c}. The {object:y} is {colour:d}. What/D color/N is the {object:y}? \
        The {object:y} is {colour:d+answer}.
    {A} is in/P the {place:p}. {B} is in/P the {place:q}. Where/A is {A}? {A} is in/P the {place:p+answer}.
    {A} is in/P the {place:p}. {B} is in/P the {place:q}. Where/A is {B}? {B} is in/P the {place:q+answer}.
    {A} likes {foods:f}. {B} likes {foods:g}. What/R does {B} like/V? {B} likes {foods:g+answer}.
    {A} likes {foods:f}. {B} likes {foods:g}. What/R does {A} like/V? {A} likes {foods:f+answer}.
    """
)
_LETTERS = frames(
    """
    Dear {A+addressee}, | Thank/V you for/P the {adj} {object:x}. I like/V the {object:x} very much/A. \
        My {mother} says that/C it/R is {quality}. | Love/N, | {B}
    Dear {A+addressee}, | Please/I come/V to/P my party on/P {weekday:w}. We will/X play games/N and eat/V {foods}. \
        Bring/V your {object}. | Your friend, | {B}
    Dear {A+addressee}, | I am in/P the {place:p} with my {father}. It/R is {weather} here. \
        We saw/V {number} {animals} and a {adj} {animal}. I miss/V you, {A+addressee}. | Yours/R, | {B}
    Dear {A+addressee}, | I am sorry about/P your {object:x}. I did not see/V it/R. \
        I will/X buy/V you a new {object:x} on/P {weekday:w}. | Your friend, | {B}
    """
)


def story(scene: Scene) -> None:
    """Opening, events and talk, ending."""
    scene.say_one(_OPENINGS)
    for _ in range(scene.rng.randrange(3, 7)):
        scene.say_one(_TALK if scene.chance(0.3) else _EVENTS)
    scene.say_one(_ENDINGS)


def _several(sentences: list, low: int, high: int):
    def write(scene: Scene) -> None:
        for _ in range(scene.rng.randrange(low, high)):
            scene.words.clear()
            scene.say_one(sentences)

    return write


pronouns = _several(_AGREEMENT, 1, 4)
places = _several(_PLACES, 1, 3)
comparisons = _several(_COMPARISONS, 1, 4)
questions = _several(_QUESTIONS, 1, 4)
letter = _several(_LETTERS, 1, 2)
