"""A run folder as a training run leaves it, without one: invented games, real records, real metrics."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomlkit

from medserl.config import Settings
from medserl.game.episode import Attempt, Completion, Episode, Turn
from medserl.game.note import ERROR_TYPES
from medserl.game.rewards import NO_GAME, game_rewards
from medserl.game.roles import MODES, Mode, Role, truth
from medserl.game.vcf import Reason, VCFResult, apply_vcf
from medserl.knowledge.audit import EditClass
from medserl.rounds.clock import PHASES, WITH_TOKENS
from medserl.rounds.metrics import game_metrics
from medserl.runs.runlog import CONFIG, EPISODES, FROZEN_GAMES, METRICS

HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"></script><!-- & {{ 7 * 6 }}"
)
"""What a note must not be able to do to the page."""

_FINDINGS = ("fever and a cough", "chest pain on exertion", "a swollen left knee", "burning on urination")
_DRUGS = ("amoxicillin", "metformin", "lisinopril", "ibuprofen", "ceftriaxone", "apixaban")
_BENIGN = {
    "comes": "presents",
    "shows": "reveals",
    "started": "begun",
    "reports": "describes",
    "because": "since",
}


def invented_note(rng: random.Random) -> str:
    """A few sentences about nobody."""
    age, pulse = rng.randrange(20, 90), rng.randrange(60, 120)
    return (
        f"A {age}-year-old patient comes to the clinic because of {rng.choice(_FINDINGS)} for "
        f"{rng.randrange(2, 9)} days. The patient reports no allergies. Temperature is "
        f"38.{rng.randrange(10)} C and pulse is {pulse}/min. Examination shows no acute distress. "
        f"The patient was started on {rng.choice(_DRUGS)} and asked to return in {rng.randrange(1, 5)} weeks."
    )


def write_run(
    folder: Path,
    rounds: int = 12,
    games: int = 32,
    seed: int = 0,
    notes: Sequence[tuple[str, str | None]] = (),
    evaluation: bool = True,
    **settings: Any,
) -> Path:
    """Write config.toml, metrics.jsonl, episodes.jsonl, frozen_opponent.jsonl and eval/ of `rounds` rounds of `games`.

    `notes` are (correct, with an error in it) pairs; invented notes are used where there are none.
    """
    rng = random.Random(seed)
    pool = list(notes) or [(invented_note(rng), None) for _ in range(60)]
    folder.mkdir(parents=True)
    write_config(folder, Settings(rollout_batch_size=games, **settings))
    metrics = [{"round": 0, "epoch": 0, **_validation(0.0, rng)}] if evaluation else []
    with (folder / EPISODES).open("w", encoding="utf-8") as file:
        for number in range(1, rounds + 1):
            progress = number / rounds
            episodes = [_play(pool, index, progress, rng) for index in range(games)]
            row = {"round": number, **game_metrics(episodes), **_labels(progress), **_update(progress, rng), "epoch": 1}
            if evaluation and number % 3 == 0:
                row |= _validation(progress, rng)
            metrics.append(row)
            records = [e.record(number) | {"still_true": _still_true(e, i)} for i, e in enumerate(episodes)]
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    write_rows(folder / METRICS, metrics)
    if evaluation:
        write_rows(folder / FROZEN_GAMES, [_frozen_game(*pool[i % len(pool)], i, rng) for i in range(24)])
        write_evaluation(folder / "eval")
    return folder


def write_config(folder: Path, settings: Settings) -> None:
    text = tomlkit.dumps(settings.model_dump(exclude_none=True))
    (folder / CONFIG).write_text(f"# medserl 0.1.0, git 0123456789ab\n{text}", encoding="utf-8")


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_evaluation(folder: Path) -> None:
    """Tables as the evaluation leaves them, of three systems and two groups of texts."""
    right = {"majority": 100, "base": 96, "warmup": 104, "trained": 131}
    rows = []
    for group, share in (("all", 1.0), ("error_type=diagnosis", 0.3)):
        for system, hits in right.items():
            for figure, scale in (
                ("accuracy", 1.0),
                ("pairwise_accuracy", 0.4),
                ("recall", 0.8),
                ("mcc", 0.2),
            ):
                n, value = int(200 * share), hits * scale / 200
                row = {"system": system, "group": group, "figure": figure, "value": value, "n": n}
                rows.append(row | {"low": value - 0.069, "high": value + 0.066})
    comparisons = [
        comparison("majority", "texts", 0.155, 0.0002),
        comparison("warmup", "texts", 0.135, 0.003),
        comparison("warmup", "pairs", 0.054, 0.21),
    ]
    folder.mkdir()
    (folder / "table.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "comparisons.json").write_text(json.dumps(comparisons), encoding="utf-8")


def comparison(against: str, unit: str, difference: float, p_value: float) -> dict[str, Any]:
    """A paired test of the trained system, as comparisons.json holds it."""
    row = {"system": "trained", "against": against, "unit": unit, "difference": difference}
    sentence = f"trained against {against}: {difference}"
    return row | {"low": difference - 0.08, "high": difference + 0.08, "n": 200, "p_value": p_value,
                  "test": "McNemar's exact test", "sentence": sentence}  # fmt: skip


def add_official(folder: Path) -> None:
    """What an evaluation with all subtasks and with probabilities adds to the tables, and its record."""
    table = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    official = {"flag accuracy": 0.55, "sentence accuracy": 0.31, "ROUGE-1": 0.62, "ROUGE-1 composite": 0.41}
    threshold = {"threshold": 0.37, "threshold_balanced_accuracy": 0.58}
    for system in ("majority", "base", "warmup", "trained"):
        for group, figures in (("all", official), ("collection=MS", official), ("all", threshold)):
            for figure, value in figures.items():
                row = {"system": system, "group": group, "figure": figure, "value": value, "n": 120}
                ends = (None, None) if figure == "threshold" else (value - 0.05, value + 0.05)
                table.append(row | dict(zip(("low", "high"), ends, strict=True)))
    (folder / "table.json").write_text(json.dumps(table), encoding="utf-8")
    why = {"BERTScore": "no local checkpoint was given", "AggregateScore": "no local checkpoint was given"}
    record = {
        "options": {"samples": 1},
        "texts": {"sha256": "4f1c", "n": 200},
        "files": {"judged": {"name": "test.jsonl", "sha256": "77e0", "rows_skipped": 328}},
        "official": {system: {"all": {"n_texts": 120, "left_out": why}} for system in ("base", "trained")},
    }
    (folder / "evaluation.json").write_text(json.dumps(record), encoding="utf-8")


def episode(
    original: str,
    tries: Sequence[str | None],
    mode: Mode = "error",
    said: str | None = "final_answer: INCORRECT",
) -> Episode:
    """One game: the notes that the Injector wrote (None: no note), and the Assessor's words."""
    attempts = tuple(_attempt(original, text) for text in tries)
    kind = "diagnosis" if mode == "error" else None
    if not (attempts and attempts[-1].vcf.passed) or said is None:
        return Episode("note-1", original, mode, kind, attempts, rewards=NO_GAME)
    verdict = next((v for v in ("INCORRECT", "CORRECT") if said == f"final_answer: {v}"), None)
    rewards = game_rewards(mode, verdict)
    return Episode("note-1", original, mode, kind, attempts, _turn("assessor", said), verdict, rewards)


def edited_game(number: int, original: str, modified: str, error_type: str | None = "diagnosis") -> dict[str, Any]:
    """What diversity looks at of one row of episodes.jsonl: an accepted edit of round `number`."""
    return {
        "round": number,
        "mode": "error" if error_type else "benign",
        "error_type": error_type,
        "modified": "the note",
        "edits": [{"original": original, "modified": modified}],
    }


def _attempt(original: str, text: str | None) -> Attempt:
    if text is None:
        return Attempt(_turn("injector", "I would rather not."), None, VCFResult(False, Reason.FORMAT, 0.0, 0))
    return Attempt(_turn("injector", f"<note>{text}</note>"), text, apply_vcf(original, text))


def _turn(role: Role, text: str) -> Turn:
    tokens = tuple(range(len(text.split()) + 1))
    return Turn(
        role,
        ({"role": "user", "content": ""},),
        Completion(text, (1, 2), tokens, (-0.5,) * len(tokens), "stop"),
    )


def _play(pool: Sequence[tuple[str, str | None]], index: int, progress: float, rng: random.Random) -> Episode:
    number = rng.randrange(len(pool))
    original, gold = pool[number]
    mode = MODES[index % 2]
    tries: list[str | None] = []
    while len(tries) < 3 and not (tries and tries[-1] and apply_vcf(original, tries[-1]).passed):
        tries.append(
            _edited(original, gold, mode, rng) if rng.random() < 0.6 + 0.3 * progress else _spoilt(original, rng)
        )
    right = rng.random() < 0.45 + 0.25 * progress
    verdict = truth(mode) if right else next(v for v in ("CORRECT", "INCORRECT") if v != truth(mode))
    said = "The note looks fine to me." if rng.random() < 0.04 else f"final_answer: {verdict}"
    made = episode(original, tries, mode, said)
    kind = rng.choice(ERROR_TYPES) if mode == "error" else None
    return Episode(
        f"note-{number}", made.original, mode, kind, made.attempts, made.assessor, made.verdict, made.rewards
    )


def _edited(note: str, gold: str | None, mode: Mode, rng: random.Random) -> str:
    if mode == "error":
        return gold or note.replace(next((d for d in _DRUGS if d in note), "patient"), rng.choice(_DRUGS))
    word = next((w for w in _BENIGN if f" {w} " in note), None)
    return note.replace(f" {word} ", f" {_BENIGN[word]} ", 1) if word else note.replace("The ", "This ", 1)


def _spoilt(note: str, rng: random.Random) -> str | None:
    words = note.split()
    start = rng.randrange(len(words))
    rewritten = [*words[:start], *reversed(words[start : start + 12]), *words[start + 12 :]]
    return rng.choice((None, note, " ".join(rewritten), note.replace("The ", "This ").replace(" is ", " was ")))


def _validation(progress: float, rng: random.Random) -> dict[str, float]:
    base = 0.5 + 0.14 * progress + rng.uniform(-0.02, 0.02)
    return {
        "eval_accuracy": base,
        "eval_pairwise_accuracy": base - 0.26,
        "eval_recall": base - 0.1,
        "eval_specificity": base + 0.1,
        "eval_flag_rate": 0.4,
        "eval_no_verdict_rate": 0.02 * (1 - progress),
        "frozen_accuracy": base - 0.02,
        "frozen_pairwise_accuracy": base - 0.3,
        "frozen_recall": base - 0.07,
        "frozen_specificity": base + 0.05,
        "frozen_flag_rate": 0.45,
        "frozen_no_verdict_rate": 0.0,
        "frozen_fact_accuracy": base + 0.03,
    }


def _frozen_game(original: str, gold: str | None, index: int, rng: random.Random) -> dict[str, Any]:
    mode = MODES[index % 2]
    return {
        "note_id": f"note-{index}",
        "fact_id": None,
        "mode": mode,
        "error_type": "diagnosis" if mode == "error" else None,
        "original": original,
        "modified": _edited(original, gold, mode, rng),
        "still_true": (("false", "true", "unknown") if mode == "error" else ("true", "true", "unknown"))[index % 3],
    }


def _still_true(game: Episode, index: int) -> str | None:
    """Of every third accepted game what the fact table might say, mostly in line with the mode."""
    if index % 3 or not game.accepted:
        return None
    return "unknown" if index % 9 == 0 else "true" if (game.mode == "benign") != (index % 7 == 0) else "false"


def _labels(progress: float) -> dict[str, float]:
    """Figures of honesty as they are where notes carry facts; these notes do not."""
    changed = {"drug": 0.4, "diagnosis": 0.2, "number": 0.1, "neutral": 0.2 + 0.1 * progress}
    return {
        "label_noise_error": 0.3 - 0.2 * progress,
        "label_noise_benign": 0.1,
        "label_undecided_error": 0.2,
        "label_undecided_benign": 0.4,
        **{f"audit_{name}": changed.get(name, 0.0) for name in EditClass},
        "audit_unknown": 0.1 - 0.1 * progress,
    }


def _update(progress: float, rng: random.Random) -> dict[str, float | None]:
    figures: dict[str, float | None] = {
        "samples": 60,
        "advantage_injector": rng.uniform(-0.2, 0.2),
        "advantage_assessor": rng.uniform(-0.2, 0.2),
        "kl_injector": 0.05 * progress + rng.uniform(0, 0.01),
        "kl_assessor": 0.02 * progress + rng.uniform(0, 0.01),
        "loss": rng.uniform(-0.01, 0.01),
        "entropy": 1.6 - 0.5 * progress,
        "clip_fraction": 0.0,
        "grad_norm": rng.uniform(0.3, 1.2),
        "logprob_gap": 0.002,
        "optimizer_steps": 1,
        "lr": 5e-5,
        "peak_memory_gb": 2.1,
    }
    for phase, seconds in zip(PHASES, (21.0, 6.0, 9.0, 24.0, 0.2), strict=True):
        figures[f"seconds_{phase}"] = seconds * rng.uniform(0.9, 1.1)
        if phase in WITH_TOKENS:
            figures[f"tokens_per_second_{phase}"] = 2000 / seconds
    return figures
