"""The fact table: the committed one keeps every rule, and a broken one is refused with a message that says where."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from medserl.errors import DataError
from medserl.game.note import ERROR_TYPES
from medserl.knowledge.facts import SLOTS, load_facts, parse_facts

TABLE = load_facts()


def test_the_committed_table_has_at_least_200_facts_over_all_five_types() -> None:
    assert len(TABLE.facts) >= 200
    assert {pool.error_type for pool in TABLE.pools} == set(ERROR_TYPES)


def test_every_kind_of_error_that_the_issue_names_occurs() -> None:
    kinds = {pool.kind for pool in TABLE.pools}
    assert {"drug", "dose", "organism", "negation", "laterality", "time"} <= kinds


def test_every_term_is_right_in_equally_many_facts_of_its_pool_and_wrong_in_some() -> None:
    for pool in TABLE.pools:
        facts = TABLE.of_pool(pool)
        right = Counter(fact.answer.name for fact in facts)
        wrong = Counter(term.name for fact in facts for term in fact.wrong_terms)
        assert len(set(right.values())) == 1, pool.name
        assert set(right) == set(wrong) == {term.name for term in pool.terms}, pool.name


def test_one_fact_in_three_is_held_out() -> None:
    held = sum(fact.heldout for fact in TABLE.facts)
    assert held * 3 == len(TABLE.facts)


def test_no_two_facts_share_a_wording() -> None:
    seen: dict[str, str] = {}
    for fact in TABLE.facts:
        told = " ".join(fact.history + fact.exam + fact.tests)
        assert told not in seen, (fact.fact_id, seen.get(told))
        seen[told] = fact.fact_id


def test_fact_finds_by_id_and_says_where_ids_come_from() -> None:
    first = TABLE.facts[0]
    assert TABLE.fact(first.fact_id) is first
    with pytest.raises(DataError, match=r"'nothing-1' is not in the fact table"):
        TABLE.fact("nothing-1")


def _pool_text(**changes: str) -> str:
    """One small valid pool as TOML; `changes` replace whole lines by key."""
    carriers = ", ".join(f'"Wording {i} says {{term}}."' for i in range(5))
    text = f'[[pool]]\nname = "p"\nkind = "diagnosis"\ncarriers = [{carriers}]\n'
    for term in "abcd":
        text += f'[[pool.terms]]\nname = "term{term}"\nsynonyms = []\n'
    number = 0
    for term in "abcd":
        for i in range(3):
            number += 1
            wrong = ", ".join(f'"term{other}"' for other in "abcd" if other != term)
            lines = {
                "id": f'"x-{number:03d}"',
                "answer": f'"term{term}"',
                "wrong": f"[{wrong}]",
                "heldout": "true" if i == 2 else "false",
                "ages": "[20, 60]",
                "sex": '"any"',
                "vitals": '"normal"',
                "presents": str([f"a complaint number {number} told in way {w}" for w in range(4)]),
                **{s: str([f"{s.title()} {number} told in way {w}." for w in range(4)]) for s in SLOTS[1:]},
                "why": '"because"',
                "source": '"a textbook"',
            }
            if number == 1:
                lines |= changes
            text += "[[pool.facts]]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())
    return text


def test_a_valid_pool_is_read_whole() -> None:
    facts = parse_facts(_pool_text(), "diagnosis", "here.toml", min_facts=12)
    assert [fact.fact_id for fact in facts] == [f"x-{n:03d}" for n in range(1, 13)]
    assert facts[0].answer.name == "terma"
    assert [term.name for term in facts[0].wrong_terms] == ["termb", "termc", "termd"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": '"terme"'}, "'terme' is no term"),
        ({"wrong": '["terma", "termb", "termc"]'}, "also listed as wrong"),
        ({"wrong": '["termb", "termc"]'}, "fewer than 3 wrong forms"),
        ({"ages": "[60, 20]"}, r"ages \[60, 20\]"),
        ({"sex": '"none"'}, "unknown sex 'none'"),
        ({"vitals": '"odd"'}, "vitals 'odd'"),
        ({"exam": '["Only one."]'}, "exam has 1 wordings"),
        ({"exam": '["A termb.", "B.", "C.", "D."]'}, "gives away 'termb'"),
        ({"exam": '["A {what}.", "B.", "C.", "D."]'}, "unknown braces"),
        ({"exam": '["A", "B.", "C.", "D."]'}, "no full stop"),
        ({"presents": '["Fever", "b", "c", "d"]'}, "no noun phrase"),
        ({"history": '["\\u00e9.", "B.", "C.", "D."]'}, "not ASCII"),
        ({"heldout": "true"}, "2 of them held out"),
        ({"colour": '"red"'}, r"unknown keys \['colour'\]"),
    ],
)
def test_a_broken_rule_is_named_with_file_and_fact(changes: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        parse_facts(_pool_text(**changes), "diagnosis", "here.toml", min_facts=12)
    assert str(caught.value).startswith("here.toml: ")
    assert re.search(r"x-001|p: ", str(caught.value))


def test_broken_toml_and_too_few_facts_are_refused() -> None:
    with pytest.raises(DataError, match=r"here\.toml: not valid TOML"):
        parse_facts("[[pool", "diagnosis", "here.toml")
    with pytest.raises(DataError, match="12 facts where at least 48"):
        parse_facts(_pool_text(), "diagnosis", "here.toml")
