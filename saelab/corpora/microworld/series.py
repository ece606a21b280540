"""Lists, counting, dates, and exact repetitions: text whose order carries the meaning."""

from __future__ import annotations

from saelab.corpora.microworld import words
from saelab.corpora.microworld.frames import Scene, frame, frames

_POSITIONS = ("list_first", "list_second", "list_third")
_LIST_STARTS = frames(
    """
    {A} bought
    {A} put/V+past_tense in/P {A.his} bag
    In/P the {place}, {A} saw/V
    {A} and {B} wanted/V
    On/P the table/N there were
    The {role} sold
    For/P {A.his} birthday, {A} got/V
    """
)
_LIST_TITLES = frames(
    """
    {A}'s list/N
    Things/N+plural to/T buy/V
    {A} needs {number} things/N+plural
    What/R {A} and {B} saw/V in/P the {place}
    """
)
_COUNT_STARTS = frames(
    """
    {A} counted/V
    {A} began/V to/T count/V
    « Let/V us count/V, {B+addressee}, »- said {A+speaker}
    The {role} counted/V the {animals}
    """
)
_AND = frame("and")


def _item_labels(position: int, count: int) -> tuple[str, ...]:
    last = ("list_last",) if position == count - 1 else ()
    return ("list_item", *_POSITIONS[position : position + 1], *last)


def inline_list(scene: Scene) -> None:
    """ "Tom bought a red hat, a ball and two apples." """
    scene.say_one(_LIST_STARTS)
    count = scene.rng.randrange(3, 7)
    for position in range(count):
        if position:
            scene.say(_AND) if position == count - 1 else scene.writer.mark(",")
        _item(scene, _item_labels(position, count))
    scene.writer.mark(".")


def _item(scene: Scene, labels: tuple[str, ...]) -> None:
    if scene.chance(0.3):
        number, kind = scene.pick("number"), scene.rng.choice(("foods", "animals", "things"))
        scene.writer.word(*number)
    else:
        kind = scene.rng.choice(("object", "object", "food", "animal"))
        scene.writer.article()
        if scene.chance(0.4):
            scene.writer.word(*scene.pick("adj"))
    text, own = scene.pick(kind)
    scene.writer.word(text, own + labels)


def numbered_list(scene: Scene) -> None:
    """A title and one numbered item a line."""
    scene.say_one(_LIST_TITLES)
    scene.writer.mark(":")
    count = scene.rng.randrange(3, 8)
    for position in range(count):
        scene.writer.newline()
        scene.writer.word(str(position + 1), ("number", "list_number"))
        scene.writer.suffix(".", ("punctuation",))
        text, own = scene.pick(scene.rng.choice(("object", "foods", "animals")))
        scene.writer.word(text, own + _item_labels(position, count))


def counting(scene: Scene) -> None:
    """Numbers in order, up or down, by one or by two, in words or in digits."""
    scene.say_one(_COUNT_STARTS)
    scene.writer.mark(":")
    step = scene.rng.choice((1, 1, 1, 2, -1, -1))
    length = scene.rng.randrange(4, 9)
    in_words = scene.chance(0.6)
    low = scene.rng.randrange(1, (20 if in_words else 90) - (length - 1) * abs(step) + 1)
    numbers = [low + abs(step) * k for k in range(length)][:: 1 if step > 0 else -1]
    noun = scene.pick("animals") if scene.chance(0.25) and min(numbers) > 1 else None
    label = "counting_up" if step > 0 else "counting_down"
    for position, number in enumerate(numbers):
        if position:
            scene.writer.mark(",")
        text = words.NUMBERS[number - 1] if in_words else str(number)
        scene.writer.word(text, ("number", label) if position else ("number",))
        if noun:
            scene.writer.word(noun[0], noun[1] + (("repeated",) if position else ()))
    scene.writer.mark(".")


_DIARY = frames(
    """
    {A} {moved} to/P the {place} and {verbed} a {object}.
    It/R was a {weather} day. {A} was {feeling}.
    {B} came/V to/P the {place} with a {adj} {animal}.
    We {verbed} the {object} and ate/V {foods}.
    I met {A} at the {place}. {A.he} was {feeling}.
    My {mother} made/V a {food} for/P us.
    """
)
_CALENDAR = frames(
    """
    In/P {season}, the {place} is {quality}.
    {A} was born/V in/P {month}. {B} was born/V in/P {month}.
    The {object} came/V on/P a {weekday}, in/P the {daypart}.
    """
)
_ON, _AFTER, _BEFORE = frame("On/P"), frame("The day after/P"), frame("The month before/P")
_IS, _CAME = frame("is"), frame("Then came/V")


def _date(scene: Scene) -> None:
    scene.say(_ON)
    scene.writer.word(*scene.pick("weekday"))
    scene.writer.mark(",")
    scene.writer.word(str(scene.rng.randrange(1, 29)), ("number", "date_day"))
    scene.writer.word(*scene.pick("month"))
    scene.writer.word(str(scene.rng.randrange(1850, 2030)), ("number", "date_year"))
    scene.writer.mark(",")


def diary(scene: Scene) -> None:
    """Dated entries."""
    for entry in range(scene.rng.randrange(1, 4)):
        if entry:
            scene.writer.newline()
        _date(scene)
        scene.say_one(_DIARY)


def calendar(scene: Scene) -> None:
    """Days and months in their order."""
    days, months = words.WEEKDAYS, words.MONTHS
    for _ in range(scene.rng.randrange(1, 4)):
        kind = scene.rng.randrange(4)
        start = scene.rng.randrange(84)
        if kind == 0:
            _successor(scene, _AFTER, days[start % 7], days[(start + 1) % 7], "date_weekday")
        elif kind == 1:
            _successor(scene, _BEFORE, months[start % 12], months[(start - 1) % 12], "date_month")
        elif kind == 2:
            listing, label = (days, "date_weekday") if start % 2 else (months, "date_month")
            for position in range(scene.rng.randrange(3, 7)):
                if position:
                    scene.writer.mark(",")
                scene.writer.word(listing[(start + position) % len(listing)], ("noun", label))
            scene.writer.mark(".")
        else:
            scene.say_one(_CALENDAR)


def _successor(scene: Scene, start: list, given: str, answer: str, label: str) -> None:
    scene.say(start)
    scene.writer.word(given, ("noun", label))
    scene.say(_IS)
    scene.writer.word(answer, ("noun", label, "answer"))
    scene.writer.mark(".")


_REPEATABLE = ("object", "place", "animal", "food", "colour", "quality", "weekday", "month", "number", "verbed", "name")


def repetition(scene: Scene) -> None:
    """A random sequence of distinct words, said two to four times: predictable by induction alone."""
    length = scene.rng.randrange(3, 8)
    kinds = _REPEATABLE if scene.chance(0.5) else (scene.rng.choice(_REPEATABLE),)
    chosen: dict[str, words.Person | tuple[str, ...]] = {}
    while len(chosen) < length:
        kind = scene.rng.choice(kinds)
        if kind == "name":
            person = scene.rng.choice(words.PEOPLE)
            chosen[person.name] = person
        else:
            text, labels = scene.pick(kind)
            chosen.setdefault(text, labels)
    for copy in range(scene.rng.randrange(2, 5)):
        for position, (text, what) in enumerate(chosen.items()):
            # The second copy's first word has followed nothing yet; from the third copy on it follows the last word.
            extra = ("repeated",) if copy > 1 or (copy and position) else ()
            if isinstance(what, words.Person):
                scene.writer.name(what, extra)
            else:
                scene.writer.word(text, what + extra)
    scene.writer.mark(".")


_ROUNDS = frames(
    """
    {A} has/V a {object:x}, {B} has/V a {object:y}.
    The {animal:x} {acted:p}, the {animal:y} {acted:q}.
    {moved:m} {manner:n}, {A}, {moved:m} {manner:n}.
    The {adj:j} {thing:x} is in/P the {place:y}, and the {adj:k} {animal:z} is in/P the {thing:x}.
    """
)


def refrain(scene: Scene) -> None:
    """A sentence that comes back word for word between other sentences."""
    first, *rest = scene.rng.choice(_ROUNDS)
    for verse in range(scene.rng.randrange(2, 4)):
        if verse:
            scene.writer.newline()
        scene.say([first])
        scene.writer.extra = ("repeated",) if verse else ()
        scene.say(rest)
        scene.writer.extra = ()
        scene.writer.newline()
        scene.say_one(_DIARY)
