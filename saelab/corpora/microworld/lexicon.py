"""Which labels a word carries: closed-class words and the open lists of `words.py`, by part of speech.

A word with several parts of speech ("her", "to", "fish") has several entries; whoever writes it must say which.
"""

from __future__ import annotations

from saelab.corpora.microworld import words

Labels = tuple[str, ...]

_OPEN_NOUNS = words.listing(
    """
    day days time morning world way lot name names fun argument sun rain snow wind sky moon water milk tea bread
    soup dinner lunch breakfast rice butter salt sugar flour honey juice food game games song story stories party
    race picnic trip surprise secret question answer idea mistake joke lesson job work help luck dream noise sound
    voice smell smile tear tears hug sign note word words door friend friends people class family team birthday
    holiday year years week month hour hours minute night corner middle side top end edge center window light shade
    grass sand mud wood gold money price bit piece pieces cup glass slice half rest sleep walk home bed fire love
    thing things place places number list color colour tale prize turn page box corner left right north south west
    mile miles row line pair group kind steps way thanks tune dust puddle hole nest tower chance person problem
    trouble plan weather morning evening heart lady knowledge patience mind care letter shelf pocket grandparents
    parents
    """
)
_BASE_VERBS = words.listing(
    """
    go see find take make come give want like know think look help play eat drink sleep run walk jump sing dance
    read write draw paint buy sell bring carry keep hold open close clean wash fix break build cook bake open share
    visit meet tell ask say stop wait listen watch learn try need hear feel smell touch leave stay sit stand work
    start finish remember forget forgive hide catch throw kick push pull lift climb swim ride fly hop fall show
    follow live love hope wish wonder believe miss thank promise let get put turn call laugh cry smile worry rest
    cross grow choose win lose be have do rain snow add mix stir pour cut serve use begin count happen pay speak
    cost bark purr sleeps feels looks likes lives comes says has costs eats sleeps wants needs knows goes runs walks
    plays sees sits means sounds smells begins ends sells keeps owns falls shines blows
    """
)
_PAST_VERBS = words.listing(
    """
    lived went played had put gave wanted found saw looked heard felt thought knew told asked helped started stopped
    tried decided came got sat stood turned fell flew swam rode drew wrote read sang ate drank slept woke left
    stayed met made bought paid sold learned thanked hugged kissed shared followed visited worked watched listened
    waited counted ended happened became grew threw caught kicked climbed began finished agreed smelled tasted
    sounded shone rained snowed barked promised remembered arrived returned spent won lost brought rolled covered
    filled lay hung passed built planted baked cooked invited chased chose hoped wished wondered showed rang knocked
    liked loved needed belonged traveled reached blew called used forgave missed
    """
)
_MORE_ADJECTIVES = words.listing(
    """
    long crazy last next best better nice great good bad mean ready fine right wrong little other same different
    favorite own lost fast slow hot rich poor light hard weak full easy true real late early alone dear busy whole
    deep high low free proud close far few many much hungry delicious tasty first second third ripe quick near past
    missing kind such sure
    """
)
_MORE_ADVERBS = words.listing(
    """
    then afterwards so very really too also just now there here once finally later again always often sometimes
    still almost only even back yesterday today tomorrow upon first next last never-ending well much more down-there
    inside straight soon please inside maybe perhaps far early late fast today how why when where instead everywhere
    somewhere nearby tonight twice long ever yet already else
    """
)

_CLOSED: dict[str, str] = {
    "determiner": "the a an this that these those every each some any all both another many few no several what which",
    "preposition": (
        "in on at to from with of for by about under over behind near into onto through across after before beside "
        "between around during without inside outside until up down like along past off out"
    ),
    "pronoun": (
        "it this that who what everyone everybody something someone nothing nobody everything all both one them they "
        "which each some"
    ),
    "conjunction": "and but or because so when while if that as than before after until where",
    "auxiliary": (
        "is are was were am be been being has have had do does did will would can could should must may might shall"
    ),
    "particle": "to up down away back on off out over",
    "interjection": "yes no hello hi oh wow goodbye thanks please okay well hey hush",
}
_PERSONAL: dict[str, tuple[tuple[str, Labels], ...]] = {
    "I": (("pronoun", ("first_person",)),),
    "me": (("pronoun", ("first_person",)),),
    "we": (("pronoun", ("first_person", "pronoun_plural")),),
    "us": (("pronoun", ("first_person", "pronoun_plural")),),
    "you": (("pronoun", ("second_person",)),),
    "mine": (("pronoun", ("first_person",)),),
    "yours": (("pronoun", ("second_person",)),),
    "she": (("pronoun", ("pronoun_female",)),),
    "he": (("pronoun", ("pronoun_male",)),),
    "him": (("pronoun", ("pronoun_male",)),),
    "herself": (("pronoun", ("pronoun_female",)),),
    "himself": (("pronoun", ("pronoun_male",)),),
    "they": (("pronoun", ("pronoun_plural",)),),
    "them": (("pronoun", ("pronoun_plural",)),),
    "her": (("pronoun", ("pronoun_female",)), ("determiner", ("possessive", "pronoun_female"))),
    "his": (("determiner", ("possessive", "pronoun_male")),),
    "my": (("determiner", ("possessive", "first_person")),),
    "our": (("determiner", ("possessive", "first_person", "pronoun_plural")),),
    "your": (("determiner", ("possessive", "second_person")),),
    "their": (("determiner", ("possessive", "pronoun_plural")),),
    "its": (("determiner", ("possessive",)),),
}
_NEGATIONS = {
    "not": "adverb", "never": "adverb", "nothing": "pronoun", "nobody": "pronoun", "no": "determiner", "none": "pronoun"
}  # fmt: skip
TAGS = {
    "N": "noun", "V": "verb", "X": "auxiliary", "J": "adjective", "A": "adverb", "D": "determiner", "P": "preposition",
    "R": "pronoun", "C": "conjunction", "T": "particle", "I": "interjection", "#": "number",
}  # fmt: skip


def _build() -> dict[str, dict[str, Labels]]:
    entries: dict[str, dict[str, dict[str, None]]] = {}

    def add(word: str, pos: str, *labels: str) -> None:
        entries.setdefault(word, {}).setdefault(pos, {}).update(dict.fromkeys(labels))

    for pos, text in _CLOSED.items():
        for word in text.split():
            add(word, pos)
    for word, readings in _PERSONAL.items():
        for pos, labels in readings:
            add(word, pos, *labels)
    for word, pos in _NEGATIONS.items():
        add(word, pos, "negation")
    for form in ("was", "were", "had", "did"):
        add(form, "auxiliary", "past_tense")
    for listing, pos, *labels in _open_lists():
        for word in listing:
            add(word, pos, *labels)
    for pairs, label in ((words.ANIMALS, "animal"), (words.FOODS, "food"), (words.THINGS, ""), (words.ROLES, "role")):
        kind = {"animal": ("animal",), "food": ("food",), "role": ("profession",)}.get(label, ())
        for singular, plural in pairs:
            add(singular, "noun", *kind)
            if plural != singular:
                add(plural, "noun", "plural", *kind)
    return {word: {pos: (pos, *labels) for pos, labels in readings.items()} for word, readings in entries.items()}


def _open_lists() -> list[tuple]:
    return [
        (_OPEN_NOUNS, "noun"),
        (words.OBJECTS, "noun", "object"),
        (words.PLACES, "noun", "place"),
        (words.BODY_PARTS, "noun", "body_part"),
        (words.FAMILY["female"] + words.FAMILY["male"], "noun", "family"),
        (words.DAY_PARTS, "noun", "time_of_day"),
        (words.SEASONS, "noun", "season"),
        (words.WEEKDAYS, "noun", "date_weekday"),
        (words.MONTHS, "noun", "date_month"),
        (words.SUBJECTS, "noun"),
        (_BASE_VERBS, "verb"),
        (_PAST_VERBS, "verb", "past_tense"),
        (words.ACTIONS + words.TRANSITIVES, "verb", "past_tense"),
        (words.MOTIONS, "verb", "past_tense", "motion_verb"),
        (words.SPEECH, "verb", "past_tense", "speech_verb"),
        (_MORE_ADJECTIVES, "adjective"),
        (words.QUALITIES, "adjective"),
        (words.COLOURS, "adjective", "colour"),
        (words.SIZES, "adjective", "size"),
        (words.FEELINGS, "adjective", "feeling"),
        (words.COMPARATIVES, "adjective", "comparative"),
        (words.WEATHER, "adjective", "weather"),
        ([word for pair in words.OPPOSITES for word in pair], "adjective"),
        (words.ORDINALS, "adjective"),
        (words.NUMBERS, "number"),
        (_MORE_ADVERBS + words.ADVERBS, "adverb"),
    ]


_LEXICON = _build()


def labels_of(word: str, tag: str = "") -> Labels:
    """The labels of `word`, part of speech first; `tag` (a key of TAGS) chooses among several readings.

    A tag also admits a word that the lexicon does not know. Raises ValueError for an unknown or ambiguous word
    without a tag.
    """
    readings = _LEXICON.get(word, {})
    if tag:
        return readings.get(TAGS[tag], (TAGS[tag],))
    if len(readings) != 1:
        known = "has several readings: " + ", ".join(readings) if readings else "is not in the lexicon"
        raise ValueError(f"the word '{word}' {known}; write its part of speech, as in '{word}/N'")
    return next(iter(readings.values()))
