"""What a text plainly contains for a field of a given name: an e-mail address, a date, an order number."""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache

_WORD = r"[A-Z][\w'’&-]+"
_NAME = rf"{_WORD}(?: {_WORD}){{0,2}}"
_NUMBER = r"(\d[\d.,]*\d|\d)"
_MONEY = rf"(?:[€$£]|\b(?:EUR|USD|GBP|CHF)) ?{_NUMBER}|{_NUMBER} ?(?:[€$£]|(?:EUR|USD|GBP|CHF|euros?|dollars)\b)"
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = rf"\b\d{{4}}-\d{{2}}-\d{{2}}\b|\b\d{{1,2}} (?:{_MONTHS}) \d{{4}}\b|\b(?:{_MONTHS}) \d{{1,2}},? \d{{4}}\b"
_ITEM_QUANTITY = r"\b(\d{1,4}) ?(?:x|×|pcs|pieces|units)\b"
_ITEM_NAME = r"\b\d{1,4} ?(?:x|×) ?([A-Za-z][\w -]*?)(?= *(?:@|at\b|for\b|[,;:.(\n]|$|[€$£]))"
_ITEM_PRICE = r"(?:@|\bat|each) ?(?:[€$£]|EUR|USD|GBP)? ?(\d[\d.,]*\d|\d)"

#: A field's name (its words, joined by spaces) → the patterns that may find its value, best first.
FINDERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"e ?mail", (r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",)),
    (r"phone|telephone|mobile", (r"\+\d[\d ()/-]{6,}\d", r"\b(?!\d{4}-\d\d-\d\d)\d[\d ()/-]{6,}\d")),
    (r"url|link|website|homepage", (r"https?://[^\s<>\"]+[^\s<>\".,)]",)),
    (
        r"due|deadline",
        (rf"(?:[Dd]ue|[Dd]eadline|[Uu]ntil|[Pp]ay(?:able)? by)[^\n\d]{{0,15}}({_DATE})",),
    ),
    (r"date|day", (_DATE,)),
    (r"currency", (r"\b(?:EUR|USD|GBP|CHF)\b|[€$£]",)),
    (
        r"(?:order|invoice|ticket|account|customer|case|reference)(?: (?:number|no|id|code|ref))?$|sku",
        (
            r"\b[A-Z]{1,5}-?\d[\w-]*\b",
            r"#(\d+)\b",
            r"\b(?:number|no\.?|order|invoice) (\d{3,})\b",
        ),
    ),
    (r"unit price|price|unit cost", (_ITEM_PRICE, _MONEY)),
    (
        r"total|sum|balance",
        (
            r"(?:[Tt]otal|[Ss]um|[Bb]alance)[^\n\d€$£]{0,20}(?:[€$£] ?)?(\d[\d.,]*\d|\d)",
            _MONEY,
        ),
    ),
    (r"amount|cost|fee|refund|budget|salary", (_MONEY,)),
    (r"quantity|qty|units|pieces", (_ITEM_QUANTITY,)),
    (r"percent|rate|discount", (r"(\d+(?:\.\d+)?) ?%",)),
    (
        r"city|place|location|destination|town|country",
        (rf"\b(?:in|at|to|from|for|near) ({_NAME})",),
    ),
    (r"expression|formula|calculation", (r"\d[\d .+*/()-]*[+*/-][\d .+*/()-]*\d\)?",)),
    (r"description|item|article|product", (_ITEM_NAME,)),
    (
        r"vendor|supplier|seller|company|organi[sz]ation|merchant",
        (
            rf"(?:[Vv]endor|[Ss]upplier|[Ss]eller|[Cc]ompany|[Ff]rom): *({_NAME})",
            rf"\b((?:{_WORD} ){{1,3}}(?:GmbH|Ltd|Inc|LLC|AG|Corp|SA|BV))\b",
        ),
    ),
    (
        r"name|customer|sender|author|person|contact|buyer|employee",
        (
            rf"(?:[Mm]y name is|I am|I'm|[Nn]ame:|[Ff]rom:|[Cc]ustomer:|[Bb]ill(?:ed)? to:) ({_NAME})",
            rf"\b(?:Mr|Ms|Mrs|Dr)\.? ({_NAME})",
            rf"(?:Regards|Sincerely|Thanks|Best|Cheers|Yours),?\s+({_NAME})",
        ),
    ),
)
_FINDERS = [(re.compile(name), [re.compile(pattern) for pattern in patterns]) for name, patterns in FINDERS]
_SIGNS = {"€": "EUR", "$": "USD", "£": "GBP"}
_DATES = re.compile(_DATE)
_DATE_FORMATS = ("%Y-%m-%d", "%d %B %Y", "%B %d, %Y", "%B %d %Y")


def find(name: str, text: str) -> list[str]:
    """Every value for a field of this name, in the order of the text; empty when there is none."""
    for pattern in _finders(name):
        found = [next(filter(None, match.groups()), match[0]) for match in pattern.finditer(text)]
        if found:
            return [_normal(value.strip()) for value in found]
    return []


def findable(name: str) -> bool:
    """Whether values for a field of this name can be found in a text at all."""
    return bool(_finders(name))


def number(value: str) -> float | None:
    """Read `1,234.50` and `1.234,50` alike; None when the text is not a number."""
    digits = re.sub(r"[,.](?=\d{3}(?:\D|$))", "", value).replace(",", ".")
    try:
        return float(digits)
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def _finders(name: str) -> list[re.Pattern[str]]:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_\W]+", " ", name).lower()
    for wanted, patterns in _FINDERS:
        if re.search(rf"\b(?:{wanted.pattern})s?\b", words):
            return patterns
    return []


def _normal(value: str) -> str:
    for format_ in _DATE_FORMATS if _DATES.fullmatch(value) else ():
        try:
            return datetime.strptime(value, format_).date().isoformat()
        except ValueError:
            continue
    return _SIGNS.get(value, value)
