"""Asks a model what it says of labelled texts, with the prompts and parsers of the game.

Greedily, or k samples and a vote; with the probabilities of the two verdicts where they are wanted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from medserl.display.progress import track
from medserl.engines.base import InferenceEngine
from medserl.errors import ConfigError
from medserl.evaluation.completions import CachedEngine, CompletionCache
from medserl.evaluation.predictions import LabelledText, NoVerdict, Prediction
from medserl.game.episode import Completion, Turn
from medserl.game.parsing import Answer, note_sentences, parse_answer, with_each_verdict
from medserl.game.roles import Verdict
from medserl.rollout import VCFRolloutGenerator, derive_seed

COMPLETIONS_AT_ONCE = 64
"""Completions asked for at once; with a cache, what an interruption loses at most."""

H = TypeVar("H", bound=Hashable)


@dataclass(frozen=True)
class Said:
    """One completion, what it answers, and the probability of INCORRECT at the place of its verdict, where known.

    A completion that was cut at the token limit (`truncated`) answers nothing.
    """

    completion: str
    answer: Answer
    p_incorrect: float | None
    truncated: bool = False

    @property
    def no_verdict(self) -> NoVerdict | None:
        """Why it holds no verdict; None where it holds one."""
        if self.answer.verdict:
            return None
        return "truncated" if self.truncated else "unreadable"


def predict(
    rollout: VCFRolloutGenerator,
    texts: Sequence[LabelledText],
    label: str = "",
    *,
    samples: int = 1,
    probabilities: bool = False,
    cache: CompletionCache | None = None,
) -> list[Prediction]:
    """One prediction for each text, in order.

    One sample is greedy. Several are drawn at the settings' temperature, each with a seed
    that follows from the settings' seed, the text and the sample's number, and vote (`vote`). `probabilities` asks the
    model how probable each verdict is where it states its own, or at the end of what it said where it states none;
    a text's `p_incorrect` is then the mean over its samples. Without, it is the share of INCORRECT among several
    samples' verdicts, and None for one. What `cache` knows is not asked again.

    Raises:
        ConfigError: no sample at all.
        ModelError: a text is too long for the model.
    """
    if samples < 1:
        raise ConfigError(f"samples {samples}: at least one is needed")
    if cache is not None:
        rollout = VCFRolloutGenerator(CachedEngine(rollout.engine, cache), rollout.prompts, rollout.settings)
    size = max(1, COMPLETIONS_AT_ONCE // samples)
    batches = [texts[i : i + size] for i in range(0, len(texts), size)]
    steps = track(batches, f"{label or 'validation'}: reading {len(texts)} notes", sizes=len, lines=bool(label))
    predictions: list[Prediction] = []
    for batch in steps:
        said = _ask(rollout, [text for text in batch for _ in range(samples)], samples, probabilities)
        predictions += [
            vote(text.text_id, said[i * samples : (i + 1) * samples], probabilities) for i, text in enumerate(batch)
        ]
    return predictions


def _ask(rollout: VCFRolloutGenerator, texts: Sequence[LabelledText], samples: int, probabilities: bool) -> list[Said]:
    """A completion for each text; a text stands as often as it has samples, in a row."""
    sentences = [text.sentences or note_sentences(text.text) for text in texts]
    seed = rollout.settings.seed
    seeds = [derive_seed(seed, "sample", text.text, i % samples) for i, text in enumerate(texts)]
    turns = rollout.read(
        [text.text for text in texts],
        seed=0,
        greedy=samples == 1,
        sentences=sentences,
        seeds=() if samples == 1 else seeds,
    )
    chances = verdict_probabilities(rollout.engine, turns) if probabilities else [None] * len(turns)
    return [
        _said(turn.completion, shown, rollout.prompts.task, p)
        for turn, shown, p in zip(turns, sentences, chances, strict=True)
    ]


def _said(completion: Completion, sentences: Sequence[str], task: str, p_incorrect: float | None) -> Said:
    """What a completion says. One that was cut off says nothing: what would have followed may have taken it back."""
    cut = completion.truncated
    answer = Answer(None) if cut else parse_answer(completion.text, sentences, task)
    return Said(completion.text, answer, p_incorrect, cut)


def verdict_probabilities(engine: InferenceEngine, turns: Sequence[Turn]) -> list[float | None]:
    """P(INCORRECT) / (P(CORRECT) + P(INCORRECT)) at the place of each turn's verdict; None where there is no one place.

    Both are the probabilities of the whole verdict, all its tokens, after what the model itself said before it.
    """
    replies = [with_each_verdict(turn.completion.text) for turn in turns]
    # Samples of one note often say the same up to their verdict: each place is asked about once.
    places = {
        (turn.messages[-1]["content"], pair): turn.messages
        for turn, pair in zip(turns, replies, strict=True)
        if pair is not None
    }
    weights = engine.reply_probabilities(list(places.values()), [pair for _, pair in places])
    p_incorrect = {place: weight[1] for place, weight in zip(places, weights, strict=True)}
    return [
        p_incorrect[turn.messages[-1]["content"], pair] if pair else None
        for turn, pair in zip(turns, replies, strict=True)
    ]


def vote(text_id: str, said: Sequence[Said], probabilities: bool = False) -> Prediction:
    """One prediction out of a text's samples.

    The verdict most of them give wins; samples without one do not vote, and of a tie the verdict that came first is
    taken: as good as chance, and the same each time. Of the winning samples the sentence most of them name counts,
    on the same terms, and of those that name it the first gives the correction and is the completion shown.
    """
    verdicts: list[Verdict | None] = [one.answer.verdict for one in said]
    verdict: Verdict | None = _most_frequent(verdicts)
    winners = [one for one in said if one.answer.verdict == verdict]
    sentence = _most_frequent(one.answer.error_sentence_id for one in winners)
    shown = next(one for one in winners if one.answer.error_sentence_id == sentence)
    if probabilities:
        votes = [one.p_incorrect for one in said if one.p_incorrect is not None]
    else:
        votes = [float(each == "INCORRECT") for each in verdicts if each] if len(said) > 1 else []
    return Prediction(
        text_id,
        verdict,
        error_sentence_id=sentence,
        correction=shown.answer.correction,
        p_incorrect=sum(votes) / len(votes) if votes else None,
        completion=shown.completion,
        truncated=sum(one.truncated for one in said),
        no_verdict=_most_frequent(one.no_verdict for one in said) if verdict is None else None,
    )


def _most_frequent(values: Iterable[H | None]) -> H | None:
    """The value that occurs most often, None not counted; of several the first."""
    counted = Counter(value for value in values if value is not None)
    return counted.most_common(1)[0][0] if counted else None
