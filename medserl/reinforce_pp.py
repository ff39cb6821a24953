"""REINFORCE++ (arXiv 2501.03262): KL in the reward, whitened returns, PPO's clipped loss. No critic, no groups.

    r_t  = 1[t is the last token] R - beta KL_t        KL_t = log pi_old - log pi_ref, clamped to +-10
    G_t  = sum of r from t on (gamma = 1)
    A_t  = (G_t - mean) / std                          over every completion token of the whole batch (see `whiten`)
    loss = -mean_t min(rho_t A_t, clip(rho_t, 1-eps, 1+eps) A_t)     rho_t = exp(log pi - log pi_old)

Where we depart from the paper: the statistics can be taken per role (`per_role`), since in zero-sum play one shared
baseline mixes two opposite scales, or per role and mode (`per_mode`), or be a running mean (`running`); KL can be a
loss term (`k2`, `k3`) in place of a reward, and its coefficient can be steered. And where all rewards are alike, the
returns are not divided by their std, which is then that of the KL alone.
Everything here works on a list of 1-D float tensors, one per role-turn, one entry per completion token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from medserl.config import KLEstimator, Normalization

KL_CLAMP = 10.0
LEAST_STD = 0.1
"""Rewards, which lie between -1 and 1, count as alike below this std: one turn of 400 that ended otherwise has it."""
MOST_WEIGHT = 3.0
"""How much more than a turn of an even batch one of the rarer mode may count: enough for five games to one."""
RUNNING_MEAN_DECAY = 0.95
KL_ERROR_CLIP, KL_GAIN = 0.2, 0.1

K = TypeVar("K", bound=Hashable)


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, estimator: KLEstimator = "k1") -> Tensor:
    """Per-token estimate of KL(pi || pi_ref), clamped to +-10 (Schulman, "Approximating KL Divergence", 2020).

    k1 = log-ratio, k2 = half its square, k3 = ratio - 1 - log-ratio of the reference to the policy.
    """
    log_ratio = logprobs - ref_logprobs
    if estimator == "k1":
        kl = log_ratio
    elif estimator == "k2":
        kl = log_ratio.square() / 2
    else:
        bounded = log_ratio.clamp(min=-KL_CLAMP)  # below it k3 is clamped in any case, and exp would overflow
        kl = torch.expm1(-bounded) + bounded
    return kl.clamp(-KL_CLAMP, KL_CLAMP)


def token_returns(reward: float, kl: Tensor, kl_coef: float, gamma: float = 1.0) -> Tensor:
    """Return G_t of every token of one turn: the reward at its last token, less the KL penalty at each. Shape (T,)."""
    rewards = -kl_coef * kl
    rewards[-1] += reward
    returns = torch.empty_like(rewards)
    running = torch.zeros((), dtype=rewards.dtype)
    for t in range(len(rewards) - 1, -1, -1):
        running = rewards[t] + gamma * running
        returns[t] = running
    return returns


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
    returns: Sequence[Tensor], roles: Sequence[str], modes: Sequence[str], rewards: Sequence[float] | None = None
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
    The std keeps the modes together, so that games of one mode that all ended alike do not have their KL blown up, and
    is that of `whiten`.
    """
    cells = list(zip(roles, modes, strict=True))
    by_role, by_cell = _pooled(returns, roles), _pooled(returns, cells)
    scales = _scales(returns, roles, rewards)
    modes_of = Counter(role for role, _ in by_cell)
    advantages = []
    for row, (role, mode) in zip(returns, cells, strict=True):
        mine = by_cell[role, mode]
        weight = min(MOST_WEIGHT, len(by_role[role]) / (modes_of[role] * len(mine)))
        advantages.append(weight * (row - mine.mean()) / scales[role])
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


@dataclass
class ReinforcePlusPlus:
    """Turns rewards into advantages; the trainer calls it and knows nothing of what is inside.

    `normalization`: `global` or `per_role` whiten over the batch, `per_mode` as `whiten_per_mode` says; `running` takes
    off a role's running mean return of the batches before and leaves the scale alone (role-conditioned advantage
    estimation, SPIRAL, arXiv 2506.24119, section 3.2; we begin at the first batch's mean where they begin at 0).
    `kl_target` in nats a token, other than 0, steers `kl_coef` (Ziegler et al., arXiv 1909.08593, section 2.2).
    """

    kl_coef: float = 0.01
    kl_estimator: KLEstimator = "k1"
    normalization: Normalization = "global"
    kl_target: float = 0.0
    running_means: dict[str, float] = field(default_factory=dict)

    def advantages(
        self,
        rewards: Sequence[float],
        logprobs: Sequence[Tensor],
        ref_logprobs: Sequence[Tensor] | None,
        roles: Sequence[str],
        modes: Sequence[str] = (),
    ) -> list[Tensor]:
        """Advantage of every completion token, one 1-D tensor a turn; `ref_logprobs` None means no KL in the reward.

        `roles` and `modes` name those of each turn; `per_mode` alone looks at the modes.
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
        if self.normalization == "running":
            return self._less_running_mean(returns, roles)
        if self.normalization == "per_mode":
            return whiten_per_mode(returns, roles, modes, rewards)
        return whiten(returns, roles if self.normalization == "per_role" else None, rewards)

    def _less_running_mean(self, returns: Sequence[Tensor], roles: Sequence[str]) -> list[Tensor]:
        """The mean is that of before this batch, whose own returns move it for the next one only."""
        baselines: dict[str, float] = {}
        for role in dict.fromkeys(roles):
            mine = [each[0].item() for each, name in zip(returns, roles, strict=True) if name == role]
            batch_mean = sum(mine) / len(mine)
            before = baselines[role] = self.running_means.get(role, batch_mean)
            self.running_means[role] = RUNNING_MEAN_DECAY * before + (1 - RUNNING_MEAN_DECAY) * batch_mean
        return [each - baselines[role] for each, role in zip(returns, roles, strict=True)]

    def _steer(self, kl: float) -> None:
        error = min(max(kl / self.kl_target - 1, -KL_ERROR_CLIP), KL_ERROR_CLIP)
        self.kl_coef *= 1 + KL_GAIN * error

    def metrics(self) -> dict[str, float]:
        return {"kl_coef": self.kl_coef} | {f"running_mean_{role}": value for role, value in self.running_means.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"kl_coef": self.kl_coef, "running_means": self.running_means}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.kl_coef, self.running_means = state["kl_coef"], dict(state["running_means"])
