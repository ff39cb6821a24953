"""The figures of an evaluation, block by block: detection, official scores, threshold, groups of texts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from medserl.evaluation.calibration import apply_threshold, choose_threshold
from medserl.evaluation.checkpoint_metrics import Scorers
from medserl.evaluation.guessing import COIN, FLAG_RATES, guess_figures
from medserl.evaluation.metrics import Attribute, DetectionMetrics, by_group, detection_metrics
from medserl.evaluation.official import OfficialScores, not_asked, official_scores_by_collection, scored_texts
from medserl.evaluation.predictions import LabelledText, Prediction
from medserl.evaluation.statistics import Estimate
from medserl.evaluation.submission import submission_rows
from medserl.evaluation.systems import Judgement
from medserl.evaluation.table import HEADERS, Estimates, TableRow, group_markdown, markdown, rows
from medserl.evaluation.thresholds import Threshold

ALL = "all"
GROUPINGS: tuple[Attribute, ...] = ("collection", "split", "error_type", "length")
PROBABILITY_FIGURES = ("brier", "ece")
DISCRIMINATION_FIGURES = ("right_minus_reversed", "pair_ordering", "auroc", "d_prime")
OF_TWO_CLASSES = ("accuracy", "f1")
"""Figures by which always saying the same is perfect on texts of one class, and which are then left out."""


@dataclass(frozen=True)
class Block:
    """Figures by group of texts and by system, under a title, with lines on what they are.

    The group of all texts is called `all`, others `ATTRIBUTE=VALUE`.
    """

    title: str
    groups: Mapping[str, Mapping[str, Estimates]]
    lines: tuple[str, ...] = ()

    def rows(self) -> list[TableRow]:
        """For table.csv and table.json."""
        return [row for group, results in self.groups.items() for row in rows(results, group)]

    def markdown(self) -> str:
        """Heading, table and lines."""
        return "\n\n".join(filter(None, [self.title and f"## {self.title}", self._table(), _bullets(self.lines)]))

    def _table(self) -> str:
        if list(self.groups) == [ALL]:
            return markdown(self.groups[ALL])
        attribute = next(iter(self.groups)).partition("=")[0].replace("_", " ")
        return group_markdown(attribute, {group.partition("=")[2]: found for group, found in self.groups.items()})


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def detection_block(results: Mapping[str, DetectionMetrics], lines: Sequence[str]) -> Block:
    """Error detection by the verdicts, on all texts."""
    besides = (*PROBABILITY_FIGURES, *DISCRIMINATION_FIGURES)
    figures = {name: _figures(found, besides) for name, found in results.items()}
    return Block("", {ALL: _guesses(results, besides) | figures}, tuple(lines))


def discrimination_block(results: Mapping[str, DetectionMetrics]) -> Block:
    """How well notes with an error are told from those without, whatever a system is inclined to say."""
    shown = {**_guesses(results), **{name: _figures(found) for name, found in results.items()}}
    figures = {name: {key: one[key] for key in DISCRIMINATION_FIGURES if key in one} for name, one in shown.items()}
    return Block("Told apart, whatever a system is inclined to say", {ALL: figures})


def _figures(found: DetectionMetrics, besides: Sequence[str] = ()) -> dict[str, Estimate]:
    left_out = (*besides, *(OF_TWO_CLASSES if found.of_one_class else ()))
    return {name: estimate for name, estimate in found.items() if name not in left_out}


def _widest(results: Mapping[str, DetectionMetrics]) -> DetectionMetrics:
    """The first of the results on all the texts: some system may have been asked about a sample of them."""
    return max(results.values(), key=lambda found: found.n_texts)


def _guesses(results: Mapping[str, DetectionMetrics], besides: Sequence[str] = ()) -> dict[str, Estimates]:
    """What guessing gets on the texts of these results, where one has a figure."""
    if not results:
        return {}
    found = _widest(results)
    left_out = (*besides, *(OF_TWO_CLASSES if found.of_one_class else ()))
    guesses = guess_figures(found.n_errors, found.n_texts - found.n_errors, found.n_pairs)
    measured = {name for each in results.values() for name, estimate in each.items() if estimate.value is not None}
    return {
        guess: {name: estimate for name, estimate in figures.items() if name in measured and name not in left_out}
        for guess, figures in guesses.items()
    }


def group_blocks(texts: Sequence[LabelledText], judgements: Sequence[Judgement]) -> list[Block]:
    """All figures of detection by collection, split, error type and length, where there are several groups of these."""
    blocks = []
    for attribute in GROUPINGS:
        groups: dict[str, dict[str, DetectionMetrics]] = defaultdict(dict)
        for one in judgements:
            for group, found in by_group(one.of(texts), one.predictions, attribute).items():
                groups[f"{attribute}={group}"][one.name] = found
        if len(groups) > 1:
            shown = {
                group: _guesses(results) | {name: _figures(found) for name, found in results.items()}
                for group, results in groups.items()
            }
            blocks.append(Block(f"By {attribute.replace('_', ' ')}", shown))
    return blocks


def official_results(
    texts: Sequence[LabelledText], judgements: Sequence[Judgement], scorers: Scorers
) -> dict[str, dict[str, OfficialScores]]:
    """The shared task's scores on the texts that it scores, by system and collection (`all`, `MS`, `UW`)."""
    scored = scored_texts(texts)
    return {
        one.name: official_scores_by_collection(
            one.of(scored), one.rows, scorers.available, scorers.left_out | not_asked(one.subtasks)
        )
        for one in judgements
    }


def official_blocks(
    texts: Sequence[LabelledText], results: Mapping[str, Mapping[str, OfficialScores]], scorers: Scorers
) -> list[Block]:
    """The official scores, with lines on what they leave out; of each collection apart where there are several."""
    groups: dict[str, dict[str, Estimates]] = defaultdict(dict)
    shown = {figure for collections in results.values() for figure in collections[ALL].figures()}
    for name, collections in {**_official_guesses(texts, scorers), **results}.items():
        for collection, scores in collections.items():
            figures = {figure: one for figure, one in scores.figures().items() if figure in shown}
            if name in FLAG_RATES:
                figures = {figure: _exact(one) for figure, one in figures.items()}
            groups[ALL if collection == ALL else f"collection={collection}"][name] = figures
    scored = scored_texts(texts)
    together = {ALL: groups.pop(ALL)}
    kind = "published texts" if all(text.is_published for text in scored) else "texts, both twins of each pair"
    title = f"Official scores (MEDIQA-CORR 2024), {len(scored)} {kind}"
    blocks = [Block(title, together, tuple(_left_out(results)))]
    return [*blocks, Block("Official scores by collection", groups)] if groups else blocks


def _official_guesses(texts: Sequence[LabelledText], scorers: Scorers) -> dict[str, dict[str, OfficialScores]]:
    """What guessing gets there: it names no sentence and corrects nothing, so a coin differs in its flags alone."""
    scored = scored_texts(texts)
    found: dict[str, dict[str, OfficialScores]] = {}
    for name, rate in FLAG_RATES.items():
        said = [Prediction(text.text_id, "INCORRECT" if rate == 1 else "CORRECT") for text in scored]
        found[name] = official_scores_by_collection(scored, submission_rows(said), scorers.available, scorers.left_out)
        if name == COIN:
            found[name] = {collection: _tossed(scores, rate) for collection, scores in found[name].items()}
    return found


def _tossed(scores: OfficialScores, rate: float) -> OfficialScores:
    if scores.flag_accuracy is None:
        return scores
    return replace(scores, flag_accuracy=Estimate(rate, None, None, scores.n_texts))


def _exact(estimate: Estimate) -> Estimate:
    """Without an interval: what guessing gets on these very texts is known."""
    return replace(estimate, low=None, high=None)


def _left_out(results: Mapping[str, Mapping[str, OfficialScores]]) -> list[str]:
    """One line for each reason: what it leaves out, and of which systems where not of all."""
    by_reason: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    whose: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, collections in results.items():
        for score, why in collections[ALL].left_out.items():
            whose[score, why].append(name)
    for (score, why), names in whose.items():
        by_reason[why, tuple(names)].append(score)
    return [
        f"left out: {', '.join(scores)}{'' if len(names) == len(results) else ' of ' + ', '.join(names)} ({why})"
        for (why, names), scores in by_reason.items()
    ]


def choose_thresholds(held_out: Sequence[LabelledText], judgements: Sequence[Judgement]) -> dict[str, Threshold]:
    """The threshold of every system that gave probabilities on the held-out texts, which are of both classes."""
    return {
        one.name: choose_threshold(held_out, one.held_out)
        for one in judgements
        if any(said.p_incorrect is not None for said in one.held_out)
    }


def probability_block(
    texts: Sequence[LabelledText],
    judgements: Sequence[Judgement],
    results: Mapping[str, DetectionMetrics],
    thresholds: Mapping[str, Threshold],
    lines: Sequence[str],
) -> Block:
    """Brier score and ECE, and detection by a threshold on P(INCORRECT) in place of the verdict."""
    figures: dict[str, dict[str, Estimate]] = {}
    for one in judgements:
        if not results[one.name].brier.n:
            continue
        figures[one.name] = {name: getattr(results[one.name], name) for name in PROBABILITY_FIGURES}
        if one.name in thresholds:
            threshold = thresholds[one.name]
            found = detection_metrics(one.of(texts), apply_threshold(one.predictions, threshold))
            figures[one.name]["threshold"] = Estimate(threshold.value, None, None, found.n_texts)
            figures[one.name] |= {f"threshold_{name}": estimate for name, estimate in _figures(found).items()}
    if figures:
        by_threshold = any(one.name in thresholds for one in judgements)
        figures = _guessed_probabilities(results, by_threshold) | figures
    shown = {name: {key: one[key] for key in HEADERS if key in one} for name, one in figures.items()}
    return Block("Probabilities", {ALL: shown}, tuple(lines))


def _guessed_probabilities(
    results: Mapping[str, DetectionMetrics], by_threshold: bool
) -> dict[str, dict[str, Estimate]]:
    """What each way to guess gets that states its flag rate as P(INCORRECT)."""
    found = _widest(results)
    errors = found.n_errors / found.n_texts
    rows: dict[str, dict[str, Estimate]] = {}
    for name, figures in _guesses(results).items():
        rate = FLAG_RATES[name]
        brier = errors * (1 - rate) ** 2 + (1 - errors) * rate**2
        values = {"brier": brier, "ece": abs(rate - errors)}
        rows[name] = {figure: Estimate(value, None, None, found.n_texts) for figure, value in values.items()}
        if by_threshold:
            rows[name] |= {f"threshold_{figure}": one for figure, one in figures.items()}
    return rows
