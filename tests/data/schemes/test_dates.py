"""Dates: forms that can be read in one way, days that are in one split."""

import datetime
import re

import pytest

from data.schemes import dates

SPLITS = ("train", "valid", "test")
GOLDEN = {
  "train": ["1944-07-02", "2157-06-02"],
  "valid": ["1770-10-07", "1747-06-10"],
  "test": ["1835-02-20", "1723-05-01"],
}


@pytest.fixture(scope="module")
def records() -> dict[str, list[dict[str, str]]]:
  return {split: dates.records(split) for split in SPLITS}


def test_sizes_years_and_forms(records):
  sizes = {split: len(records[split]) for split in SPLITS}
  assert sizes == {"train": 60_000, "valid": 1_000, "test": 1_000}
  assert len(dates.FORMS) >= 12
  years = {int(r["target"][:4]) for split in SPLITS for r in records[split]}
  assert (min(years), max(years)) == (1600, 2199)


def test_no_held_out_day_is_in_training_in_any_form(records):
  days = {s: [r["target"] for r in records[s]] for s in SPLITS}
  for held_out in ("valid", "test"):
    assert not set(days["train"]) & set(days[held_out])
  assert not set(days["valid"]) & set(days["test"])
  # A day is used once: no form of it tells another's answer.
  assert all(len(set(d)) == len(d) for d in days.values())


def test_all_is_the_splits_together(monkeypatch):
  monkeypatch.setattr(dates, "SPLITS", {"test": (0, 5), "train": (5, 9)})
  together = dates.records("test") + dates.records("train")
  assert dates.records("all") == together and len(together) == 14


def test_every_form_is_in_every_split(records):
  for split in SPLITS:
    for index, record in enumerate(records[split][:50]):
      form = list(dates.FORMS)[index % len(dates.FORMS)]
      day = datetime.date.fromisoformat(record["target"])
      assert record["source"] == dates.write(day, form)


def test_forms_are_unambiguous():
  # All days of leap and common years, also around the turn of centuries.
  day, seen = datetime.date(1899, 1, 1), {}
  while day < datetime.date(1902, 1, 1):
    for form in dates.FORMS:
      text = dates.write(day, form)
      assert seen.setdefault(text, day) == day, text
    day += datetime.timedelta(1)


def test_forms_as_written():
  day = datetime.date(1905, 3, 2)
  assert [dates.write(day, form) for form in dates.FORMS] == [
    "March 2, 1905",
    "March 2nd, 1905",
    "2 March 1905",
    "the 2nd of March 1905",
    "Mar 2 1905",
    "02-Mar-1905",
    "Thursday, March 2, 1905",
    "Thu 2 Mar 1905",
    "1905 March 2",
    "3/2/1905",
    "2.3.1905",
    "19050302",
    "2 III 1905",
    "March the second, 1905",
  ]
  words = {
    (2000, 12, 31): "December the thirty-first, 2000",
    (2187, 8, 20): "August the twentieth, 2187",
    (1612, 1, 22): "January the twenty-second, 1612",
    (1630, 6, 30): "June the thirtieth, 1630",
    (2011, 5, 13): "May the thirteenth, 2011",
  }
  for date, text in words.items():
    assert dates.write(datetime.date(*date), "day in words") == text
  suffixes = [
    re.findall(r"\d+\w\w", dates.write(datetime.date(2001, 1, n), form))[0]
    for n in range(1, 32)
    for form in ["the day of month"]
  ]
  assert " ".join(suffixes) == (
    "1st 2nd 3rd 4th 5th 6th 7th 8th 9th 10th 11th 12th 13th 14th 15th 16th "
    "17th 18th 19th 20th 21st 22nd 23rd 24th 25th 26th 27th 28th 29th 30th "
    "31st"
  )


def test_splits_have_golden_days(records):
  got = {s: [r["target"] for r in records[s][:2]] for s in SPLITS}
  assert got == GOLDEN, f"{got}: a finished run was scored on other days"
