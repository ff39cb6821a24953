"""The engine for one process: torch, transformers and PEFT, on CPU, CUDA or MPS.

With LoRA there is one copy of the weights (`engines.adapters`): the policy is an adapter, and the reference is the same
model with the warm-up adapter switched in, or with no adapter where training started from none.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medserl.config import Settings
from medserl.display.progress import PATIENCE, counting
from medserl.engines import decoding
from medserl.engines.adapters import (
    PolicyAdapters,
    inputs_as_they_are,
    multiplying_narrowly,
    narrow_products,
)
from medserl.engines.base import Sampling, UpdateStats, WeightedTurn, split_by_note
from medserl.engines.dropout import without_chance
from medserl.engines.families import examine_family
from medserl.engines.gap import explained_gap
from medserl.engines.packing import PackedRow, batches, pack, turns_of
from medserl.engines.peak_memory import peak_memory_of_process
from medserl.engines.prefixes import PrefixCache
from medserl.engines.reply_probabilities import alternatives, probabilities_by_logprobs, shares
from medserl.engines.scoring import completion_logits
from medserl.errors import RunError
from medserl.game.episode import Completion, Turn
from medserl.game.prompts import Messages
from medserl.game.roles import Role
from medserl.models import LoadedModel, attention_for_training, context_length
from medserl.models.chat import ChatRenderer, check_context, target_turns
from medserl.reinforce_pp import clipped_loss, kl_estimate

log = logging.getLogger("medserl")

ADAM_BETAS = (0.9, 0.95)
OPTIMIZER_FILE = "optimizer.pt"


class LocalEngine:
    """Implements `engines.base.Engine`."""

    scores_replies = True

    def __init__(self, loaded: LoadedModel, settings: Settings) -> None:
        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        self.settings = settings
        self.chat = ChatRenderer(self.tokenizer, settings.thinking)
        self.device = next(self.model.parameters()).device
        self.adapters = PolicyAdapters(self.model) if loaded.has_adapter else None
        self._reference_copy = self._freeze_copy() if not self.adapters and settings.needs_reference else None
        trainable = any(p.requires_grad for p in self.model.parameters())
        self._parameters = self._trained_parameters() if trainable else []
        # A model loaded for judging alone has nothing to train.
        self._optimizer = (
            torch.optim.AdamW(self._parameters, lr=settings.learning_rate, betas=ADAM_BETAS, weight_decay=0.0)
            if self._parameters
            else None
        )
        self._stop_ids = self.chat.stop_ids(self.model.generation_config)
        self._pad_id = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        self.model.eval()
        longest_row = settings.training_token_budget if self._parameters else 0
        self._abilities = examine_family(self.model, self.tokenizer, self._pad_id, longest_row)
        self._prefixes = PrefixCache(settings.generation_token_budget, self._abilities.cuts)
        for told in self._abilities.done_without(training=bool(self._parameters)):
            log.info("%s", told)

    # -- rollout ------------------------------------------------------------------------------------------------

    def generate(self, prompts: Sequence[Messages], sampling: Sampling) -> list[Completion]:
        ids = [self.chat.ids(messages) for messages in prompts]
        check_context(ids, sampling.rooms(len(ids)), self.context)
        written = counting(f"{sampling.role} writes", len(ids), pause=PATIENCE)
        with self._acting(sampling.role) as model, multiplying_narrowly(model), written as count:
            rows = decoding.sample(
                model,
                ids,
                sampling,
                stop_ids=self._stop_ids,
                pad_id=self._pad_id,
                token_budget=self.settings.generation_token_budget,
                prefixes=self._prefixes,
                reader=self._reader(sampling.role),
                free=self._abilities.free,
                finished=count.advance,
            )
        return [self._completion(row) for row in rows]

    def _completion(self, row: decoding.Draft) -> Completion:
        said = row.token_ids[:-1] if row.stopped else row.token_ids
        return Completion(
            text=self.chat.completion_text(said),
            prompt_ids=row.prompt,
            token_ids=tuple(row.token_ids),
            logprobs=tuple(row.logprobs),
            finish="stop" if row.stopped else "length",
        )

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(self.chat.reply_ids(text)) for text in texts]

    def prompt_lengths(self, prompts: Sequence[Messages]) -> list[int]:
        return [self.chat.prompt_length(messages) for messages in prompts]

    @property
    def context(self) -> int | None:
        return context_length(self.model.config)

    # -- scoring ------------------------------------------------------------------------------------------------

    def reply_probabilities(
        self, prompts: Sequence[Messages], replies: Sequence[tuple[str, ...]]
    ) -> list[tuple[float, ...]]:
        choices = [alternatives(self.chat, *each) for each in zip(prompts, replies, strict=True)]
        check_context([choice.context for choice in choices], [choice.room for choice in choices], self.context)
        if not self._abilities.free:
            return probabilities_by_logprobs(self.chat, partial(self.logprobs, temperature=1.0), prompts, replies)
        with multiplying_narrowly(self.model):
            logprobs = decoding.tail_logprobs(
                self.model,
                choices,
                pad_id=self._pad_id,
                token_budget=self.settings.generation_token_budget,
                prefixes=self._prefixes,
                reader=self._reader("assessor"),
            )
        return [shares(each) for each in logprobs]

    @torch.inference_mode()
    def logprobs(
        self, turns: Sequence[Turn], *, reference: bool = False, temperature: float | None = None
    ) -> list[tuple[float, ...]]:
        scores: list[tuple[float, ...]] = [()] * len(turns)
        for rows in self._passes(turns):
            members = turns_of(rows)
            with self._acting(turns[members[0]].role, reference=reference) as model, inputs_as_they_are(model):
                logprobs, _ = self._score(model, rows, entropy=False, temperature=temperature)
            for i, values in zip(members, logprobs, strict=True):
                scores[i] = tuple(values.tolist())
        return scores

    def target_turns(self, role: Role, prompts: Sequence[Messages], replies: Sequence[str]) -> list[Turn]:
        return target_turns(self.chat, role, prompts, replies)

    def _score(
        self, model: Any, rows: Sequence[PackedRow], *, entropy: bool, temperature: float | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Log-probability and (detached) entropy at every completion token: a 1-D tensor a turn, in the rows' order.

        Both are of the distribution at a temperature: the one that games are sampled at, unless another is given.
        """
        with narrow_products(model):
            logits, targets = completion_logits(model, rows, self._pad_id, shared=self._abilities.shares_rows)
        lengths = [len(target) for row in rows for target in row.targets]
        scaled = decoding.at_temperature(logits, temperature or self.settings.temperature)
        logprobs, entropies = [], []
        for mine, said in zip(scaled.split(lengths), targets.split(lengths), strict=True):
            full = mine.log_softmax(-1)
            logprobs.append(full.gather(-1, said[:, None]).squeeze(-1))
            if entropy:
                detached = full.detach()
                entropies.append(-(detached.exp() * detached).sum(-1))
        return logprobs, entropies

    def _passes(self, turns: Sequence[Turn]) -> Iterator[list[PackedRow]]:
        """Rows of one adapter's turns that go through the model together, within the token budget."""
        adapters = [self.adapters.by_role[turn.role] if self.adapters else "" for turn in turns]
        budget = self.settings.training_token_budget
        for adapter in sorted(set(adapters)):
            mine = [i for i, name in enumerate(adapters) if name == adapter]
            completions = [turns[i].completion for i in mine]
            rows = pack(completions, longest=budget, share=self._abilities.shares_rows)
            yield from batches([replace(row, turns=tuple(mine[i] for i in row.turns)) for row in rows], budget)

    def _reader(self, role: Role) -> str:
        """A name for the weights that act: what others have read is nothing to go on from."""
        return self.adapters.by_role[role] if self.adapters else ""

    @contextmanager
    def _acting(self, role: Role, *, reference: bool = False) -> Iterator[Any]:
        """The model that computes as this role of the policy, or as the frozen reference."""
        if self.adapters:
            with self.adapters.acting(role, reference=reference):
                yield self.model
        else:
            yield self._reference_copy if reference else self.model

    def _trained_parameters(self) -> list[torch.nn.Parameter]:
        if self.adapters:
            return self.adapters.parameters()
        return [p for p in self.model.parameters() if p.requires_grad]

    def _freeze_copy(self) -> Any:
        return copy.deepcopy(self.model).requires_grad_(False).eval()

    # -- update -------------------------------------------------------------------------------------------------

    def update(self, turns: Sequence[WeightedTurn], *, learning_rate: float) -> UpdateStats:
        self._prefixes.forget()
        for group in self._adam().param_groups:
            group["lr"] = learning_rate
        mini_batches = split_by_note(turns, self.settings.mini_batches)
        totals = _Totals()
        learning = without_chance(self.model, checkpointing=self.settings.gradient_checkpointing)
        with attention_for_training(self.model), learning, inputs_as_they_are(self.model):
            for step, mini_batch in enumerate(mini_batches):
                self._optimizer_step(mini_batch, totals, first=step == 0)
        self._require_finite_weights("after this update")
        return replace(
            totals.stats(len(mini_batches)),
            gap_explained=explained_gap(str(self.model.dtype).removeprefix("torch.")),
            trained_parameters=sum(parameter.numel() for parameter in self._parameters),
        )

    def _require_finite_weights(self, when: str) -> None:
        """Raises RunError where a trained weight is no number: whatever is computed with it is none either."""
        finite = [torch.isfinite(parameter).all() for parameter in self._parameters]
        if finite and not torch.stack(finite).all():
            raise RunError(f'the weights are not finite {when}; try a lower learning_rate, or dtype = "float32"')

    def _optimizer_step(self, turns: Sequence[WeightedTurn], totals: _Totals, *, first: bool) -> None:
        n_tokens = sum(len(turn.advantages) for turn in turns)
        self._adam().zero_grad(set_to_none=True)
        for rows in self._passes([turn.turn for turn in turns]):
            members = [turns[i] for i in turns_of(rows)]
            with self._acting(members[0].turn.role) as model:
                logprobs, entropies = self._score(model, rows, entropy=True)
                losses = [self._token_losses(*each, totals) for each in zip(logprobs, members, strict=True)]
                for member, token_losses in zip(members, losses, strict=True):
                    if not torch.isfinite(token_losses).all():
                        raise RunError(
                            f"the loss on note {member.note_id} ({member.turn.role}) is not finite; "
                            'try a lower learning_rate, or dtype = "float32"'
                        )
                loss = torch.cat(losses).sum() / n_tokens
                loss.backward()
            totals.add(loss.detach(), logprobs, members, entropies, first)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.settings.max_grad_norm)
        if not torch.isfinite(norm):
            raise RunError('the gradient is not finite; try a lower learning_rate, or dtype = "float32"')
        totals.grad_norms.append(norm.item())
        self._adam().step()

    def _token_losses(self, logprobs: Tensor, turn: WeightedTurn, totals: _Totals) -> Tensor:
        sampled = turn.old_logprobs
        old = logprobs.detach() if sampled is None else torch.tensor(sampled, device=self.device)
        advantages = torch.tensor(turn.advantages, device=self.device)
        losses, clipped = clipped_loss(logprobs, old, advantages, self.settings.clip_range)
        totals.clipped += int(clipped.sum())
        if self.settings.kl_estimator != "k1" and turn.ref_logprobs is not None:
            reference = torch.tensor(turn.ref_logprobs, device=self.device)
            losses = losses + self.settings.kl_coef * kl_estimate(logprobs, reference, self.settings.kl_estimator)
        return losses

    def _adam(self) -> torch.optim.AdamW:
        if self._optimizer is None:
            raise RunError("this model was loaded for judging, not for training: none of its weights can change")
        return self._optimizer

    def sync(self) -> None:
        """Nothing to do: rollouts read the very weights that are trained."""

    # -- disk ---------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        if self.adapters:
            self.adapters.save(folder)
        else:
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        torch.save(self._adam().state_dict(), folder / OPTIMIZER_FILE)

    def load(self, folder: Path) -> None:
        self._prefixes.forget()
        if self.adapters:
            self.adapters.load(folder)
        else:
            fresh = type(self.model).from_pretrained(folder, dtype=self.model.dtype)
            self.model.load_state_dict(fresh.state_dict())
        state = torch.load(folder / OPTIMIZER_FILE, weights_only=True, map_location=self.device)
        self._adam().load_state_dict(state)
        self._require_finite_weights(f"in {folder}")

    def peak_memory_bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return peak_memory_of_process()

    def close(self) -> None:
        """Nothing is held outside this process."""


class _Totals:
    """Sums over the micro-batches of one update."""

    def __init__(self) -> None:
        self.loss = self.gap = self.gap_signed = self.gap_squares = self.gap_max = self.entropy = 0.0
        self.sft_loss = 0.0
        self.clipped = self.tokens = self.gap_tokens = self.sft_tokens = 0
        self.grad_norms: list[float] = []

    def add(
        self,
        loss: Tensor,
        logprobs: Sequence[Tensor],
        turns: Sequence[WeightedTurn],
        entropies: Sequence[Tensor],
        first: bool,
    ) -> None:
        self.loss += loss.item()
        self.entropy += sum(entropy.sum().item() for entropy in entropies)
        self.tokens += sum(len(turn.advantages) for turn in turns)
        for new, turn in zip(logprobs, turns, strict=True):
            if turn.old_logprobs is None:
                self.sft_loss -= new.detach().sum().item()
                self.sft_tokens += len(new)
            elif first:
                sampled = torch.tensor(turn.turn.completion.logprobs, device=new.device)
                signed = sampled - new.detach()
                apart = signed.abs()
                self.gap += apart.sum().item()
                self.gap_signed += signed.sum().item()
                self.gap_squares += apart.square().sum().item()
                self.gap_max = max(self.gap_max, apart.max().item())
                self.gap_tokens += len(sampled)

    def stats(self, steps: int) -> UpdateStats:
        return UpdateStats(
            loss=self.loss / steps,
            grad_norm=sum(self.grad_norms) / steps,
            clip_fraction=self.clipped / self.tokens,
            entropy=self.entropy / self.tokens,
            logprob_gap=self.gap / self.gap_tokens if self.gap_tokens else 0.0,
            logprob_gap_rms=math.sqrt(self.gap_squares / self.gap_tokens) if self.gap_tokens else 0.0,
            logprob_gap_max=self.gap_max,
            logprob_gap_mean=self.gap_signed / self.gap_tokens if self.gap_tokens else 0.0,
            optimizer_steps=steps,
            tokens=self.tokens,
            sft_loss=self.sft_loss / self.sft_tokens if self.sft_tokens else None,
        )
