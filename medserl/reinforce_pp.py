"""REINFORCE++ (arXiv 2501.03262): KL in the reward, whitened returns, PPO's clipped loss. No critic, no groups.

    r_t  = 1[t is the last token] R - beta KL_t        KL_t = log pi_old - log pi_ref, clamped to +-10
    G_t  = sum of r from t on (gamma = 1)
    A_t  = (G_t - mean) / std                          over every completion token of the whole batch (see `whiten`)
    loss = -mean_t min(rho_t A_t, clip(rho_t, 1-eps, 1+eps) A_t)     rho_t = exp(log pi - log pi_old)

Where we depart from the paper: the statistics can be taken per role (`per_role`), since in zero-sum play one shared
baseline mixes two opposite scales, per role and mode (`per_mode`), or per text of several turns (`per_text`); KL can be
a loss term (`k3`) in place of a reward, and its coefficient can be steered. And where all rewards are alike, the
returns are not divided by their std, which is then that of the KL alone.
Everything here works on a list of 1-D float tensors, one per role-turn, one entry per completion token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from medserl.config import KLEstimator, Normalization

KL_CLAMP = 10.0
LEAST_STD = 0.1
"""Rewards, which lie between -1 and 1, count as alike below this std: one turn of 400 that ended otherwise has it."""
MOST_WEIGHT = 3.0
"""How much more than a turn of an even batch one of the rarer mode may count: enough for five games to one."""
KL_ERROR_CLIP, KL_GAIN = 0.2, 0.1

K = TypeVar("K", bound=Hashable)


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, estimator: KLEstimator = "k1") -> Tensor:
    """Per-token estimate of KL(pi || pi_ref), clamped to +-10 (Schulman, "Approximating KL Divergence", 2020).

    k1 = log-ratio, k3 = ratio - 1 - log-ratio of the reference to the policy.
    """
    log_ratio = logprobs - ref_logprobs
    if estimator == "k1":
        kl = log_ratio
    else:
        bounded = log_ratio.clamp(min=-KL_CLAMP)  # below it k3 is clamped in any case, and exp would overflow
        kl = torch.expm1(-bounded) + bounded
    return kl.clamp(-KL_CLAMP, KL_CLAMP)


def token_returns(reward: float, kl: Tensor, kl_coef: float) -> Tensor:
    """Return G_t of every token of one turn: the reward at its last token, less the KL penalty at each. Shape (T,)."""
    rewards = -kl_coef * kl
    rewards[-1] += reward
    return rewards.flip(0).cumsum(0).flip(0)


def whiten(
    returns: Sequence[Tensor], groups: Sequence[Hashable] | None = None, rewards: Sequence[float] | None = None
) -> list[Tensor]:
    """Advantages: returns less their mean, over their standard deviation (population).

    Statistics are over all tokens of all turns, or apart for each group where `groups` names one per turn. `rewards`
    are those of the turns, without the KL; None where there is no KL in the returns.

    The std is OpenRLHF's wherever the rewards vary. Where they are alike, their std over the tokens being below
    `LEAST_STD`, all that varies is the KL penalty, and to divide by its std would make noise of any size count as much
    as winning and losing do. Returns are in units of the reward, and stay so then: they are divided by nothing.
    """
    names = list(groups) if groups is not None else [None] * len(returns)
    pools = _pooled(returns, names)
    scales = _scales(returns, names, rewards)
    return [(row - pools[name].mean()) / scales[name] for row, name in zip(returns, names, strict=True)]


def whiten_per_mode(
    returns: Sequence[Tensor],
    roles: Sequence[str],
    modes: Sequence[str],
    rewards: Sequence[float] | None = None,
    texts: Sequence[str] = (),
) -> list[Tensor]:
    """Advantages with a baseline for each role and mode, both modes of a role counting the same.

    A = w (G - mean of role and mode) / std of role
    w = tokens of role / (modes x tokens of role and mode), at most `MOST_WEIGHT`

    The mode is fixed before a turn is sampled, so its mean is a baseline that biases nothing (Sutton and Barto,
    "Reinforcement Learning", 2nd ed., section 13.4). The weight is a class's in a loss balanced for class size (King
    and Zeng, "Logistic Regression in Rare Events Data", 2001, section 4): where verdicts do not depend on the mode,
    neither verdict gains by how many notes of a mode were accepted. Its bound keeps a few games of a mode that was
    hardly accepted from being the whole update: modes count the same as long as none has less than a sixth of a
    role's tokens (`MOST_WEIGHT` = 3), and beyond that the rarer one counts less.
    With `texts`, what each turn was shown, the turns of a role on one text have their own mean as baseline where there
    are several (GRPO, arXiv 2402.03300): what all of them earn, because the text is easy or a verdict pays, moves
    nothing.
    The std keeps the modes together, so that games of one mode that all ended alike do not have their KL blown up, and
    is that of `whiten`.
    """
    cells = list(zip(roles, modes, strict=True))
    by_role, by_cell = _pooled(returns, roles), _pooled(returns, cells)
    scales = _scales(returns, roles, rewards)
    modes_of = Counter(role for role, _ in by_cell)
    readings = list(zip(roles, texts, strict=True)) if texts else [(role, "") for role in roles]
    several = {each for each, count in Counter(readings).items() if texts and count > 1}
    by_text = _pooled(returns, readings)
    advantages = []
    for row, cell, reading in zip(returns, cells, readings, strict=True):
        role, mine = cell[0], by_cell[cell]
        weight = min(MOST_WEIGHT, len(by_role[role]) / (modes_of[role] * len(mine)))
        baseline = (by_text[reading] if reading in several else mine).mean()
        advantages.append(weight * (row - baseline) / scales[role])
    return advantages


def variance_metrics(
    rewards: Sequence[float], lengths: Sequence[int], roles: Sequence[str], modes: Sequence[str]
) -> dict[str, float]:
    """Where rewards were alike, so that nothing but the KL told a group's turns, of so many tokens, apart.

    `no_variance_<role>` is 1 or 0 of each role that has turns, `no_variance_share` the share of its roles and modes.
    """
    tokens = [torch.full((length,), float(reward)) for reward, length in zip(rewards, lengths, strict=True)]
    cells = _alike(tokens, list(zip(roles, modes, strict=True)))
    figures = {f"no_variance_{role}": float(same) for role, same in _alike(tokens, roles).items()}
    return figures | ({"no_variance_share": sum(cells.values()) / len(cells)} if cells else {})


def _pooled(returns: Sequence[Tensor], names: Sequence[K]) -> dict[K, Tensor]:
    """All tokens of the turns of each name."""
    pools: dict[K, list[Tensor]] = {}
    for row, name in zip(returns, names, strict=True):
        pools.setdefault(name, []).append(row)
    return {name: torch.cat(rows) for name, rows in pools.items()}


def _alike(rewards: Sequence[Tensor], names: Sequence[K]) -> dict[K, bool]:
    """Of each name, whether the rewards of its turns, given at every token, are alike."""
    return {name: _std(pool) < LEAST_STD for name, pool in _pooled(rewards, names).items()}


def _scales(returns: Sequence[Tensor], names: Sequence[K], rewards: Sequence[float] | None) -> dict[K, float]:
    """What the returns of each name are divided by: their std, or 1 where the rewards are alike."""
    if rewards is None:
        at_each_token = list(returns)
    else:
        at_each_token = [torch.full_like(row, reward) for row, reward in zip(returns, rewards, strict=True)]
    alike = _alike(at_each_token, names)
    return {name: 1.0 if alike[name] else max(_std(pool), LEAST_STD) for name, pool in _pooled(returns, names).items()}


def _std(tokens: Tensor) -> float:
    """The population's."""
    return (tokens - tokens.mean()).square().mean().sqrt().item()


def clipped_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_range: float = 0.2
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate per token (arXiv 1707.06347, eq. 7), to be minimised, and where the clip bound it."""
    ratio = torch.exp(logprobs - old_logprobs)
    unclipped = ratio * advantages
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range) * advantages
    return -torch.minimum(unclipped, clipped), (clipped < unclipped)


@dataclass(frozen=True)
class Returns:
    """What a credit scheme may look at: of each turn its tokens' returns, reward, role, mode, and what it was shown."""

    tokens: Sequence[Tensor]
    rewards: Sequence[float]
    roles: Sequence[str]
    modes: Sequence[str]
    texts: Sequence[str]


CREDIT_SCHEMES: Mapping[Normalization, Callable[[Returns], list[Tensor]]] = {
    "global": lambda of: whiten(of.tokens, None, of.rewards),
    "per_role": lambda of: whiten(of.tokens, of.roles, of.rewards),
    "per_mode": lambda of: whiten_per_mode(of.tokens, of.roles, of.modes, of.rewards),
    "per_text": lambda of: whiten_per_mode(of.tokens, of.roles, of.modes, of.rewards, of.texts),
}
"""The one door from returns to advantages: a new scheme is a function here, and a value of the setting."""


@dataclass
class ReinforcePlusPlus:
    """Turns rewards into advantages; the trainer calls it and knows nothing of what is inside.

    `normalization`: `global` or `per_role` whiten over the batch, `per_mode` and `per_text` as `whiten_per_mode` says.
    `kl_target` in nats a token, other than 0, steers `kl_coef` (Ziegler et al., arXiv 1909.08593, section 2.2).
    """

    kl_coef: float = 0.01
    kl_estimator: KLEstimator = "k1"
    normalization: Normalization = "global"
    kl_target: float = 0.0

    def advantages(
        self,
        rewards: Sequence[float],
        logprobs: Sequence[Tensor],
        ref_logprobs: Sequence[Tensor] | None,
        roles: Sequence[str],
        modes: Sequence[str] = (),
        texts: Sequence[str] = (),
    ) -> list[Tensor]:
        """Advantage of every completion token, one 1-D tensor a turn; `ref_logprobs` None means no KL in the reward.

        `roles`, `modes` and `texts`, what a turn was shown, name those of each; `per_mode` and `per_text` alone look at
        the modes, `per_text` alone at the texts.
        """
        if not rewards:
            return []
        returns, kls = [], []
        for i, (reward, old) in enumerate(zip(rewards, logprobs, strict=True)):
            if ref_logprobs is not None and self.kl_estimator == "k1":
                kl = kl_estimate(old, ref_logprobs[i])
            else:
                kl = torch.zeros_like(old)
            returns.append(token_returns(reward, kl, self.kl_coef))
            kls.append(kl)
        if self.kl_target:
            self._steer(torch.cat(kls).mean().item())
        return CREDIT_SCHEMES[self.normalization](Returns(returns, rewards, roles, modes, texts))

    def _steer(self, kl: float) -> None:
        error = min(max(kl / self.kl_target - 1, -KL_ERROR_CLIP), KL_ERROR_CLIP)
        self.kl_coef *= 1 + KL_GAIN * error

    def metrics(self) -> dict[str, float]:
        return {"kl_coef": self.kl_coef}

    def state_dict(self) -> dict[str, Any]:
        return {"kl_coef": self.kl_coef}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.kl_coef = state["kl_coef"]
