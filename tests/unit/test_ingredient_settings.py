"""Ingredients that cannot work together are refused in one line that names the setting."""

from __future__ import annotations

from typing import Any

import pytest

from medserl.config import Settings, validate
from medserl.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"injector_reward": "peaked"}, "assessor_samples"),
        ({"injector_reward": "peaked", "assessor_samples": 1}, "assessor_samples"),
        ({"kl_target": 0.01, "kl_coef": 0.0}, "kl_coef"),
        ({"kl_target": 0.01, "kl_estimator": "k2"}, "k1"),
        ({"kl_target": 0.01, "kl_estimator": "k3"}, "k1"),
        ({"past_fraction": 0.1, "lora_rank": 0}, "lora_rank"),
        ({"adapters": "per_role", "lora_rank": 0}, "lora_rank"),
        ({"past_fraction": 0.1, "engine": "openrlhf"}, "--engine local"),
        ({"adapters": "per_role", "engine": "openrlhf"}, "--engine local"),
        ({"gold_fraction": 1.0}, "gold_fraction"),
        ({"lesson_weight": 0.0}, "lesson_weight"),
        ({"gold_lessons": 1, "roles_trained": "injector"}, "gold_lessons teaches the assessor"),
        ({"game_lessons": 1, "roles_trained": "injector"}, "game_lessons teaches the assessor"),
        ({"edit_lessons": 1, "roles_trained": "assessor"}, "edit_lessons teaches the injector"),
        ({"repeat_penalty": -0.5}, "repeat_penalty"),
        ({"policy_loss_weight": 0.0}, "gold_lessons, edit_lessons or game_lessons"),
        ({"policy_loss_weight": 0.0, "game_lessons": 1, "judge_originals": True}, "judge_originals is about rewards"),
        ({"policy_loss_weight": 0.0, "game_lessons": 1, "gold_fraction": 0.1}, "gold_fraction is about rewards"),
        ({"policy_loss_weight": -1.0}, "policy_loss_weight"),
        ({"past_fraction": 1.1}, "past_fraction"),
        ({"past_pool": 0}, "past_pool"),
        ({"assessor_samples": 0}, "assessor_samples"),
    ],
)
def test_what_cannot_work_is_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        validate(values)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=named):
        Settings().with_overrides(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"injector_reward": "peaked", "assessor_samples": 2},
        {"assessor_samples": 2},
        {"kl_target": 0.01},
        {"kl_estimator": "k3"},
        {"past_fraction": 0.5, "adapters": "per_role"},
        {"lora_rank": 0, "gold_fraction": 0.5, "gold_lessons": 2, "advantage_normalization": "running"},
        {"engine": "openrlhf", "gold_fraction": 0.5, "gold_lessons": 2, "game_lessons": 2, "repeat_penalty": 0.5},
        {"roles_trained": "injector", "gold_fraction": 0.5, "edit_lessons": 1},
        {"roles_trained": "assessor", "gold_lessons": 1, "game_lessons": 1},
        {"roles_trained": "assessor", "game_lessons": 1, "policy_loss_weight": 0.0, "adapters": "per_role"},
    ],
)
def test_what_works_is_not(values: dict[str, Any]) -> None:
    assert values.items() <= validate(values).model_dump().items()
