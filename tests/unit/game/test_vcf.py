"""The VCF against docs/design.md: every reason, length-aware bounds, plain oracles, MEDEC's own pairs."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from medserl.game import Reason, apply_vcf
from medserl.game.text import MAX_CHARACTERS, normalize, split_sentences, split_words, too_long
from medserl.game.vcf import MAX_JACCARD, MAX_WORD_EDITS, MIN_JACCARD, bag_jaccard, bounds

VOCABULARY = [f"w{'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10]}" for i in range(100)]
NEW_WORD = "zebra"  # in no note
ANY_TEXT = st.text(max_size=120)
PIECES = (
    *("pain", "Fever", "38.3", "120/70", "<", "≥", "%", "Dr.", "b.i.d.", "C", "patient's", "é", "ﬁ", "²"),
    *("Σ", "ß", ". ", "\n", " ", ", ", "; ", "! ", "(", ")", "â‰¥", "\x00", "\u2028", "-", "'"),
    "\U0001f469\u200d\u2695\ufe0f",  # one emoji out of three parts
)
CLINICAL_TEXT = st.lists(st.sampled_from(PIECES), max_size=40).map(" ".join)
NOTES = st.one_of(ANY_TEXT, CLINICAL_TEXT)
LENGTHS = st.integers(1, 400)


@st.composite
def plain_notes(draw: st.DrawFn) -> list[str]:
    """1 to 400 words of one running sentence."""
    length = draw(LENGTHS)
    seed = draw(st.integers(0, 2**32 - 1))
    return [VOCABULARY[(seed + 7919 * i * i) % len(VOCABULARY)] for i in range(length)]


def sentence_of(n_words: int) -> list[str]:
    return [VOCABULARY[i % len(VOCABULARY)] for i in range(n_words)]


# -- the documented check and the reasons ------------------------------------------------------------------


def test_documented_check() -> None:
    result = apply_vcf(
        "Patient has type 2 diabetes controlled with metformin.",
        "Patient has type 1 diabetes controlled with metformin.",
        min_jaccard=0.85,
        max_jaccard=0.99,
        max_word_edits=6,
    )
    assert result.passed
    assert result.reason is None
    assert result.word_edits == 1
    assert result.jaccard == 7 / 9  # 0.778, below the plain floor
    (edit,) = result.edits
    assert (edit.original, edit.modified) == ("2", "1")
    assert (edit.original_start, edit.original_end) == (17, 18)


@pytest.mark.parametrize(("original", "modified"), [("", "a b"), ("a b", ""), ("", ""), ("a", " ...!\n"), ("—", "a")])
def test_empty(original: str, modified: str) -> None:
    assert apply_vcf(original, modified).reason is Reason.EMPTY


@pytest.mark.parametrize(
    ("original", "modified"),
    [
        ("No fever, no chills.", "No fever, no chills."),
        ("No fever, no chills.", "NO FEVER no chills"),
        ("No fever; no (chills).", 'no fever - no "chills"!'),
        ("Straße", "STRASSE"),
        ("ﬁne", "fine"),
        ("5 µg", "5 μg"),
        ("½ tablet", "1⁄2 tablet"),
    ],
)
def test_no_change(original: str, modified: str) -> None:
    result = apply_vcf(original, modified)
    assert (result.reason, result.word_edits, result.jaccard, result.edits) == (Reason.NO_CHANGE, 0, 1.0, ())


def test_too_many_edits_from_the_seventh_on() -> None:
    words = sentence_of(200)
    for n_edits in range(1, 10):
        modified = [NEW_WORD] * n_edits + words[n_edits:]
        result = apply_vcf(" ".join(words), " ".join(modified))
        assert result.word_edits == n_edits
        assert result.reason is (Reason.TOO_MANY_EDITS if n_edits > MAX_WORD_EDITS else None)


def test_too_different_below_the_floor() -> None:
    words = sentence_of(24)  # two substitutions: 22/26 = 0.846; of 25 words 23/27 = 0.852
    two_changed = [NEW_WORD, NEW_WORD]
    assert apply_vcf(" ".join(words), " ".join(two_changed + words[2:])).reason is Reason.TOO_DIFFERENT
    words = sentence_of(25)
    assert apply_vcf(" ".join(words), " ".join(two_changed + words[2:])).passed


def test_too_similar_where_words_only_move() -> None:
    words = sentence_of(50)
    swapped = [words[1], words[0], *words[2:]]
    result = apply_vcf(" ".join(words), " ".join(swapped))
    assert (result.reason, result.jaccard, result.word_edits) == (Reason.TOO_SIMILAR, 1.0, 2)


def test_the_reasons() -> None:
    filters = {"empty", "no_change", "too_many_edits", "too_different", "too_similar", "several_sentences"}
    assert {reason for reason in Reason if not reason.startswith("audit_")} == filters | {"format", "truncated"}


def test_order_of_reasons() -> None:
    """A pair that breaks several rules gets the first one broken, in the order that the design lists them."""
    first, second = sentence_of(20), sentence_of(20)
    original = f"{' '.join(first)}. {' '.join(second)}."
    both = f"{' '.join([NEW_WORD] * 4 + first[4:])}. {' '.join([NEW_WORD] * 4 + second[4:])}."
    assert apply_vcf(original, both).reason is Reason.TOO_MANY_EDITS
    assert apply_vcf(original, both, max_word_edits=8).reason is Reason.TOO_DIFFERENT
    assert apply_vcf(original, both, 0.1, 1.0, 8).reason is Reason.SEVERAL_SENTENCES
    moved = f"{' '.join([first[1], first[0], *first[2:]])}. {' '.join([second[1], second[0], *second[2:]])}."
    assert apply_vcf(original, moved).reason is Reason.TOO_SIMILAR
    assert apply_vcf(original, moved, max_jaccard=1.0).reason is Reason.SEVERAL_SENTENCES


# -- length-aware bounds -----------------------------------------------------------------------------------


@given(plain_notes(), st.data())
def test_any_single_substitution_passes(words: list[str], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(words) - 1))
    new = data.draw(st.sampled_from([NEW_WORD, *VOCABULARY[:5]]))
    assume(new != words[place])
    assert_passes_as_one_edit(words, [*words[:place], new, *words[place + 1 :]])


@given(plain_notes(), st.data())
def test_any_single_insertion_passes(words: list[str], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(words)))
    new = data.draw(st.sampled_from([NEW_WORD, *VOCABULARY[:5]]))
    assert_passes_as_one_edit(words, [*words[:place], new, *words[place:]])


@given(plain_notes(), st.data())
def test_any_single_deletion_passes(words: list[str], data: st.DataObject) -> None:
    assume(len(words) > 1)
    place = data.draw(st.integers(0, len(words) - 1))
    assert_passes_as_one_edit(words, words[:place] + words[place + 1 :])


def test_single_word_edits_pass_at_every_length() -> None:
    for length in range(1, 401):
        words = sentence_of(length)
        assert_passes_as_one_edit(words, [NEW_WORD, *words[1:]])
        assert_passes_as_one_edit(words, [*words[:-1], NEW_WORD])
        assert_passes_as_one_edit(words, [*words, NEW_WORD])
        if length > 1:
            assert_passes_as_one_edit(words, words[1:])


def assert_passes_as_one_edit(original: list[str], modified: list[str]) -> None:
    result = apply_vcf(" ".join(original), " ".join(modified))
    assert result.passed, (result.reason, result.jaccard, len(original))
    assert result.word_edits == len(result.edits) == 1


@given(LENGTHS)
def test_bounds_never_tighten(length: int) -> None:
    floor, ceiling = bounds(length, MIN_JACCARD, MAX_JACCARD)
    assert floor == min(0.85, (length - 1) / (length + 1))
    assert ceiling == max(0.99, length / (length + 1))


# -- facts that hold for any two strings -------------------------------------------------------------------


@given(NOTES, NOTES)
@example("a\ud800b. c", "a\ud800b. d")
@example("one. two", "x\udfff. y")
def test_never_raises_and_passed_means_no_reason(original: str, modified: str) -> None:
    result = apply_vcf(original, modified)
    assert result.passed is (result.reason is None)
    assert 0.0 <= result.jaccard <= 1.0
    assert result.reason is not Reason.FORMAT


@given(NOTES)
def test_identical_is_no_change(note: str) -> None:
    assume(split_words(note).keys)
    assert apply_vcf(note, note).reason is Reason.NO_CHANGE


@given(st.lists(st.text("abcxyzéöñ", min_size=1, max_size=5), min_size=1, max_size=30), st.data())
def test_case_and_punctuation_are_no_change(words: list[str], data: st.DataObject) -> None:
    cased = [word.upper() if data.draw(st.booleans()) else word.title() for word in words]
    mark = data.draw(st.sampled_from([" ", ", ", ". ", "; ", "! (", ") ", ' "', "\n", " - ", "... "]))
    end = data.draw(st.sampled_from(["", ".", "?!"]))
    assert apply_vcf(" ".join(words), mark.join(cased) + end).reason is Reason.NO_CHANGE


@given(NOTES, NOTES)
def test_counts_do_not_depend_on_the_direction(original: str, modified: str) -> None:
    there, back = apply_vcf(original, modified), apply_vcf(modified, original)
    assert (there.word_edits, there.jaccard) == (back.word_edits, back.jaccard)
    assert (there.reason is Reason.NO_CHANGE) == (back.reason is Reason.NO_CHANGE)
    assert (there.reason is Reason.EMPTY) == (back.reason is Reason.EMPTY)


# -- oracles -----------------------------------------------------------------------------------------------

FEW_WORDS = st.lists(st.sampled_from(["a", "b", "cc", "dd", "ee"]), min_size=1, max_size=14)


def edit_distance(a: list[str], b: list[str]) -> int:
    """Levenshtein's table, filled cell by cell."""
    table = [[max(i, j) if not i * j else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            change = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, change)
    return table[-1][-1]


@given(FEW_WORDS, FEW_WORDS)
def test_word_edits_are_levenshtein(a: list[str], b: list[str]) -> None:
    assert apply_vcf(" ".join(a), " ".join(b)).word_edits == edit_distance(a, b)


@given(FEW_WORDS, FEW_WORDS)
def test_jaccard_is_over_bags(a: list[str], b: list[str]) -> None:
    remaining, shared = list(b), 0
    for word in a:  # pair the words off one by one
        if word in remaining:
            remaining.remove(word)
            shared += 1
    union = shared + (len(a) - shared) + len(remaining)
    assert bag_jaccard(a, b) == apply_vcf(" ".join(a), " ".join(b)).jaccard == shared / union


def test_jaccard_of_nothing() -> None:
    assert bag_jaccard([], []) == 1.0
    assert bag_jaccard(["a"], []) == 0.0


@given(NOTES, NOTES)
def test_edits_are_what_differs(original: str, modified: str) -> None:
    """Their text is where they say, and the words outside them are the same in both notes."""
    texts = normalize(original), normalize(modified)
    edits = apply_vcf(original, modified).edits
    ranges = (
        [(edit.original_start, edit.original_end, edit.original) for edit in edits],
        [(edit.modified_start, edit.modified_end, edit.modified) for edit in edits],
    )
    left = []
    for note, text, changed in zip((original, modified), texts, ranges, strict=True):
        assert changed == sorted(changed)
        assert all(text[start:end] == shown for start, end, shown in changed)
        words = split_words(note)
        outside = [not any(a <= start and end <= b for a, b, _ in changed) for start, end in words.spans]
        left.append([key for key, kept in zip(words.keys, outside, strict=True) if kept])
    if split_words(original).keys and split_words(modified).keys:
        assert left[0] == left[1]


# -- words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("38.3 C, 120/70 mm Hg; 1,200 mL.", ["38.3", "c", "120/70", "mm", "hg", "1,200", "ml"]),
        ("Patient's o’clock 'quoted'", ["patient's", "o'clock", "quoted"]),
        ("WBC ≥ 12 ± 2 %, K+ < 3.5", ["wbc", "≥", "12", "±", "2", "%", "k", "+", "<", "3.5"]),
        ("T2-weighted, x-ray, q6h", ["t", "2", "weighted", "x", "ray", "q", "6", "h"]),
        ("ＨｂＡ１ｃ", ["hba", "1", "c"]),
        ("- () … ;,", []),
        ("👩‍⚕️ ☐ ↑", ["👩", "⚕", "☐", "↑"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert list(split_words(text).keys) == words


@pytest.mark.parametrize(("old", "new"), [("38.3", "38.8"), ("120/70", "120/90"), ("<", ">"), ("C", "F")])
def test_a_number_or_a_sign_is_one_word(old: str, new: str) -> None:
    note = f"The reading was {old} in the morning."
    result = apply_vcf(note, note.replace(old, new, 1))
    assert result.passed
    assert result.word_edits == 1


def test_a_note_has_a_length_at_which_it_is_refused() -> None:
    assert too_long("a" * MAX_CHARACTERS) is None
    assert too_long("a" * (MAX_CHARACTERS + 1)) == "has 100,001 characters; a note may have 100,000 at most: split it"


# -- one sentence ------------------------------------------------------------------------------------------

BEFORE = "A young woman comes to the office with her mother after two weeks of cough at night. "
AFTER = " She works in a bakery near the harbour, keeps no pets at home and has never smoked."


@pytest.mark.parametrize(
    "sentence",
    [
        "Today the temperature is 38.3 C (100.9 F) with a pulse of ninety at rest.",
        "Today the family was told by Dr. Smith that surgery at rest can wait.",
        "Today she takes aspirin b.i.d. with food and iron at rest.",
        "Today the blood pressure is 120/70 mm Hg in both arms at rest.",
        "Today her weight is 61.5 kg vs. 60 kg in March, measured by Mrs. Jones at rest.",
    ],
)
def test_marks_inside_a_sentence_do_not_end_it(sentence: str) -> None:
    changed = sentence.replace("Today", "Yesterday").replace("at rest", "at work")
    result = apply_vcf(BEFORE + sentence + AFTER, BEFORE + changed + AFTER)
    assert result.word_edits == len(result.edits) == 2
    assert result.reason is None


@pytest.mark.parametrize("end", [". ", "! ", "? ", ".\n", "\n\n"])
def test_edits_in_two_sentences_are_rejected(end: str) -> None:
    note = BEFORE + f"The lungs are clear on the left side{end}Her abdomen is soft on palpation." + AFTER
    one = note.replace("clear", "dull").replace("left", "right")
    two = note.replace("clear", "dull").replace("soft", "tender")
    assert apply_vcf(note, one).passed
    assert apply_vcf(note, two).reason is Reason.SEVERAL_SENTENCES


@pytest.mark.parametrize(
    "modified",
    [
        "The lungs are clear today. Now her abdomen is soft.",  # an insertion on each side of the full stop
        "The lungs are. Abdomen is soft.",  # a deletion on each side
        "The lungs are normal. His abdomen is soft.",  # neighbours: one changed stretch over the boundary
    ],
)
def test_neighbouring_edits_in_two_sentences_are_rejected(modified: str) -> None:
    original = "The lungs are clear. Her abdomen is soft."
    assert apply_vcf(original, modified, min_jaccard=0.0).reason is Reason.SEVERAL_SENTENCES


def test_a_new_sentence_boundary_inside_the_edit_is_rejected() -> None:
    original = "He has pain in the chest after meals and at night."
    modified = "He has pain in the abdomen. Walking after meals and at night."
    assert apply_vcf(original, modified, min_jaccard=0.0).reason is Reason.SEVERAL_SENTENCES


@given(NOTES)
def test_sentences_hold_all_text_in_order(note: str) -> None:
    spans = split_sentences(note)
    end = 0
    for span in spans:
        assert not note[end : span.start].strip()
        assert note[span.start : span.end].strip() == note[span.start : span.end] != ""
        end = span.end
    assert not note[end:].strip()


# -- MEDEC -------------------------------------------------------------------------------------------------


def gold_pairs(folder: Path) -> list[tuple[str, str]]:
    """(correct, incorrect) notes of the training pairs and of the validation set."""
    lines = (folder / "medec_ms_train_pairs.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [(row["correct_note"], row["incorrect_note"]) for row in map(json.loads, lines)]
    (table,) = folder.glob("*ValidationSet*.csv")
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Error Flag"] == "1"]
    return pairs + [(row["Corrected Text"], row["Text"]) for row in rows]


def test_calibration_on_medec(medec_dir: Path) -> None:
    pairs = gold_pairs(medec_dir)
    assert len(pairs) == 1219 + 319
    reasons = Counter(apply_vcf(correct, incorrect).reason for correct, incorrect in pairs)
    assert reasons[None] / len(pairs) == pytest.approx(0.86, abs=0.01)
    assert reasons[Reason.TOO_MANY_EDITS] > 0.9 * (len(pairs) - reasons[None])  # most of the rest
    loose = [apply_vcf(a, b, min_jaccard=0, max_jaccard=1, max_word_edits=10**6).reason for a, b in pairs]
    assert loose.count(Reason.SEVERAL_SENTENCES) <= 0.01 * len(pairs)
