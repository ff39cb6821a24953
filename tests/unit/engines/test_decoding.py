"""Batched sampling on a tiny random Llama: exact samples, stops, nucleus, compaction, batches of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from medserl.engines import decoding, prefixes
from medserl.engines.base import Sampling
from medserl.engines.decoding import Draft, choose, nucleus, sample
from medserl.engines.prefill import Prefill, left_pad
from medserl.engines.prefixes import PrefixCache

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = [tuple(range(5, 5 + n)) for n in (17, 3, 9, 9, 30, 4, 12, 1)]
NO_STOP: frozenset[int] = frozenset()
MANY_STOPS = frozenset(range(0, 384, 6))  # about one token in six ends a row: rows leave at different steps


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()


def run(model: Any, prompts: list[tuple[int, ...]], sampling: Sampling, **changes: Any) -> list[Draft]:
    options: dict[str, Any] = {"stop_ids": NO_STOP, "pad_id": 0, "token_budget": 10_000}
    return sample(model, prompts, sampling, **{**options, **changes})


def assert_same(rows: list[Draft], others: list[Draft]) -> None:
    for row, other in zip(rows, others, strict=True):
        assert (row.index, row.prompt, row.token_ids) == (other.index, other.prompt, other.token_ids)
        assert row.logprobs == pytest.approx(other.logprobs, abs=1e-5)


# -- the model in a loop of its own ------------------------------------------------------------------------


@torch.inference_mode()
def plain_logits(model: Any, tokens: list[int]) -> torch.Tensor:
    """Logits after `tokens`: no cache, no padding, no batch."""
    return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float()


def plain_sample(model: Any, prompt: tuple[int, ...], draws: torch.Tensor, temperature: float) -> list[int]:
    """Inverse-transform sampling, one token at a time."""
    tokens = list(prompt)
    for uniform in draws:
        probabilities = (plain_logits(model, tokens)[-1] / temperature).softmax(-1).double()
        cumulative = probabilities.cumsum(-1)
        tokens.append(int((cumulative <= uniform.double() * cumulative[-1]).sum()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_samples_are_those_of_a_plain_loop(model: Any, temperature: float) -> None:
    sampling = Sampling(max_new_tokens=8, temperature=temperature, seed=3)
    draws = torch.rand(len(PROMPTS), 8, generator=torch.Generator().manual_seed(3))
    for row, uniforms in zip(run(model, PROMPTS, sampling), draws, strict=True):
        assert row.token_ids == plain_sample(model, row.prompt, uniforms, temperature)


@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (0.7, 1.0), (1.0, 1.0), (1.6, 0.9)])
def test_logprobs_are_those_of_the_temperature_that_is_sampled_at(model: Any, temperature: float, top_p: float) -> None:
    """A greedy completion has those at temperature 1, and `top_p` cuts the distribution without renorming them."""
    for row in run(model, PROMPTS, Sampling(6, temperature, top_p, seed=1)):
        logits = plain_logits(model, [*row.prompt, *row.token_ids])[len(row.prompt) - 1 : -1]
        expected = (logits / (temperature or 1)).log_softmax(-1)[range(6), row.token_ids]
        assert row.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_padding_does_not_shift_learned_positions() -> None:
    """Rotary positions forgive an offset; GPT-2's table of positions does not."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 64, "n_positions": 64, "n_embd": 32, "n_layer": 1, "n_head": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        gpt2 = GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.3, bos_token_id=0, eos_token_id=0)).eval()
    draws = torch.rand(len(PROMPTS), 6, generator=torch.Generator().manual_seed(3))
    for row, uniforms in zip(run(gpt2, PROMPTS, Sampling(6, seed=3)), draws, strict=True):
        assert row.token_ids == plain_sample(gpt2, row.prompt, uniforms, 1.0)


def test_greedy_is_the_most_likely_token(model: Any) -> None:
    for row in run(model, PROMPTS, Sampling(6, temperature=0.0)):
        logits = plain_logits(model, [*row.prompt, *row.token_ids])[len(row.prompt) - 1 : -1]
        assert row.token_ids == logits.argmax(-1).tolist()


# -- batches, stops, compaction ----------------------------------------------------------------------------


@pytest.mark.parametrize("stop_ids", [NO_STOP, MANY_STOPS])
@pytest.mark.parametrize("token_budget", [1, 60, 130, 10_000])
def test_the_budget_does_not_change_what_is_sampled(model: Any, token_budget: int, stop_ids: frozenset[int]) -> None:
    sampling = Sampling(max_new_tokens=16, seed=5)
    alone = run(model, PROMPTS, sampling, stop_ids=stop_ids, token_budget=1)
    assert_same(run(model, PROMPTS, sampling, stop_ids=stop_ids, token_budget=token_budget), alone)


def test_what_a_prompt_samples_does_not_depend_on_the_prompts_after_it(model: Any) -> None:
    sampling = Sampling(max_new_tokens=10, seed=5)
    assert_same(run(model, PROMPTS, sampling)[:3], run(model, PROMPTS[:3], sampling))


def test_a_row_ends_with_its_first_stop_token(model: Any) -> None:
    """Stopping and dropping rows cuts each completion short, and changes nothing before that."""
    sampling = Sampling(max_new_tokens=24, seed=7)
    unstopped = run(model, PROMPTS, sampling)
    stopped = run(model, PROMPTS, sampling, stop_ids=MANY_STOPS)
    for row, whole in zip(stopped, unstopped, strict=True):
        ends = [i for i, token in enumerate(whole.token_ids) if token in MANY_STOPS]
        length = ends[0] + 1 if ends else 24
        assert row.stopped is bool(ends)
        assert row.token_ids == whole.token_ids[:length]
        assert row.logprobs == pytest.approx(whole.logprobs[:length], abs=1e-5)
    assert len({len(row.token_ids) for row in stopped}) > 3  # so rows did leave at different steps


def test_finished_rows_leave_the_batch(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def count(logits: torch.Tensor, sampling: Sampling, uniforms: torch.Tensor) -> Any:
        sizes.append(len(logits))
        return choose(logits, sampling, uniforms)

    monkeypatch.setattr(decoding, "choose", count)
    rows = run(model, PROMPTS, Sampling(24, seed=7), stop_ids=MANY_STOPS)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == len(PROMPTS) > sizes[-1]
    assert len(sizes) == max(len(row.token_ids) for row in rows)  # and the batch ends with its last row


def test_equal_prompts_are_read_once_and_go_their_own_ways(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As several Assessor samples a note ask for; finished rows then leave as ever."""
    thrice = [PROMPTS[i] for i in (0, 1, 0, 2, 3, 0, 1)]  # prompts 2 and 3 are equal too
    sampling = Sampling(max_new_tokens=24, seed=7)
    alone = run(model, thrice, sampling, stop_ids=MANY_STOPS, token_budget=1)
    read = spy_on_reading(monkeypatch)
    assert_same(run(model, thrice, sampling, stop_ids=MANY_STOPS), alone)
    assert sorted(read) == sorted((prompt, 0) for prompt in set(thrice))
    assert len({tuple(alone[i].token_ids) for i in (0, 2, 5)}) == 3


# -- prompts of an earlier call ----------------------------------------------------------------------------


def spy_on_reading(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[int, ...], int]]:
    """Every prompt that is read from now on, and how much of it was known."""
    read: list[tuple[tuple[int, ...], int]] = []
    go_on = prefixes.go_on

    def spy(model: Any, prompts: Any, begun: Any, pad_id: int) -> Prefill:
        read.extend((prompt, each.length if each else 0) for prompt, each in zip(prompts, begun, strict=True))
        return go_on(model, prompts, begun, pad_id)

    monkeypatch.setattr(prefixes, "go_on", spy)
    return read


def test_a_prompt_tried_again_is_not_read_again(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three attempts, each at what is left; the first leaves what it has read as it was."""
    cache = PrefixCache(10_000)
    attempts = [(PROMPTS, 1), (PROMPTS[:5], 2), (PROMPTS[3:4], 3)]
    expected = [run(model, prompts, Sampling(16, seed=seed), stop_ids=MANY_STOPS) for prompts, seed in attempts]
    read = spy_on_reading(monkeypatch)
    for (prompts, seed), rows in zip(attempts, expected, strict=True):
        again = run(model, prompts, Sampling(16, seed=seed), stop_ids=MANY_STOPS, prefixes=cache)
        assert_same(again, rows)
    assert sorted(read) == sorted((prompt, 0) for prompt in set(PROMPTS))


def test_known_and_new_prompts_of_one_call_go_their_own_ways(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PrefixCache(10_000)
    run(model, PROMPTS[:2], Sampling(4), prefixes=cache)
    expected = run(model, PROMPTS, Sampling(16, seed=9), stop_ids=MANY_STOPS)
    read = spy_on_reading(monkeypatch)
    assert_same(run(model, PROMPTS, Sampling(16, seed=9), stop_ids=MANY_STOPS, prefixes=cache), expected)
    assert {prompt for prompt, _ in read} == set(PROMPTS[2:])


def test_nobody_goes_on_from_what_another_has_read(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PrefixCache(10_000)
    read = spy_on_reading(monkeypatch)
    for reader in ("", "round_3", "", "round_3"):
        run(model, PROMPTS[:2], Sampling(4), prefixes=cache, reader=reader)
    assert read == [(PROMPTS[1], 0), (PROMPTS[0], 0)] * 2


@pytest.mark.parametrize(("budget", "times"), [(33, 4), (34, 2)])
def test_prefixes_keep_to_their_budget(model: Any, budget: int, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls of 17 tokens each, twice: below 34 the second drops the first."""
    cache = PrefixCache(budget)
    read = spy_on_reading(monkeypatch)
    for prompt in (PROMPTS[0], PROMPTS[0][::-1]) * 2:
        run(model, [prompt], Sampling(4), prefixes=cache)
    assert len(read) == times


# -- prompts that begin alike ------------------------------------------------------------------------------

HEAD = tuple(range(5, 5 + 40))
NOTE = (*HEAD, *range(60, 80))
TASK, OTHER_TASK = tuple(range(100, 107)), tuple(range(110, 115))
EDITED = (*NOTE[:48], 200, 201, *NOTE[49:])
EARLY = (*NOTE[:2], 200, *NOTE[3:])
ALIKE = [(*NOTE, *TASK), (*EDITED, *OTHER_TASK), (*NOTE, *OTHER_TASK), (*EARLY, *TASK), (9, 8, 7)]


def test_a_prompt_is_read_on_from_where_it_parts_from_another(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Injector's turn, then the Assessor's on the edit, on the original, on an edit of the first words."""
    cache = PrefixCache(10_000)
    expected = run(model, ALIKE, Sampling(16, seed=3), stop_ids=MANY_STOPS, token_budget=1)
    read = spy_on_reading(monkeypatch)
    run(model, ALIKE[:1], Sampling(4), prefixes=cache)
    assert_same(run(model, ALIKE, Sampling(16, seed=3), stop_ids=MANY_STOPS, prefixes=cache), expected)
    assert dict(read) == {ALIKE[0]: 0, ALIKE[1]: 48, ALIKE[2]: len(NOTE), ALIKE[3]: 0, ALIKE[4]: 0}


def test_prompts_of_one_call_go_on_from_one_another(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run(model, ALIKE, Sampling(16, seed=3), stop_ids=MANY_STOPS, token_budget=1)
    read = spy_on_reading(monkeypatch)
    assert_same(run(model, ALIKE, Sampling(16, seed=3), stop_ids=MANY_STOPS), expected)
    assert sum(len(prompt) - known for prompt, known in read) < sum(map(len, ALIKE)) - 2 * len(HEAD)


def test_what_was_read_on_can_be_gone_on_from_too(model: Any) -> None:
    """Rows with room between their beginning and their rest, copied and cut again."""
    cache = PrefixCache(10_000)
    for prompt in (ALIKE[0], ALIKE[1], (*EDITED, *TASK), (*EDITED[:-3], 7, 7)):
        together = [prompt, ALIKE[2], ALIKE[4]]
        expected = run(model, together, Sampling(8, seed=4), token_budget=1)
        assert_same(run(model, together, Sampling(8, seed=4), prefixes=cache), expected)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=6), st.integers(1, 4))
def test_any_prompts_sample_the_same_whatever_was_read_before(model: Any, prompts: list[list[int]], calls: int) -> None:
    wanted = [(*HEAD[: 40 - len(each)], *each) for each in prompts]
    expected = run(model, wanted, Sampling(3, seed=5), token_budget=1)
    cache = PrefixCache(500)
    for _ in range(calls):
        assert_same(run(model, wanted, Sampling(3, seed=5), prefixes=cache), expected)


def test_seeds(model: Any) -> None:
    one, same, other = (run(model, PROMPTS, Sampling(8, seed=seed)) for seed in (1, 1, 2))
    assert_same(one, same)
    assert [row.token_ids for row in one] != [row.token_ids for row in other]


def test_no_prompts(model: Any) -> None:
    assert run(model, [], Sampling(4)) == []


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 30)), max_size=20), st.integers(1, 400))
def test_batches_keep_to_the_budget_and_lose_nobody(sizes: list[tuple[int, int]], budget: int) -> None:
    rows = [Draft(i, (1,) * length, limit) for i, (length, limit) in enumerate(sizes)]
    batches = list(decoding._batches(rows, budget))
    assert sorted(row.index for batch in batches for row in batch) == list(range(len(sizes)))
    for batch in batches:
        widest = max(len(row.prompt) for row in batch) + max(row.limit for row in batch)
        assert len(batch) == 1 or len(batch) * widest <= budget


@pytest.mark.parametrize("token_budget", [1, 130, 10_000])
def test_each_prompt_has_a_limit_of_its_own(model: Any, token_budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One prompt may write on alone; the others end where they would have ended with that limit for all."""
    sizes: list[int] = []
    monkeypatch.setattr(decoding, "choose", lambda logits, *rest: sizes.append(len(logits)) or choose(logits, *rest))
    limits = (3, 24, 1, 7, 3, 12, 9, 5)
    seeds = tuple(range(len(PROMPTS)))
    whole = run(model, PROMPTS, Sampling(24, seeds=seeds), stop_ids=MANY_STOPS)
    sizes.clear()
    rows = run(model, PROMPTS, Sampling(24, seeds=seeds, limits=limits), stop_ids=MANY_STOPS, token_budget=token_budget)
    for row, longer, limit in zip(rows, whole, limits, strict=True):
        assert row.token_ids == longer.token_ids[:limit]
        assert row.stopped == (longer.stopped and len(longer.token_ids) <= limit)
    if token_budget == 1:
        assert len(sizes) == sum(len(row.token_ids) for row in rows)  # no step more than tokens kept


def test_left_pad() -> None:
    input_ids, mask = left_pad([(1, 2, 3), (4,), (5, 6)], pad_id=9)
    assert input_ids.tolist() == [[1, 2, 3], [9, 9, 4], [9, 5, 6]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1], [0, 1, 1]]


# -- one token ---------------------------------------------------------------------------------------------

WEIGHTS = st.lists(st.integers(0, 20), min_size=2, max_size=12).filter(any)


def test_choose_draws_each_token_as_often_as_it_is_likely() -> None:
    probabilities = torch.tensor([0.05, 0.0, 0.4, 0.25, 0.3])
    n = 20_000
    uniforms = (torch.arange(n) + 0.5) / n  # an even grid over (0, 1)
    tokens, logprobs = choose(probabilities.log().expand(n, -1), Sampling(1), uniforms)
    assert (tokens.bincount(minlength=5) / n).tolist() == pytest.approx(probabilities.tolist(), abs=2 / n)
    torch.testing.assert_close(logprobs, probabilities.log()[tokens])


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_choose_takes_no_impossible_token_at_either_end(uniform: float) -> None:
    logits = torch.tensor([[0.0, 0.5, 0.5, 0.0]]).log()
    tokens, _ = choose(logits, Sampling(1), torch.tensor([uniform]))
    assert tokens.item() == (1 if uniform == 0 else 2)


def test_choose_with_a_temperature_and_a_nucleus() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    n = 10_000
    uniforms = (torch.arange(n) + 0.5) / n
    tokens, logprobs = choose(probabilities.log().expand(n, -1), Sampling(1, 0.5, top_p=0.9), uniforms)
    sharpened = probabilities[:2].square()  # 0.25 : 0.09 : 0.0225 : 0.0025 is 68 %, 25 %, 6 %, 1 %
    shares = (tokens.bincount(minlength=4) / n).tolist()
    assert shares == pytest.approx([*(sharpened / sharpened.sum()).tolist(), 0, 0], abs=2 / n)
    whole = probabilities.square() / probabilities.square().sum()  # at the temperature, before the nucleus
    torch.testing.assert_close(logprobs, whole.log()[tokens])


@given(WEIGHTS, st.integers(1, 100))
@example([1, 1], 50)  # the mass is reached exactly
@example([5, 3, 2, 0], 80)
def test_nucleus_is_the_smallest_set_that_holds_the_mass(weights: list[int], percent: int) -> None:
    total = sum(weights)
    kept = nucleus(torch.tensor([weights], dtype=torch.float64), total * percent / 100)[0]
    held, expected = 0, []
    for i in sorted(range(len(weights)), key=lambda i: -weights[i]):
        if held * 100 >= total * percent:
            break
        held += weights[i]
        expected.append(weights[i])
    positive = [weight for weight in expected if weight]
    assert sorted(kept[kept > 0].tolist(), reverse=True) == positive
    for weight, left in zip(weights, kept.tolist(), strict=True):
        assert left in (0, weight)
