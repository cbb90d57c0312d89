"""Pools of values to draw from: Faker is far too slow to be asked for every row."""

from dataclasses import dataclass

from faker import Faker

_LATIN = "a b v h g d e z y i i i k l m n o p r s t u f kh ts ch sh shch iu ia ie zh"
_CYRILLIC = dict(zip("абвгґдезиіїйклмнопрстуфхцчшщюяєж", _LATIN.split(), strict=True))

PLACES_UA = (
    ("м. Київ", "Київ", "01"),
    ("Київська область", "Бровари", "07"), ("Київська область", "Біла Церква", "09"),
    ("Львівська область", "Львів", "79"), ("Львівська область", "Дрогобич", "82"),
    ("Одеська область", "Одеса", "65"), ("Одеська область", "Ізмаїл", "68"),
    ("Харківська область", "Харків", "61"), ("Дніпропетровська область", "Дніпро", "49"),
    ("Дніпропетровська область", "Кривий Ріг", "50"), ("Дніпропетровська область", "Кам'янське", "51"),
    ("Запорізька область", "Запоріжжя", "69"), ("Вінницька область", "Вінниця", "21"),
    ("Полтавська область", "Полтава", "36"), ("Полтавська область", "Кременчук", "39"),
    ("Чернігівська область", "Чернігів", "14"), ("Черкаська область", "Черкаси", "18"),
    ("Черкаська область", "Умань", "20"), ("Житомирська область", "Житомир", "10"),
    ("Сумська область", "Суми", "40"), ("Хмельницька область", "Хмельницький", "29"),
    ("Хмельницька область", "Кам'янець-Подільський", "32"), ("Рівненська область", "Рівне", "33"),
    ("Волинська область", "Луцьк", "43"), ("Тернопільська область", "Тернопіль", "46"),
    ("Івано-Франківська область", "Івано-Франківськ", "76"), ("Закарпатська область", "Ужгород", "88"),
    ("Закарпатська область", "Мукачево", "89"), ("Чернівецька область", "Чернівці", "58"),
    ("Миколаївська область", "Миколаїв", "54"), ("Кіровоградська область", "Кропивницький", "25"),
)  # fmt: skip
"""Region, city and the first two digits of its postal codes; the first ones are the busiest."""

PLACES_ABROAD = (
    ("PL", "EUR", "Mazowieckie", "Warszawa"), ("PL", "EUR", "Małopolskie", "Kraków"),
    ("DE", "EUR", "Berlin", "Berlin"), ("DE", "EUR", "Bayern", "München"),
    ("DE", "EUR", "Nordrhein-Westfalen", "Köln"),
    ("LT", "EUR", "Vilniaus apskritis", "Vilnius"), ("US", "USD", "New York", "New York"),
    ("US", "USD", "Illinois", "Chicago"), ("US", "USD", "California", "San José"),
    ("GB", "USD", "England", "London"), ("IE", "EUR", "Leinster", "Dún Laoghaire"),
)  # fmt: skip
"""Country, currency its customers pay in, region and city."""

CUSTOMER_NOTES = (
    "", "Подзвоніть за годину до доставки", "Залиште у консьєржа, будь ласка 🙏", "Gift wrap, please 🎁",
    "Don't ring the bell, baby asleep", 'Код домофона "25к7"', "Перевірити комплектність!\nДякую 🇺🇦",
    "Доставка після 18:00; п'ятниця — найкраще", "Call +380 before delivery", "  ", "N/A",
    'He said "leave it at the door"\r\nand so did she', "50% — передплата, решта при отриманні",
    "C:\\gifts\\ready 😀",
)  # fmt: skip
"""What customers write; empty, quoted, many-lined and 4-byte values are there on purpose."""

TASTE_NOTES = (
    "", "Пухкі, як хмаринка ☁️", "Crisp edges, soft heart 💛", "Needs more syrup", "Як у бабусі 👵🥞",
    "Chef's kiss 👨‍🍳", "Too sweet;\nstill ate four", 'The "secret" is buttermilk', "Підгорів знизу :(",
    "Ванільний аромат, легка кислинка", "🥞🥞🥞", "Wouldn't share", "Ідеально з м'ятним чаєм",
)  # fmt: skip

# Faker's own user agents contain the time of day.
_SYSTEMS = (
    ("Linux; Android 15; Pixel 9", "mobile"), ("Windows NT 10.0; Win64; x64", "desktop"),
    ("iPhone; CPU iPhone OS 18_5 like Mac OS X", "mobile"), ("Linux; Android 14; SM-A556B", "mobile"),
    ("Macintosh; Intel Mac OS X 10_15_7", "desktop"), ("iPad; CPU OS 17_7 like Mac OS X", "tablet"),
    ("X11; Linux x86_64", "desktop"), ("Linux; Android 13; SM-X200", "tablet"),
)  # fmt: skip
_BROWSERS = (
    "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36",
    "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.{} Safari/605.1.15",
    "Gecko/20100101 Firefox/{}.0",
)

USER_AGENTS = tuple(
    (f"Mozilla/5.0 ({system}) {browser.format(version)}", device)
    for version in (141, 140, 139, 136, 128)
    for browser in _BROWSERS
    for system, device in _SYSTEMS
)
"""Browsers' signatures, most frequent first, with the device each means."""


@dataclass(frozen=True)
class Names:
    """First and last names of one locale, by sex, and its streets."""

    first: tuple[tuple[str, ...], tuple[str, ...]]
    last: tuple[tuple[str, ...], tuple[str, ...]]
    streets: tuple[str, ...]


@dataclass(frozen=True)
class Pools:
    """Everything drawn from Faker, once.

    Attributes:
        uk: Ukrainian names and streets.
        en: English ones.
        brands: names of makers.
        phrases_uk: Ukrainian sentences.
        phrases_en: English ones.
    """

    uk: Names
    en: Names
    brands: tuple[str, ...]
    phrases_uk: tuple[str, ...]
    phrases_en: tuple[str, ...]


def _names(fake: Faker, size: int) -> Names:
    def several(method: str, count: int) -> tuple[str, ...]:
        return tuple(str(getattr(fake, method)()) for _ in range(count))

    return Names(
        first=(several("first_name_male", size), several("first_name_female", size)),
        last=(several("last_name_male", size), several("last_name_female", size)),
        streets=several("street_name", size),
    )


def make_pools(seed: int) -> Pools:
    """Draw the pools.

    Args:
        seed: the same seed gives the same pools with the same version of Faker.
    """
    uk, en = Faker("uk_UA"), Faker("en_US")
    uk.seed_instance(seed)
    en.seed_instance(seed + 1)
    # A set would be ordered by PYTHONHASHSEED.
    brands = dict.fromkeys(en.company().split(",")[0].split("-")[0].split(" ")[0] for _ in range(120))
    return Pools(
        uk=_names(uk, 400),
        en=_names(en, 250),
        brands=tuple(brands),
        phrases_uk=tuple(uk.sentence(nb_words=9) for _ in range(200)),
        phrases_en=tuple(en.catch_phrase() for _ in range(200)),
    )


def latin(name: str) -> str:
    """A name in the letters an e-mail address takes."""
    letters = "".join(_CYRILLIC.get(letter, letter) for letter in name.lower())
    return "".join(letter for letter in letters if letter.isascii() and letter.isalnum())
