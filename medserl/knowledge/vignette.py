"""The sentences of one sample note: an opening, vital signs, findings, details that mean nothing.

The clinical part comes from the fact table, the rest from `vignette.toml`. The patients are invented: for developing
software, not for clinical use.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from medserl.knowledge.facts import Fact

THE_PATIENT = 0.2  # how often "He has ..." is told as "The patient has ..."
ON_EXAMINATION = 0.3  # how often an examination that begins with "There" or "The" begins with "On examination"
DETAIL_COUNTS = (0, 0, 0, 0, 0, 1, 1, 1, 1, 2)
BEFORE_LAST = 0.15  # how often a carrying sentence that has to come late is the last but one


@dataclass(frozen=True)
class Patient:
    """An invented person: `age` in years, `sex` female or male."""

    age: int
    sex: str
    is_child: bool

    @property
    def words(self) -> dict[str, str]:
        """What the placeholders of the wordings stand for."""
        she = self.sex == "female"
        young = self.age < rules()["adult_from"]
        article = "an" if str(self.age).startswith("8") or self.age in (11, 18) else "a"
        return {
            "Sub": "She" if she else "He",
            "sub": "she" if she else "he",
            "poss": "her" if she else "his",
            "Poss": "Her" if she else "His",
            "obj": "her" if she else "him",
            "a": article,
            "A": article.capitalize(),
            "age": str(self.age),
            "person": ("girl" if young else "woman") if she else ("boy" if young else "man"),
            "child": "daughter" if she else "son",
        }


@lru_cache(maxsize=1)
def vignette_data() -> Mapping[str, Any]:
    """The contents of `vignette.toml`."""
    return tomllib.loads(files("medserl.knowledge").joinpath("vignette.toml").read_text(encoding="utf-8"))


def rules() -> Mapping[str, Any]:
    return dict(vignette_data()["rules"])


def invent_patient(fact: Fact, rng: random.Random) -> Patient:
    """Somebody whose age and sex fit the fact."""
    age = rng.randint(*fact.ages)
    sex = rng.choice(("female", "male")) if fact.sex == "any" else fact.sex
    return Patient(age, sex, age < rules()["child_below"])


def vital_ranges(fact: Fact, is_child: bool) -> dict[str, tuple[int, int]]:
    """Vital signs that go with the fact: lowest and highest; `temp` in tenths of a degree Celsius."""
    data = vignette_data()
    ranges = dict(data["vitals"][fact.vitals])
    if is_child:
        ranges |= data["child_vitals"].get(fact.vitals, {})
    return {name: (low, high) for name, (low, high) in ranges.items()}


def write_sentences(
    fact: Fact, findings: Mapping[str, str], carrier: str, rng: random.Random, held_back: bool
) -> list[str]:
    """The sentences of a note. The carrying one still holds its `{term}`.

    `findings` gives the wording of each slot. `held_back` takes only openings and vital wordings kept for the test
    set, and never takes them otherwise.
    """
    patient = invent_patient(fact, rng)
    about = "\n".join(wording for _, wording in fact.wordings())
    opening = _opening(fact, findings["presents"], about, patient, rng, held_back)
    vitals = _vitals(fact, patient, rng, held_back)
    history = findings["history"]
    exam = _examination(findings["exam"], rng)
    vitals_first = bool(re.search(rules()["collapse"], about, re.IGNORECASE)) or rng.random() < 0.35
    middle = [vitals, history] if vitals_first else [history, vitals]
    details = _details(about, patient, rng)
    rest = [*details[:1], *middle, *details[1:], exam, *([findings["tests"]] if "tests" in findings else [])]

    words = patient.words
    told = [opening.format(**words, presents=findings["presents"].format(**words))]
    told += [_fill(sentence, words, rng) for sentence in rest]
    looks_back = bool(re.search(rules()["looks_back"], carrier) or re.search(rules()["collapse"], about, re.IGNORECASE))
    told.insert(_carrier_place(len(told), looks_back, rng), carrier)
    return told


def _opening(fact: Fact, presents: str, about: str, patient: Patient, rng: random.Random, held_back: bool) -> str:
    if patient.is_child:
        places = ["child"]
    elif re.search(rules()["purpose"], presents):
        places = ["purpose"]
    elif re.search(rules()["elsewhere"], about, re.IGNORECASE):
        places = ["neutral"]
    elif fact.vitals in rules()["emergency_vitals"]:
        places = ["neutral", "emergency"]
    else:
        places = ["neutral", "clinic"]
    templates = [wording for place in places for wording in _kept(vignette_data()["openings"][place], held_back)]
    return rng.choice(templates)


def _vitals(fact: Fact, patient: Patient, rng: random.Random, held_back: bool) -> str:
    data = vignette_data()
    drawn = {name: rng.randint(low, high) for name, (low, high) in vital_ranges(fact, patient.is_child).items()}
    values = {}
    if "temp" in drawn:
        celsius = drawn["temp"] / 10
        values["temp"] = f"{celsius:.1f} C ({celsius * 9 / 5 + 32:.1f} F)"
    if "pulse" in drawn:
        values["pulse"] = f"{drawn['pulse']}/min"
    if "resp" in drawn:
        values["resp"] = f"{drawn['resp']}/min"
    if "systolic" in drawn:
        values["bp"] = f"{drawn['systolic']}/{drawn['diastolic']} mm Hg"
    if "sat" in drawn:
        values["sat"] = f"{drawn['sat']}%"
    wording = rng.choice(_kept(data["vital_wordings"][fact.vitals], held_back))
    return wording.format_map(_Keep(values))


class _Keep(dict[str, str]):
    """Leaves placeholders that it does not know as they are."""

    def __missing__(self, key: str) -> str:
        return "{" + key + "}"


def _details(about: str, patient: Patient, rng: random.Random) -> list[str]:
    fitting = [
        detail["text"]
        for detail in vignette_data()["details"]
        if detail["ages"][0] <= patient.age <= detail["ages"][1]
        and not re.search(detail["unless"], about, re.IGNORECASE)
    ]
    count = min(rng.choice(DETAIL_COUNTS), len(fitting))
    return rng.sample(fitting, count)


def _examination(wording: str, rng: random.Random) -> str:
    first = wording.split()[0]
    if first in ("There", "The") and "xamination" not in wording and rng.random() < ON_EXAMINATION:
        return "On examination, " + wording[0].lower() + wording[1:]
    return wording


def _fill(sentence: str, words: Mapping[str, str], rng: random.Random) -> str:
    if sentence.startswith("{Sub} ") and rng.random() < THE_PATIENT:
        sentence = sentence.replace("{Sub} ", "The patient ", 1)
    return sentence.format(**words)


def _carrier_place(n_sentences: int, looks_back: bool, rng: random.Random) -> int:
    """Before which of the others: anywhere after the opening, or late where it looks back on what was told."""
    if not looks_back:
        return rng.randint(1, n_sentences)
    return n_sentences - 1 if rng.random() < BEFORE_LAST else n_sentences


def _kept(wordings: Sequence[str], held_back: bool) -> Sequence[str]:
    """The wordings for the test set, or all others: the last of a list is held back."""
    return wordings[-1:] if held_back else wordings[:-1]
