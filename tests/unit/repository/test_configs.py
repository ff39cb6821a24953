"""Every committed configuration is one that the settings accept."""

from pathlib import Path

import pytest

from medserl.config import read_config, validate
from medserl.errors import ConfigError
from tests.places import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_committed_configuration_is_valid(path: Path) -> None:
    values = read_config(path)
    assert values.items() <= validate(values).model_dump().items()


def test_a_floor_above_the_ceiling_is_refused() -> None:
    with pytest.raises(ConfigError, match="vcf_min_jaccard is above vcf_max_jaccard"):
        validate({"vcf_min_jaccard": 0.9, "vcf_max_jaccard": 0.8})


def test_a_wrong_value_names_setting_and_value() -> None:
    with pytest.raises(ConfigError, match=r"settings: kl_coef: .*got 'much'"):
        validate({"kl_coef": "much"})
