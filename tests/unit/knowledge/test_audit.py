"""The edit audit against edits written by hand, its laws on any text, and its place in the rollout."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.config import Settings
from medserl.data.readers import read_notes
from medserl.engines.scripted import ScriptedEngine
from medserl.game.episode import Attempt, Completion, Episode, Turn
from medserl.game.note import Note
from medserl.game.prompts import Messages, load_prompts
from medserl.game.roles import MODES, Mode
from medserl.game.setup import GameSetup
from medserl.game.vcf import Reason, apply_vcf
from medserl.knowledge.audit import Audit, EditClass, audit, neutral_rules
from medserl.knowledge.neutral import load_substitutions, neutral_edits
from medserl.knowledge.oracle import still_true
from medserl.knowledge.quantities import as_number
from medserl.knowledge.rewriting import rewrite_rules, simplest
from medserl.knowledge.statement import keys
from medserl.rollout import VCFRolloutGenerator
from medserl.rounds.metrics import game_metrics
from tests.places import ROOT

ROWS = [json.loads(line) for line in (ROOT / "data" / "medec_validation_sample.jsonl").read_text().splitlines()]

EDITS = [
    ("The dose is 10 mg.", "The dose is 100 mg.", "number"),
    ("Cefazolin is given once.", "Cefazolin is given twice.", "number"),
    ("A 39-year-old man is seen.", "A 19-year-old man is seen.", "number"),
    ("The dose is 10 mg.", "The dose is 10 g.", "unit"),
    ("He takes it for 3 months.", "He takes it for 6 months.", "time"),
    ("He takes it for 3 weeks.", "He takes it for 3 months.", "time"),
    ("This is acute pancreatitis.", "This is chronic pancreatitis.", "time"),
    ("There is no rash.", "There is a rash.", "negation"),
    ("The test is positive.", "The test is negative.", "negation"),
    ("There is no fever but a cough.", "There is fever but no cough.", "negation"),
    ("He should receive it.", "He should not receive it.", "negation"),
    ("A left thoracotomy is done.", "A right thoracotomy is done.", "laterality"),
    ("An ulcer of the upper lip.", "An ulcer of the lower lip.", "laterality"),
    ("He is given naloxone.", "He is given propofol.", "drug"),
    ("He is given metoprolol 5 mg.", "He is given cefepime 2 g.", "drug"),
    ("A sari is prescribed.", "A kilt is prescribed.", "unknown"),
    ("She is prescribed metformin.", "She is prescribed zorbinol.", "drug"),
    ("It is due to Staphylococcus aureus.", "It is due to Listeria monocytogenes.", "organism"),
    ("A. fumigatus is the cause.", "A. flavus is the cause.", "organism"),
    ("This is pulmonary embolism.", "This is pneumothorax.", "diagnosis"),
    ("He has nephrotic syndrome.", "He has carcinoid syndrome.", "diagnosis"),
    ("Colonoscopy is next.", "Laparotomy is next.", "management"),
    ("He undergoes debridement.", "He undergoes observation.", "management"),
    ("The dose is 500 mg.", "The dose is 0.5 g.", "neutral"),
    ("For six weeks.", "For 42 days.", "neutral"),
    ("He is seen because of fever.", "He is evaluated due to fever.", "neutral"),
    ("CT shows no blood.", "CT does not show any blood.", "neutral"),
    ("A man with dyspnea.", "A male with shortness of breath.", "neutral"),
    ("A PE is found.", "A pulmonary embolism is found.", "neutral"),
    ("He feels weak and sweaty.", "He feels weak and sweating.", "neutral"),
    ("He grew up here.", "The patient grew up here.", "neutral"),
    ("She likes chess.", "She likes football.", "unknown"),
    ("He sees a doctor.", "She sees a doctor.", "unknown"),
    ("It is febrile.", "It is fеbrile.", "neutral"),  # a Cyrillic letter: nobody can see it
    ("A. fumigatus is the cause.", "А. fumigatus is the cause.", "neutral"),  # another
    ("It is hypertension.", "It is hyper\u00adtension.", "neutral"),
    ("The T-score is -2.5.", "The T-score was 2.5.", "number"),
    ("He takes .5 mg of it.", "He is taking 5 mg of it.", "number"),
    ("He takes .5 mg of it.", "He takes 0.5 mg of it.", "neutral"),
    ("Leukocytes are 10⁹/L.", "Leukocytes were 109/L.", "number"),
    ("Potassium is ↑ because of it.", "Potassium is ↓ due to it.", "number"),
    ("The level was ≥ 5 today.", "The level is ≤ 5 today.", "number"),
    ("Half is given: ½ tablet.", "Half is given: 2 tablets.", "number"),
    ("Babinski + on exam, seen.", "Babinski -, on exam, seen.", "negation"),
    ("Pulse is 82/min.", "Pulse is 82 per minute.", "neutral"),
    ("It was 38 °C.", "It was 38 C.", "neutral"),
]


@pytest.mark.parametrize(("original", "modified", "edit_class"), EDITS)
def test_classes(original: str, modified: str, edit_class: str) -> None:
    assert audit(original, modified).edit_class == edit_class


@pytest.mark.parametrize(("original", "modified", "edit_class"), EDITS)
def test_neutral_edits_are_neutral_both_ways(original: str, modified: str, edit_class: str) -> None:
    assert (audit(modified, original).edit_class == "neutral") == (edit_class == "neutral")


@pytest.mark.parametrize(
    ("original", "modified", "slight"),
    [
        ("Pulse is 96/min.", "Pulse is 97/min.", True),
        ("Blood pressure is 82/45 mm Hg.", "Blood pressure is 81/44 mm Hg.", True),
        ("Blood pressure is 82/45 mm Hg.", "Blood pressure is 182/45 mm Hg.", False),
        ("A 39-year-old man is seen.", "A 19-year-old man is seen.", True),
        ("Sodium is 126 and potassium 5.9.", "Sodium is 127 and potassium 9.5.", False),
        ("The dose is 10 mg.", "The dose is 11 g.", False),
        ("It was 90 before.", "It was 95 before surgery.", False),
    ],
)
def test_numbers_too_near_to_be_found(original: str, modified: str, slight: bool) -> None:
    assert audit(original, modified).slight is slight


def test_every_neutral_pair_is_neutral() -> None:
    assert [sub for sub in load_substitutions() if audit(sub.old, sub.new).edit_class != "neutral"] == []


def test_no_gold_error_of_the_sample_is_neutral_or_unknown() -> None:
    classes = {audit(row["correct_note"], row["incorrect_note"]).edit_class for row in ROWS}
    assert classes.isdisjoint({EditClass.NEUTRAL, EditClass.UNKNOWN})


def test_gold_errors_of_medec_are_accepted_in_error_mode_and_none_is_neutral(medec_dir: Path) -> None:
    notes = read_notes(medec_dir / "MEDEC-MS-ValidationSet-with-GroundTruth-and-ErrorType.csv").notes
    pairs = [(note.correct_note, note.incorrect_note) for note in notes if note.correct_note and note.incorrect_note]
    audits = [audit(right, wrong) for right, wrong in pairs if apply_vcf(right, wrong).passed]
    assert sum(found.objection("error") is None for found in audits) >= 0.93 * len(audits)
    assert EditClass.NEUTRAL not in {found.edit_class for found in audits}


# -- edits of real games, labelled by hand --------------------------------------------------------------------------

LABELLED = [json.loads(line) for line in (ROOT / "tests" / "data" / "audit_edits.jsonl").read_text().splitlines()]


def test_the_labelled_set_is_what_it_should_be() -> None:
    assert len(LABELLED) >= 150
    assert len({(row["note_id"], row["mode"], row["modified"]) for row in LABELLED}) == len(LABELLED)
    assert Counter(row["mode"] for row in LABELLED) == {"error": 80, "benign": 80}
    assert {row["set"] for row in LABELLED} == {"development", "held-out"}
    for row in LABELLED:
        assert row["why"] and row["class"] in set(EditClass) and row["note_id"].startswith("sample-train-")
        assert row["changes_meaning"] is (row["class"] != "neutral")
        assert row["still_true"] or row["changes_meaning"]


@pytest.mark.parametrize(("mode", "most_noise", "least_recall"), [("error", 0.15, 0.9), ("benign", 0.0, 0.33)])
def test_rejection_makes_labels_honest(mode: Mode, most_noise: float, least_recall: float) -> None:
    rows = [row for row in LABELLED if row["mode"] == mode]
    accepted = [row for row in rows if audit(row["original"], row["modified"]).objection(mode) is None]
    honest = [row for row in rows if row["still_true"] is (mode == "benign")]
    noise = [row for row in accepted if row not in honest]
    assert len(noise) <= most_noise * len(accepted)
    assert len(accepted) - len(noise) >= least_recall * len(honest)
    assert len(rows) - len(honest) > 0.2 * len(rows)  # what there is without it


WORDS = st.sampled_from(
    [*ROWS[0]["correct_note"].split(), "not", "no", "he", "she", "left", "10", "mg", "because", "of", "final_answer:"]
)


@given(st.lists(WORDS, max_size=20), st.lists(WORDS, max_size=20))
def test_laws_on_any_words(old: list[str], new: list[str]) -> None:
    one, other = " ".join(old), " ".join(new)
    assert audit(one, one) == Audit(EditClass.NEUTRAL)
    assert (audit(one, other).edit_class == "neutral") == (audit(other, one).edit_class == "neutral")


@pytest.mark.parametrize(
    ("word", "value"),
    [("-2.5", -2.5), (".5", 0.5), ("-.5", -0.5), ("0.5", 0.5), ("5.", None), ("-", None), ("1/2", None)],
)
def test_a_number_may_have_a_minus_or_begin_with_its_point(word: str, value: float | None) -> None:
    assert as_number(word) == value


STATING = st.sampled_from([word for edit in EDITS for text in edit[:2] for word in text.rstrip(".").split()])
CORE = st.lists(STATING, min_size=1, max_size=12)


@given(CORE, st.integers(0, 12), st.integers(0, 3), st.lists(STATING, max_size=3))
def test_the_class_is_the_same_when_the_pair_is_turned_round(
    old: list[str], place: int, taken: int, put: list[str]
) -> None:
    one, other = " ".join(old), " ".join(old[:place] + put + old[place + taken :])
    there, back = audit(one, other), audit(other, one)
    assert (there.edit_class, there.slight) == (back.edit_class, back.slight)


SIGNS = [
    "-2.5|2.5",
    ".5|5",
    "10⁹|109",
    "½|2",
    "↑|↓",
    "→|←",
    "<|>",
    "≠|=",
    "~5|5",
    "+|-",
    "♀|♂",
    "√|×",
    "1/2|12",
    "(-)|(+)",
    "Δ|",
]


@pytest.mark.parametrize("pair", SIGNS)
@pytest.mark.parametrize(("old", "new"), [("is", "was"), ("because of", "due to"), ("examined", "seen")])
def test_a_sign_changed_beside_a_synonym_is_never_neutral(pair: str, old: str, new: str) -> None:
    before, after = pair.split("|")
    one, other = f"He {old} with a finding {before}, today.", f"He {new} with a finding {after}, today."
    assert EditClass.NEUTRAL not in {audit(one, other).edit_class, audit(other, one).edit_class}


@given(st.text(max_size=80), st.text(max_size=80))
def test_it_answers_on_any_two_texts(original: str, modified: str) -> None:
    assert audit(original, modified).edit_class in EditClass


@given(st.lists(WORDS, max_size=25))
def test_rewriting_ends_and_leaves_nothing_to_rewrite(words: list[str]) -> None:
    rules = neutral_rules()
    plain = simplest(keys(" ".join(words)), rules)
    assert simplest(plain, rules) == plain


PHRASES = st.lists(st.sampled_from("abcd"), min_size=1, max_size=3).map(tuple)


@given(PHRASES, PHRASES)
def test_both_phrases_of_a_pair_are_rewritten_to_the_shorter(a: tuple[str, ...], b: tuple[str, ...]) -> None:
    rules = rewrite_rules([(a, b)])
    assert simplest(a, rules) == simplest(b, rules) == min(a, b, key=lambda phrase: (len(phrase), phrase))


@given(st.lists(st.tuples(PHRASES, PHRASES), max_size=8), PHRASES)
def test_rewriting_never_makes_longer(
    pairs: list[tuple[tuple[str, ...], tuple[str, ...]]], words: tuple[str, ...]
) -> None:
    assert len(simplest(words, rewrite_rules(pairs))) <= len(words)


def test_each_known_class_has_its_mode_and_unknown_has_none() -> None:
    for edit_class in EditClass:
        allowed = [mode for mode in MODES if Audit(edit_class).objection(mode) is None]
        expected = {"neutral": ["benign"], "unknown": []}.get(edit_class, ["error"])
        assert allowed == expected
    assert Audit(EditClass.NUMBER, slight=True).objection("error") is Reason.AUDIT_NO_MEANING
    assert Audit(EditClass.NUMBER, slight=True).objection("benign") is Reason.AUDIT_MEANING
    for mode in MODES:
        assert Audit(EditClass.DRUG, to_the_reader=True).objection(mode) is Reason.AUDIT_TO_THE_READER


# -- in the rollout -------------------------------------------------------------------------------------------------

NOTE = "A man is seen because of fever. He is given naloxone."
SYNONYM, ERROR = "0 A man is evaluated because of fever.", "1 He is given propofol."


class Writes:
    """An Injector that writes the given lines in turn; its Assessor always says CORRECT."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)

    def __call__(self, messages: Messages, rng: random.Random) -> str:
        return "final_answer: CORRECT" if "final_answer" in messages[-1]["content"] else self.lines.pop(0)


def play(setting: str, mode: Mode, *lines: str) -> Episode:
    settings = Settings(engine="scripted", edit_audit=setting)
    rollout = VCFRolloutGenerator(ScriptedEngine(Writes(*lines)), load_prompts("term", "edit"), settings)
    return rollout.play([GameSetup(Note("n1", NOTE), mode)], seed=0)[0]


def test_a_rejected_edit_uses_up_an_attempt_and_is_counted() -> None:
    episode = play("reject", "error", SYNONYM, ERROR)
    assert [attempt.vcf.reason for attempt in episode.attempts] == ["audit_no_meaning", None]
    assert [attempt.edit_class for attempt in episode.attempts] == ["neutral", "drug"]
    assert game_metrics([episode])["vcf_reject_audit_no_meaning"] == 1
    assert game_metrics([episode])["audit_drug"] == 1.0
    assert len(episode.samples()) == 2  # as with any rejection, the attempt is no sample


def test_three_rejections_and_there_is_no_game() -> None:
    episode = play("reject", "benign", ERROR, ERROR, ERROR)
    assert episode.accepted is None and episode.assessor is None and episode.samples() == []
    assert game_metrics([episode])["vcf_reject_audit_meaning"] == 3


def test_log_records_and_rejects_nothing() -> None:
    episode = play("log", "benign", ERROR)
    assert episode.accepted is not None and episode.record(1)["attempts"][0]["edit_class"] == "drug"


def test_off_does_not_look() -> None:
    episode = play("off", "benign", ERROR)
    assert episode.accepted is not None and episode.accepted.edit_class is None
    assert not [key for key in game_metrics([episode]) if key.startswith("audit_")]


def test_without_modes_nothing_is_rejected() -> None:
    settings = Settings(engine="scripted", edit_audit="reject")
    rollout = VCFRolloutGenerator(ScriptedEngine(Writes(ERROR, SYNONYM)), load_prompts("term", "edit"), settings)
    assert all(tries[-1].vcf.passed for tries in rollout.generate_with_vcf(["a", "b"], [NOTE, NOTE]))


# -- label noise in the round's metrics -----------------------------------------------------------------------------


def told(mode: Mode, modified: str, fact_id: str | None) -> Episode:
    row = ROWS[0]
    turn = Turn("injector", (), Completion("", (), (), (), "stop"))
    original, attempt = row["correct_note"], Attempt(turn, modified, apply_vcf(row["correct_note"], modified))
    known = still_true(original, modified, fact_id)
    return Episode(row["note_id"], original, mode, None, (attempt,), fact_id=fact_id, still_true=known)


def test_label_noise_is_what_the_oracle_says() -> None:
    row = ROWS[0]
    wrong, same = row["incorrect_note"], neutral_edits(row["correct_note"])[0].modified
    unclear = row["correct_note"].replace(" ", " zebra ", 1)
    games = [told(mode, text, row["fact_id"]) for mode in MODES for text in (wrong, same, same, unclear)]
    figures = game_metrics(games)
    assert (figures["label_noise_error"], figures["label_noise_benign"]) == (2 / 3, 1 / 3)
    assert (figures["label_undecided_error"], figures["label_undecided_benign"]) == (0.25, 0.25)
    assert [game.still_true for game in games[:4]] == ["false", "true", "true", "unknown"]
    assert games[0].record(1)["still_true"] == "false"


@pytest.mark.parametrize("fact_id", [None, "a fact of another table"])
def test_notes_without_a_fact_of_ours_have_no_label_noise(fact_id: str | None) -> None:
    game = told("error", ROWS[0]["incorrect_note"], fact_id)
    assert game.still_true is None
    figures = game_metrics([game])
    assert figures["label_noise_error"] is None and figures["label_undecided_error"] is None


def test_audit_shares_add_up_to_one() -> None:
    figures = game_metrics([play("log", "error", ERROR), play("log", "benign", SYNONYM)])
    shares = {name: figures[f"audit_{name}"] for name in EditClass}
    assert shares["drug"] == shares["neutral"] == 0.5 and sum(shares.values()) == 1.0


def test_long_texts_are_not_remembered() -> None:
    note = "It is a long note of nothing. " * 200
    audit(f"0 {note}", note)
    tracemalloc.start()
    try:
        for number in range(1, 31):
            audit(f"{number} {note}", note)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 30 * len(note) / 2
