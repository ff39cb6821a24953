"""The figures of an evaluation, block by block: detection, official scores, threshold, groups of texts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medserl.evaluation.calibration import Threshold, apply_threshold, choose_threshold
from medserl.evaluation.checkpoint_metrics import Scorers
from medserl.evaluation.metrics import Attribute, DetectionMetrics, by_group, detection_metrics
from medserl.evaluation.official import OfficialScores, not_asked, official_scores_by_collection
from medserl.evaluation.predictions import LabelledText
from medserl.evaluation.statistics import Estimate
from medserl.evaluation.systems import Judgement
from medserl.evaluation.table import HEADERS, Figures, Row, group_markdown, markdown, rows

ALL = "all"
GROUPINGS: tuple[Attribute, ...] = ("collection", "split", "error_type", "length")
PROBABILITY_FIGURES = ("brier", "ece")


@dataclass(frozen=True)
class Block:
    """Figures by group of texts and by system, under a title, with lines on what they are.

    The group of all texts is called `all`, others `ATTRIBUTE=VALUE`.
    """

    title: str
    groups: Mapping[str, Mapping[str, Figures]]
    lines: tuple[str, ...] = ()

    def rows(self) -> list[Row]:
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
    figures = {name: _figures(found, besides=PROBABILITY_FIGURES) for name, found in results.items()}
    return Block("", {ALL: figures}, tuple(lines))


def _figures(found: DetectionMetrics, besides: Sequence[str] = ()) -> dict[str, Estimate]:
    return {name: estimate for name, estimate in found.items() if name not in besides}


def group_blocks(texts: Sequence[LabelledText], judgements: Sequence[Judgement]) -> list[Block]:
    """All figures of detection by collection, split, error type and length, where there are several groups of these."""
    blocks = []
    for attribute in GROUPINGS:
        groups: dict[str, dict[str, Figures]] = defaultdict(dict)
        for one in judgements:
            for group, found in by_group(texts, one.predictions, attribute).items():
                groups[f"{attribute}={group}"][one.name] = _figures(found)
        if len(groups) > 1:
            blocks.append(Block(f"By {attribute.replace('_', ' ')}", groups))
    return blocks


def official_results(
    texts: Sequence[LabelledText], judgements: Sequence[Judgement], scorers: Scorers
) -> dict[str, dict[str, OfficialScores]]:
    """The shared task's scores on the published texts, by system and collection (`all`, `MS`, `UW`)."""
    published = [text for text in texts if text.is_published]
    return {
        one.name: official_scores_by_collection(
            published, one.rows, scorers.available, scorers.left_out | not_asked(one.subtasks)
        )
        for one in judgements
    }


def official_blocks(results: Mapping[str, Mapping[str, OfficialScores]]) -> list[Block]:
    """The official scores, with lines on what they leave out; of each collection apart where there are several."""
    groups: dict[str, dict[str, Figures]] = defaultdict(dict)
    for name, collections in results.items():
        for collection, scores in collections.items():
            groups[ALL if collection == ALL else f"collection={collection}"][name] = scores.figures()
    n_texts = next(iter(results.values()))[ALL].n_texts
    together = {ALL: groups.pop(ALL)}
    title = f"Official scores (MEDIQA-CORR 2024), {n_texts} published texts"
    blocks = [Block(title, together, tuple(_left_out(results)))]
    return [*blocks, Block("Official scores by collection", groups)] if groups else blocks


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
            found = detection_metrics(texts, apply_threshold(one.predictions, threshold))
            figures[one.name]["threshold"] = Estimate(threshold.value, None, None, found.n_texts)
            figures[one.name] |= {f"threshold_{name}": estimate for name, estimate in _figures(found).items()}
    shown = {name: {key: one[key] for key in HEADERS if key in one} for name, one in figures.items()}
    return Block("Probabilities", {ALL: shown}, tuple(lines))
