"""Turns to experiences and back, the update's bookkeeping, waiting and load balancing, against stand-ins for Ray."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import fake_openrlhf as fake
import pytest
import torch

from medserl.config import Settings
from medserl.engines.base import WeightedTurn
from medserl.errors import ModelError, RunError
from medserl.game.episode import Completion, Turn


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Our modules over the stand-ins."""
    with fake.installed(monkeypatch):
        from medserl.engines.openrlhf import experiences, pool, trainer, watch

        monkeypatch.setattr(watch, "LOOK_EVERY_SECONDS", 0.01)
        yield SimpleNamespace(experiences=experiences, pool=pool, trainer=trainer, watch=watch)


def turn(prompt: int, completion: int, role: Any = "injector") -> Turn:
    """Token ids tell whose they are: 1000 * length of the prompt + position."""
    ids = tuple(1000 * prompt + i for i in range(prompt + completion))
    logprobs = tuple(-0.1 * (i + 1) for i in range(completion))
    return Turn(role, (), Completion("text", ids[:prompt], ids[prompt:], logprobs, "stop"))


def weighted(each: Turn, reward: float = 1.0) -> WeightedTurn:
    n = len(each.completion.token_ids)
    advantages, ref = tuple(float(i + 1) for i in range(n)), tuple(-0.5 for _ in range(n))
    note_id = str(each.completion.prompt_ids[0])
    return WeightedTurn(each, each.completion.logprobs, advantages, note_id, ref, reward)


# -- experiences -------------------------------------------------------------------------------------------


def test_one_turn_is_one_experience_with_its_own_reward_mask_and_logprobs(ours: SimpleNamespace) -> None:
    experience = ours.experiences.to_training_experience(weighted(turn(3, 2), reward=-1.0))
    assert experience.sequences.tolist() == [[3000, 3001, 3002, 3003, 3004]]
    assert experience.attention_mask.tolist() == [[1] * 5]
    assert experience.action_mask.tolist() == [[False, False, True, True]]  # entry t is about token t + 1
    assert experience.rewards.tolist() == [-1.0]
    assert experience.advantages.tolist() == [[0.0, 0.0, 1.0, 2.0]]
    torch.testing.assert_close(experience.action_log_probs, torch.tensor([[0.0, 0.0, -0.1, -0.2]]))
    torch.testing.assert_close(experience.rollout_log_probs, experience.action_log_probs)
    assert experience.base_action_log_probs.tolist() == [[0.0, 0.0, -0.5, -0.5]]


def test_a_pass_pads_on_the_right_and_values_find_their_tokens_again(ours: SimpleNamespace) -> None:
    turns = [turn(3, 2), turn(2, 5), turn(1, 1)]
    together = ours.experiences.together([ours.experiences.to_experience(each) for each in turns], 7)
    assert together.sequences[0].tolist() == [3000, 3001, 3002, 3003, 3004, 7, 7]
    assert together.attention_mask.sum(-1).tolist() == [5, 7, 2]
    assert together.action_mask.sum(-1).tolist() == [2, 5, 1]
    said = ours.experiences.completion_values(together.sequences[:, 1:], turns)
    assert said == [each.completion.token_ids for each in turns]


@pytest.mark.parametrize("empty", [turn(3, 0), turn(0, 3)])
def test_a_turn_without_an_action_is_refused(ours: SimpleNamespace, empty: Turn) -> None:
    with pytest.raises(RunError, match="without tokens"):
        ours.experiences.to_experience(empty)


# -- scoring and the update --------------------------------------------------------------------------------


class Group:
    """Training ranks; calls are made in lists a rank, cut as OpenRLHF cuts them."""

    duplicate_actors = 1

    def __init__(self, ranks: int, report: dict[str, float] | None = None) -> None:
        self._actor_handlers = list(range(ranks))
        self.appended: list[list[list[Any]]] = []
        self.report = report or {}
        self.learning_rates: list[float] = []

    def async_run_method(self, name: str, *args: Any, **_: Any) -> list[fake.Reference]:
        if name == "set_learning_rate":
            self.learning_rates += args
        return [fake.Reference(self.status if name == "fit" else lambda: None) for _ in self._actor_handlers]

    def async_run_method_batch(self, name: str, **lists: list[Any]) -> list[fake.Reference]:
        length = len(next(iter(lists.values())))
        assert length % len(self._actor_handlers) == 0
        each = length // len(self._actor_handlers)
        parts = [{k: v[i : i + each] for k, v in lists.items()} for i in range(0, length, each)]
        if name == "append":
            self.appended.append([part["experience"] for part in parts])
            return [fake.Reference(lambda: [None]) for _ in parts]
        offset = 0.5 if name == "reference_forward" else 0.0
        return [fake.Reference(lambda part=part: [ids[:, 1:] + offset for ids in part["sequences"]]) for part in parts]

    def status(self) -> dict[str, float]:
        passes = [each for rank in self.appended[-1] for each in rank]
        tokens = float(sum(each.action_mask.sum().item() for each in passes))
        return {
            "loss": 1.0, "entropy": 2.0, "grad_norm": 3.0, "clipped": 0.0, "gap": 0.5 * tokens, "drift": -0.25 * tokens,
            "gap_squares": 0.25 * tokens, "gap_max": 0.5,
            "tokens": tokens, "optimizer_steps": 1, **self.report,
        }  # fmt: skip


def trainer(ours: SimpleNamespace, group: Group, reference: Group | None = None, **settings: Any) -> Any:
    cluster = SimpleNamespace(policy=group, reference=reference, engines=[], watch=ours.watch.Watch())
    strategy = SimpleNamespace(args=SimpleNamespace(medserl=Settings(training_token_budget=256, **settings)))
    return ours.trainer.RoundTrainer(strategy, cluster, SimpleNamespace(pad_token_id=0))


TURNS = [turn(p, c) for p, c in ((90, 3), (4, 1), (200, 90), (5, 2), (80, 7))]


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_scores_come_back_in_order(ours: SimpleNamespace, ranks: int) -> None:
    scores = trainer(ours, Group(ranks)).score(TURNS, reference=False)
    assert scores == [each.completion.token_ids for each in TURNS]


def test_the_reference_is_its_own_group_or_the_policy_without_its_adapter(ours: SimpleNamespace) -> None:
    with_group = trainer(ours, Group(2), reference=Group(2)).score(TURNS, reference=True)
    within = trainer(ours, Group(2)).score(TURNS, reference=True)
    assert with_group == [each.completion.token_ids for each in TURNS]
    assert within == [tuple(token + 0.5 for token in each.completion.token_ids) for each in TURNS]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_turn_is_trained_whatever_their_number(ours: SimpleNamespace, ranks: int, count: int) -> None:
    group = Group(ranks)
    turns = [weighted(each) for each in TURNS[:count]]
    stats = trainer(ours, group).update(turns, 1e-4)
    (step,) = group.appended
    firsts = sorted(int(row[0]) for rank in step for each in rank for row in each.sequences)
    copies = ranks if count < ranks else 1
    assert firsts == sorted(copies * [each.turn.completion.prompt_ids[0] for each in turns])
    assert stats.tokens == sum(len(each.advantages) for each in turns)
    assert stats.optimizer_steps == 1
    assert (stats.logprob_gap, stats.vllm_kl) == (0.5, -0.25)
    assert group.learning_rates == [1e-4]


def test_mini_batches_are_optimizer_steps(ours: SimpleNamespace) -> None:
    group = Group(1)
    stats = trainer(ours, group, mini_batches=2).update([weighted(each) for each in TURNS], 1e-4)
    assert stats.optimizer_steps == len(group.appended) == 2
    assert [sum(len(each.sequences) for rank in step for each in rank) for step in group.appended] == [3, 2]


@pytest.mark.parametrize("report", [{"optimizer_steps": 0}, {"tokens": 12.0}])
def test_a_step_that_was_skipped_or_cut_stops_the_run(ours: SimpleNamespace, report: dict[str, float]) -> None:
    with pytest.raises(RunError, match="left some out"):
        trainer(ours, Group(2, report)).update([weighted(each) for each in TURNS], 1e-4)


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_the_run(ours: SimpleNamespace, norm: float) -> None:
    with pytest.raises(RunError, match="the gradient is not finite"):
        trainer(ours, Group(2, {"grad_norm": norm})).update([weighted(each) for each in TURNS], 1e-4)


# -- waiting -----------------------------------------------------------------------------------------------


def raising(error: BaseException, ready: bool = True) -> fake.Reference:
    def call() -> None:
        raise error

    return fake.Reference(call, ready)


def test_results_in_order(ours: SimpleNamespace) -> None:
    references = [fake.Reference(lambda i=i: i) for i in range(3)]
    assert ours.watch.Watch().results(references, "counting") == [0, 1, 2]


def test_an_engine_that_dies_while_others_wait_for_it(ours: SimpleNamespace) -> None:
    watch, never = ours.watch.Watch(), threading.Event()
    alive, dead = fake.Reference(lambda: None, ready=False), raising(fake.RayError("Traceback\n  ...\nEngineDead: x"))
    watch.sentinels = [alive, dead]
    try:
        with pytest.raises(RunError, match=r"^sending weights: a vLLM engine died: EngineDead: x$"):
            watch.guard(never.wait, "sending weights")
    finally:
        never.set()


class Actor:
    """A training rank as its handle shows it."""

    def __init__(self, state: int) -> None:
        self.state = state
        self.__ray_ready__ = SimpleNamespace(remote=lambda: raising(fake.RayError("The actor died: SIGKILL")))

    def _get_local_state(self) -> int:
        return self.state


def test_a_training_rank_that_dies_while_the_engines_play(ours: SimpleNamespace) -> None:
    watch, never = ours.watch.Watch(), threading.Event()
    watch.actors = [Actor(fake.DEAD - 1), Actor(fake.DEAD)]
    try:
        with pytest.raises(RunError, match=r"^generating: a training rank died: The actor died: SIGKILL$"):
            watch.guard(never.wait, "generating")
    finally:
        never.set()


def test_our_own_errors_cross_processes_as_they_are(ours: SimpleNamespace) -> None:
    error = fake.RayTaskError(ModelError("adapter x does not fit"), "a long traceback\nModelError: adapter x ...")
    with pytest.raises(ModelError, match=r"^adapter x does not fit$"):
        ours.watch.Watch().results([raising(error)], "loading")


def test_pydantics_reference_is_not_the_error(ours: SimpleNamespace) -> None:
    text = "1 validation error for ModelConfig\n  Value error, max_model_len\n    For further information visit x"
    with pytest.raises(RunError, match=r"^starting vLLM: Value error, max_model_len$"):
        ours.watch.Watch().results([raising(fake.RayError(text))], "starting vLLM")


def test_other_errors_are_one_line(ours: SimpleNamespace) -> None:
    error = fake.RayTaskError(ZeroDivisionError("x"), "File a\nFile b\nZeroDivisionError: division by zero")
    with pytest.raises(RunError, match=r"^loading: ZeroDivisionError: division by zero$"):
        ours.watch.Watch().results([raising(error)], "loading")


# -- many engines ------------------------------------------------------------------------------------------


class Engine:
    """Answers with the prompt; knows how many prompts it had, and how many at once."""

    def __init__(self) -> None:
        self.prompts: list[Any] = []
        self.generate = SimpleNamespace(remote=self._generate)

    def _generate(self, prompt: list[int], options: Any) -> fake.Reference:
        self.prompts.append(prompt)
        return fake.Reference(lambda: (prompt, options))


def ask(ours: SimpleNamespace, engines: Sequence[Engine], lengths: Sequence[int]) -> list[Any]:
    pool = ours.pool.EnginePool(engines, ours.watch.Watch(), 512)
    prompts = [{"prompt_token_ids": [i] * n} for i, n in enumerate(lengths)]
    return pool.generate(prompts, [f"options {i}" for i in range(len(lengths))], use_tqdm=False)


def test_answers_are_in_the_order_of_the_prompts(ours: SimpleNamespace) -> None:
    answers = ask(ours, [Engine(), Engine()], [3, 9, 1, 5])
    assert answers == [([i] * n, f"options {i}") for i, n in enumerate([3, 9, 1, 5])]


def test_engines_share_the_load_longest_first(ours: SimpleNamespace) -> None:
    engines = [Engine(), Engine(), Engine()]
    ask(ours, engines, range(1, 31))
    assert [len(engine.prompts) for engine in engines] == [10, 10, 10]
    assert [len(engine.prompts[0]) for engine in engines] == [30, 29, 28]


def test_an_engine_has_no_more_than_it_can_run_at_once(ours: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours.pool, "MOST_AT_ONCE", 2)
    waits: list[int] = []

    def wait(references: list[Any], **options: Any) -> Any:
        waits.append(len(references))
        return fake.wait(references, **options)

    monkeypatch.setattr(ours.pool.ray, "wait", wait)
    assert len(ask(ours, [Engine(), Engine()], [4] * 11)) == 11
    assert max(waits) == 4


def test_no_prompt_at_all(ours: SimpleNamespace) -> None:
    assert ask(ours, [Engine()], []) == []
