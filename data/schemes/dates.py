"""Dates: a date as people write it -> its ISO form.

A task that a right model learns to the end in minutes. Days of the years
1600 to 2199 are dealt to the splits by a fixed permutation, so that no day is
in two of them, in whatever form.
"""

import datetime
from collections.abc import Callable

import numpy as np

from data.permutation import feistel

_FIRST = datetime.date(1600, 1, 1)
_DAYS = (datetime.date(2200, 1, 1) - _FIRST).days
# Where each split begins in the permuted days, and how many it has.
SPLITS = {
  "test": (0, 1_000),
  "valid": (1_000, 1_000),
  "train": (2_000, 60_000),
}
_KEY = 1582
_MONTHS = (
  "January February March April May June July August September October "
  "November December"
).split()
_WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_ROMAN = "I II III IV V VI VII VIII IX X XI XII".split()
_ORDINALS = (
  "zeroth first second third fourth fifth sixth seventh eighth ninth tenth "
  "eleventh twelfth thirteenth fourteenth fifteenth sixteenth seventeenth "
  "eighteenth nineteenth twentieth"
).split()


def _ordinal(n: int) -> str:
  """1 to 31 in words: fifth, twenty-first."""
  if n <= 20:
    return _ORDINALS[n]
  if n == 30:
    return "thirtieth"
  tens = "twenty" if n < 30 else "thirty"
  return f"{tens}-{_ORDINALS[n % 10]}"


def _suffixed(n: int) -> str:
  """1st, 2nd, 3rd, 4th, 11th."""
  ending = {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
  return f"{n}{'th' if 10 < n < 20 else ending}"


# Each form can be read in one way only: years have four digits, and between
# numbers the separator tells the order: a slash has the month first
# (American), a dot the day first (German), nothing the year.
FORMS: dict[str, Callable[[datetime.date, str, str], str]] = {
  "month day, year": lambda d, m, w: f"{m} {d.day}, {d.year}",
  "month suffixed, year": lambda d, m, w: f"{m} {_suffixed(d.day)}, {d.year}",
  "day month year": lambda d, m, w: f"{d.day} {m} {d.year}",
  "the day of month": lambda d, m, w: f"the {_suffixed(d.day)} of {m} {d.year}",
  "short month": lambda d, m, w: f"{m[:3]} {d.day} {d.year}",
  "hyphens": lambda d, m, w: f"{d.day:02}-{m[:3]}-{d.year}",
  "weekday": lambda d, m, w: f"{w}, {m} {d.day}, {d.year}",
  "short weekday": lambda d, m, w: f"{w[:3]} {d.day} {m[:3]} {d.year}",
  "year first": lambda d, m, w: f"{d.year} {m} {d.day}",
  "slashes": lambda d, m, w: f"{d.month}/{d.day}/{d.year}",
  "dots": lambda d, m, w: f"{d.day}.{d.month}.{d.year}",
  "digits": lambda d, m, w: f"{d.year}{d.month:02}{d.day:02}",
  "roman month": lambda d, m, w: f"{d.day} {_ROMAN[d.month - 1]} {d.year}",
  "day in words": lambda d, m, w: f"{m} the {_ordinal(d.day)}, {d.year}",
}


def write(day: datetime.date, form: str) -> str:
  """`day` in one of FORMS."""
  month, weekday = _MONTHS[day.month - 1], _WEEKDAYS[day.weekday()]
  return FORMS[form](day, month, weekday)


def records(split: str) -> list[dict[str, str]]:
  """The pairs of a split; every form occurs equally often, in turn."""
  if split == "all":
    return [record for name in SPLITS for record in records(name)]
  if split not in SPLITS:
    raise ValueError(
      f"dates@{split}: there is no such split; choose one of "
      f"{', '.join(SPLITS)}, all"
    )
  start, size = SPLITS[split]
  days = feistel(np.arange(start, start + size), _DAYS, _KEY)
  forms = list(FORMS)
  pairs = []
  for index, offset in enumerate(days.tolist()):
    day = _FIRST + datetime.timedelta(days=offset)
    source = write(day, forms[index % len(forms)])
    pairs.append({"source": source, "target": day.isoformat()})
  return pairs
