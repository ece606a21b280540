"""The microworld's vocabulary: plain English words, one list per kind, and the train/test halves of some lists.

Names, objects and places are single words, so that the demo tokenizer can hold each as one token. Objects and places
begin with a consonant sound, because the IOI templates say "a [object]".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

Split = Literal["train", "test"]


class Person(NamedTuple):
    """A first name and the grammatical gender that its pronouns take."""

    name: str
    gender: Literal["female", "male"]


def listing(text: str) -> tuple[str, ...]:
    """The words of a text, in order."""
    return tuple(text.split())


FEMALE_NAMES = listing(
    """
    Lily Mia Sara Anna Lucy Emma Jane Mary Sue Amy Molly Ella Sally Kate Lisa Mandy Susan Betty Nina Julia Maria
    Alice Laura Emily Sophie Chloe Zoe Eva Clara Helen Ruth Sarah Hannah Rachel Leah Martha Nancy Linda Diana Carol
    Karen Donna Sandra Sharon Laurie Michelle Kimberly Jessica Amanda Melissa Rebecca Stephanie Nicole Elizabeth
    Catherine Margaret Dorothy Barbara Patricia Jennifer Deborah Samantha Victoria Olivia Isabella Charlotte Amelia
    Evelyn Abigail Sofia Camila Luna Nora Hazel Violet Stella Lena Greta Ingrid Paula Monica Teresa Gloria Irene
    Louise Marie Judith Cheryl Megan Gemma Fiona Bridget Sylvia Vera Wendy Heather Tina Gina Carla Bella Daisy Polly
    Dora Ida Edith Agnes Harriet Matilda Beatrice Cecilia Priya Aisha Yuki Mei
    """
)
MALE_NAMES = listing(
    """
    Tom Ben Tim Max Sam Jack John Joe Bob Billy Timmy Tommy Bobby Jimmy Johnny Leo Peter Paul James David Daniel
    Adam Noah Lucas Oliver Henry George Harry Charlie Thomas William Robert Richard Michael Joseph Charles Matthew
    Anthony Donald Steven Andrew Kenneth Kevin Brian Edward Ronald Timothy Jason Jeffrey Ryan Jacob Gary Nicholas
    Eric Jonathan Stephen Larry Justin Scott Brandon Benjamin Samuel Gregory Alexander Patrick Dennis Jerry Tyler
    Aaron Jose Nathan Zachary Kyle Walter Ethan Jeremy Christian Keith Roger Terry Sean Gerald Arthur Albert Ralph
    Roy Eugene Louis Philip Vincent Martin Simon Felix Oscar Hugo Victor Ivan Omar Carlos Diego Pedro Marco Luis
    Ravi Ali Hassan Kenji Ahmed Fred Fritz Otto Karl Emil Rufus Toby Alfie Freddie Theo Finn Owen Liam Mason Logan
    Elijah Caleb Isaac Dylan
    """
)
PEOPLE = tuple(Person(name, "female") for name in FEMALE_NAMES) + tuple(Person(name, "male") for name in MALE_NAMES)

OBJECTS = listing(
    """
    ball book box hat cup key ring doll kite drum bell toy coin pen map lamp chair table bag basket blanket bottle
    bowl brush bucket button candle card carpet clock coat comb cushion desk dish door dress fan flag flute fork
    frame glove guitar hammer jacket jar kettle knife ladder letter lock mask mirror mug necklace needle net
    newspaper notebook painting paper pencil phone piano picture pillow pipe plate pot present puzzle radio ribbon
    robot rope ruler saw scarf shell shirt shoe shovel sock spoon stamp stick stone suitcase sword telescope tent
    ticket torch towel toolbox trumpet vase violin wallet watch wheel whistle wand camera computer bracelet crown
    magnet marble helmet statue
    """
)
PLACES = (
    "park",
    "school",
    "store",
    "shop",
    "garden",
    "beach",
    "forest",
    "house",
    "kitchen",
    "library",
    "market",
    "farm",
    "zoo",
    "river",
    "lake",
    "hospital",
    "museum",
    "church",
    "station",
    "restaurant",
    "office",
    "bakery",
    "bank",
    "barn",
    "bridge",
    "cafe",
    "castle",
    "cave",
    "cinema",
    "circus",
    "factory",
    "field",
    "gym",
    "harbor",
    "hill",
    "hotel",
    "village",
    "town",
    "city",
    "mountain",
    "palace",
    "playground",
    "pool",
    "port",
    "prison",
    "pub",
    "stadium",
    "street",
    "studio",
    "temple",
    "theater",
    "tower",
    "valley",
    "yard",
    "bedroom",
    "cabin",
    "camp",
    "cottage",
    "courtyard",
    "desert",
    "dock",
    "fair",
    "meadow",
    "mill",
    "pond",
    "port",
    "quarry",
    "square",
    "stable",
)
PLACES = tuple(dict.fromkeys(PLACES))

ANIMALS = (
    ("cat", "cats"), ("dog", "dogs"), ("bird", "birds"), ("fish", "fish"), ("horse", "horses"), ("cow", "cows"),
    ("pig", "pigs"), ("duck", "ducks"), ("frog", "frogs"), ("rabbit", "rabbits"), ("mouse", "mice"),
    ("bear", "bears"), ("fox", "foxes"), ("wolf", "wolves"), ("lion", "lions"), ("tiger", "tigers"),
    ("monkey", "monkeys"), ("sheep", "sheep"), ("goat", "goats"), ("bee", "bees"), ("snake", "snakes"),
    ("turtle", "turtles"), ("squirrel", "squirrels"), ("owl", "owls"), ("elephant", "elephants"),
    ("hen", "hens"), ("goose", "geese"), ("donkey", "donkeys"), ("puppy", "puppies"), ("kitten", "kittens"),
    ("butterfly", "butterflies"), ("spider", "spiders"), ("deer", "deer"), ("penguin", "penguins"),
)  # fmt: skip
FOODS = (
    ("apple", "apples"), ("cake", "cakes"), ("cookie", "cookies"), ("banana", "bananas"), ("orange", "oranges"),
    ("carrot", "carrots"), ("potato", "potatoes"), ("pie", "pies"), ("egg", "eggs"), ("sandwich", "sandwiches"),
    ("pear", "pears"), ("plum", "plums"), ("cherry", "cherries"), ("tomato", "tomatoes"), ("lemon", "lemons"),
    ("onion", "onions"), ("nut", "nuts"), ("berry", "berries"), ("peach", "peaches"), ("pancake", "pancakes"),
    ("melon", "melons"), ("bun", "buns"), ("pizza", "pizzas"), ("muffin", "muffins"),
)  # fmt: skip
THINGS = (
    ("flower", "flowers"), ("tree", "trees"), ("car", "cars"), ("boat", "boats"), ("train", "trains"),
    ("star", "stars"), ("cloud", "clouds"), ("leaf", "leaves"), ("wall", "walls"), ("window", "windows"),
    ("road", "roads"), ("rock", "rocks"), ("bush", "bushes"), ("bench", "benches"), ("fence", "fences"),
    ("roof", "roofs"), ("bus", "buses"), ("wagon", "wagons"), ("ship", "ships"), ("gate", "gates"),
)  # fmt: skip
ROLES = (
    ("teacher", "teachers"), ("doctor", "doctors"), ("farmer", "farmers"), ("king", "kings"), ("queen", "queens"),
    ("baker", "bakers"), ("soldier", "soldiers"), ("sailor", "sailors"), ("nurse", "nurses"), ("painter", "painters"),
    ("driver", "drivers"), ("singer", "singers"), ("neighbor", "neighbors"), ("hunter", "hunters"),
    ("child", "children"), ("stranger", "strangers"), ("girl", "girls"), ("boy", "boys"), ("woman", "women"),
    ("man", "men"), ("thief", "thieves"), ("captain", "captains"), ("wizard", "wizards"), ("princess", "princesses"),
)  # fmt: skip
FAMILY = {
    "female": ("mother", "sister", "aunt", "grandmother", "daughter", "mom", "grandma", "niece"),
    "male": ("father", "brother", "uncle", "grandfather", "son", "dad", "grandpa", "nephew"),
}
BODY_PARTS = listing("hand head nose foot knee arm leg face finger back shoulder ear mouth tail eye neck")
COLOURS = listing("red blue green yellow white black brown pink purple orange gray golden silver")
SIZES = listing("big small tall tiny huge little long short wide narrow large")
QUALITIES = listing(
    """
    old new shiny soft heavy clean dirty strong broken pretty strange lovely warm cold wet dry dark bright loud
    quiet fresh sweet sharp round thick thin wooden rusty empty full cheap fancy magic secret special simple smooth
    rough beautiful wonderful terrible famous ancient modern young wise clever silly funny kind gentle brave careful
    lazy friendly polite rude noisy calm
    """
)
FEELINGS = listing(
    """
    happy sad angry scared tired hungry excited proud worried bored surprised lonely curious nervous sleepy thirsty
    grateful jealous confused cheerful sorry glad afraid upset
    """
)
OPPOSITES = (
    ("big", "small"), ("hot", "cold"), ("old", "new"), ("happy", "sad"), ("fast", "slow"), ("dark", "bright"),
    ("wet", "dry"), ("loud", "quiet"), ("clean", "dirty"), ("heavy", "light"), ("long", "short"), ("full", "empty"),
    ("hard", "soft"), ("thick", "thin"), ("strong", "weak"), ("rich", "poor"), ("wide", "narrow"), ("good", "bad"),
)  # fmt: skip
COMPARATIVES = listing(
    """
    bigger smaller taller older younger faster slower heavier louder stronger softer warmer cleaner prettier
    """
)
ACTIONS = listing(
    """
    smiled laughed cried waited slept danced sang nodded sighed rested listened yawned whistled shivered waved
    """
)
MOTIONS = listing("walked ran went drove hurried jumped climbed rode wandered raced marched crept skipped")
TRANSITIVES = listing(
    """
    found lost took bought sold painted cleaned fixed broke dropped carried hid saw opened closed wanted loved liked
    made kept borrowed brought moved pushed pulled lifted washed touched grabbed held noticed forgot needed admired
    """
)
SPEECH = listing("said asked replied shouted whispered cried answered called yelled muttered")
ADVERBS = listing(
    """
    slowly quickly quietly loudly carefully happily sadly suddenly softly gently bravely kindly proudly soon again
    together outside away home
    """
)
MANNERS = listing("slowly quickly quietly loudly carefully happily sadly softly gently bravely kindly proudly")
NUMBERS = listing(
    """
    one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty
    """
)
ORDINALS = listing("first second third fourth fifth sixth seventh eighth ninth tenth")
WEEKDAYS = listing("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = listing("January February March April May June July August September October November December")
SEASONS = listing("spring summer autumn winter")
DAY_PARTS = listing("morning afternoon evening night")
WEATHER = listing("sunny rainy windy cloudy snowy foggy stormy")
SUBJECTS = listing("music history science art reading writing math drawing cooking")


def _stable_key(word: str) -> bytes:
    return hashlib.blake2b(word.encode(), digest_size=8).digest()


def half(words: Sequence[str], split: Split) -> tuple[str, ...]:
    """The `split` half of a word list, in the list's order. Every second word of a hash order: stable and 1:1."""
    ranked = sorted(words, key=_stable_key)
    chosen = set(ranked[0::2] if split == "train" else ranked[1::2])
    return tuple(word for word in words if word in chosen)


def people_half(split: Split) -> tuple[Person, ...]:
    """The people of one half; each gender is split 1:1 on its own."""
    chosen = {*half(FEMALE_NAMES, split), *half(MALE_NAMES, split)}
    return tuple(person for person in PEOPLE if person.name in chosen)
