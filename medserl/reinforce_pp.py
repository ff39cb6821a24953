"""REINFORCE++ (arXiv 2501.03262): KL in the reward, whitened returns, PPO's clipped loss. No critic, no groups.

    r_t  = 1[t is the last token] R - beta KL_t        KL_t = log pi_old - log pi_ref, clamped to +-10
    G_t  = sum of r from t on (gamma = 1)
    A_t  = (G_t - mean) / std                          over every completion token of the whole batch
    loss = -mean_t min(rho_t A_t, clip(rho_t, 1-eps, 1+eps) A_t)     rho_t = exp(log pi - log pi_old)

Where we depart from the paper: the statistics can be taken per role (`per_role`), since in zero-sum play one shared
baseline mixes two opposite scales; and KL can be a loss term (`k2`, `k3`) in place of a reward.
Everything here works on a list of 1-D float tensors, one per role-turn, one entry per completion token.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

KL_CLAMP = 10.0
VARIANCE_FLOOR = 1e-8

KLEstimator = Literal["k1", "k2", "k3"]


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
        kl = torch.expm1(-log_ratio) + log_ratio
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


def whiten(returns: Sequence[Tensor], groups: Sequence[Hashable] | None = None) -> list[Tensor]:
    """Advantages: returns less their mean, over their standard deviation (population, variance floor 1e-8).

    Statistics are over all tokens of all turns, or apart for each group where `groups` names one per turn.
    """
    names = list(groups) if groups is not None else [None] * len(returns)
    advantages: dict[int, Tensor] = {}
    for name in dict.fromkeys(names):
        members = [i for i, group in enumerate(names) if group == name]
        tokens = torch.cat([returns[i] for i in members])
        mean = tokens.mean()
        scale = (tokens - mean).square().mean().clamp(min=VARIANCE_FLOOR).rsqrt()
        for i in members:
            advantages[i] = (returns[i] - mean) * scale
    return [advantages[i] for i in range(len(returns))]


def clipped_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_range: float = 0.2
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate per token (arXiv 1707.06347, eq. 7), to be minimised, and where the clip bound it."""
    ratio = torch.exp(logprobs - old_logprobs)
    unclipped = ratio * advantages
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range) * advantages
    return -torch.minimum(unclipped, clipped), (clipped < unclipped)


@dataclass(frozen=True)
class ReinforcePlusPlus:
    """Turns rewards into advantages; the trainer calls it and knows nothing of what is inside."""

    kl_coef: float = 0.01
    kl_estimator: KLEstimator = "k1"
    normalization: Literal["global", "per_role"] = "global"

    def advantages(
        self,
        rewards: Sequence[float],
        logprobs: Sequence[Tensor],
        ref_logprobs: Sequence[Tensor] | None,
        roles: Sequence[Hashable],
    ) -> list[Tensor]:
        """Advantage of every completion token, one 1-D tensor a turn; `ref_logprobs` None means no KL in the reward."""
        returns = []
        for i, (reward, old) in enumerate(zip(rewards, logprobs, strict=True)):
            if ref_logprobs is not None and self.kl_estimator == "k1":
                kl = kl_estimate(old, ref_logprobs[i])
            else:
                kl = torch.zeros_like(old)
            returns.append(token_returns(reward, kl, self.kl_coef))
        return whiten(returns, roles if self.normalization == "per_role" else None)
