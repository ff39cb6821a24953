"""Ingredients that cannot work together are refused in one line that names the setting."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from medserl.cli import main
from medserl.config import Settings, check_variables, read_config, validate
from medserl.config.removed import REMOVED
from medserl.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"advantage_normalization": "per_text"}, "assessor_samples"),
        ({"advantage_normalization": "running"}, "advantage_normalization"),
        ({"assessor_reward": "peaked"}, "assessor_reward"),
        ({"kl_target": 0.01, "kl_coef": 0.0}, "kl_coef"),
        ({"kl_estimator": "k2"}, "kl_estimator"),
        ({"kl_target": 0.01, "kl_estimator": "k3"}, "k1"),
        ({"adapters": "per_role", "lora_rank": 0}, "lora_rank"),
        ({"adapters": "per_role", "engine": "openrlhf"}, "--engine local"),
        ({"gold_fraction": 1.0}, "gold_fraction"),
        ({"sft_loss_weight": 0.0}, "sft_loss_weight"),
        ({"sft_verdict_pairs": 1, "roles_trained": "injector"}, "sft_verdict_pairs teaches the assessor"),
        ({"sft_games": 1, "roles_trained": "injector"}, "sft_games teaches the assessor"),
        ({"sft_edit_pairs": 1, "roles_trained": "assessor"}, "sft_edit_pairs teaches the injector"),
        ({"policy_loss_weight": 0.0}, "sft_verdict_pairs, sft_edit_pairs or sft_games"),
        ({"policy_loss_weight": 0.0, "sft_games": 1, "judge_originals": True}, "judge_originals is about rewards"),
        ({"policy_loss_weight": 0.0, "sft_games": 1, "gold_fraction": 0.1}, "gold_fraction is about rewards"),
        ({"policy_loss_weight": -1.0}, "policy_loss_weight"),
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
        {"assessor_reward": "correction"},
        {"assessor_samples": 2},
        {"kl_target": 0.01},
        {"kl_estimator": "k3"},
        {"adapters": "per_role"},
        {"lora_rank": 0, "gold_fraction": 0.5, "sft_verdict_pairs": 2},
        {"advantage_normalization": "per_text", "assessor_samples": 2},
        {"engine": "openrlhf", "gold_fraction": 0.5, "sft_verdict_pairs": 2, "sft_games": 2},
        {"roles_trained": "injector", "gold_fraction": 0.5, "sft_edit_pairs": 1},
        {"roles_trained": "assessor", "sft_verdict_pairs": 1, "sft_games": 1},
        {"gold_data": "sample", "sft_edit_pairs": 1},
        {"roles_trained": "assessor", "sft_games": 1, "policy_loss_weight": 0.0, "adapters": "per_role"},
    ],
)
def test_what_works_is_not(values: dict[str, Any]) -> None:
    assert values.items() <= validate(values).model_dump().items()


@pytest.mark.parametrize("name", REMOVED)
def test_a_setting_of_before_is_told_what_became_of_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    default, why = REMOVED[name]
    with pytest.raises(ConfigError, match=re.escape(why)):
        validate({name: 0.5})
    file = tmp_path / "settings.toml"
    file.write_text(f"{name} = 0.75\n")
    with pytest.raises(ConfigError, match=re.escape(f"{file}: there is no {name} any more: {why}")):
        read_config(file)
    file.write_text(f"{name} = {json.dumps(default)}\nseed = 3\n")  # as every run of before has it
    assert read_config(file) == {"seed": 3}
    with pytest.raises(SystemExit) as stopped:
        main(["train", f"--{name.replace('_', '-')}", "1"])
    assert stopped.value.code == 2 and why in " ".join(capsys.readouterr().err.split())
    monkeypatch.setenv(f"MEDSERL_{name.upper()}", "1")
    with pytest.raises(ConfigError, match=re.escape(why)):
        check_variables()


def test_pairs_that_nothing_takes_are_not_trained_with() -> None:
    """Commands that do not train may be given them, as by a variable of the environment."""
    unused = validate({"gold_data": "sample", "sft_games": 1})
    with pytest.raises(ConfigError, match="gold_data 'sample' names pairs, and no setting takes any"):
        unused.require_trainable()
    unused.with_overrides(sft_verdict_pairs=1).require_trainable()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_all_weights_in_16_bits_are_not_trained(dtype: str) -> None:
    """A step of 1e-6 is lost in them; float32 keeps it, and so does OpenRLHF, which has a float32 copy."""
    with pytest.raises(ConfigError, match=f"lora_rank 0 with dtype {dtype}: steps .* are lost"):
        Settings(lora_rank=0, dtype=dtype).require_trainable()  # type: ignore[arg-type]
    for fine in ({"lora_rank": 0}, {"dtype": dtype}, {"lora_rank": 0, "dtype": dtype, "engine": "openrlhf"}):
        validate(fine).require_trainable()
