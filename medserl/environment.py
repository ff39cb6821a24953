"""The game as an environment of `verifiers`: prime-rl and other trainers that take such environments can train on it.

    from medserl.environment import load_environment

    env = load_environment(prompt_data="notes.csv", vcf_max_attempts=3)

Needs `pip install 'medserl[verifiers]'` (verifiers 0.4). By verifiers' own commands and configuration files it is the
taskset `medserl-game`: `[env] taskset = {id = "medserl-game"}`, with the settings below `env.game` and
`env.taskset.data`.

**A game** is one episode. A task is a note with its mode. The agent `injector` is run on it up to `vcf_max_attempts`
times, each time with the same prompt and without being told why an attempt was rejected; then the agent `assessor` is
run on the accepted note alone. Both are the run's own model where nothing else is pinned, so one policy plays both
roles. Prompts, parsing, VCF, audit and rewards are those of `medserl.game`.

**What the library can express, and what not.** It gives one reward to each run of an agent, here to each role-turn,
and an episode holds all of them. So the game's rewards go where they belong: +1 to one role and -1 to the other, each
on its own trace under the name `game`, and a trace that is no sample (a rejected attempt, the Injector of a game
without a verdict) is marked as one that is not trained on. Not expressed here, because it is the trainer's:

- *The baseline.* An advantage must compare a turn with turns of its own role, better of its own mode too: group by
  `trace.agent.name` and `trace.info["medserl"]["mode"]`. A baseline over a whole episode, or over all turns of a task,
  mixes +1 with -1.
- *One figure an episode.* Whatever adds up an episode's rewards sees 0 in every game that has a verdict. A trainer that
  knows only one reward an episode can train one role alone: `role="assessor"` or `role="injector"`. The other role is
  then played all the same, by the run's model or a pinned one, its traces are not trained on and have no reward; its
  reward is a metric.
- KL, clipping, gold pairs and the auxiliary SFT loss: MedSeRL's own trainer has these.

**Privacy.** Each turn is one request, sent from this process: no sandbox is rented and no program is started. Notes go
to the model's endpoint alone, so name your own; verifiers' default is a hosted one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from medserl.config import DataSettings, GameSettings, TeachingSettings, check_names, explicit_settings
from medserl.data.sources import run_data
from medserl.errors import ConfigError, DataError
from medserl.game.episode import Attempt, Completion, Episode, Turn
from medserl.game.prompts import Messages, load_prompts
from medserl.game.referee import judge_attempt, settle
from medserl.game.rewards import AssessorReward
from medserl.game.roles import ROLES, Mode, Role
from medserl.knowledge.audit import audit
from medserl.rounds.sampler import FreshBatchSampler

try:
    import httpx
    import verifiers.v1 as vf
except ImportError as error:
    raise ConfigError(f"medserl.environment needs verifiers: pip install 'medserl[verifiers]' ({error})") from error

__all__ = ["ChatHarness", "MedSeRLEnv", "MedSeRLEnvConfig", "MedSeRLTaskset", "load_environment"]

PLUGIN = "medserl-game"
"""What verifiers calls the taskset and the harness: it imports the module `medserl_game`."""

TURN_INFO = "medserl"
"""Where a trace's `info` says which turn of the game it is."""


# -- tasks --------------------------------------------------------------------------------------------------------


class GameData(vf.TaskData):
    """A game before it is played: the correct note, the mode, and in error mode the type of error to make."""

    original: str
    mode: Mode
    error_type: str | None = None


class GameTask(vf.Task[GameData]):
    """One game. Its rewards are the environment's: they follow from both roles."""


class MedSeRLTasksetConfig(vf.TasksetConfig):
    """Whose notes are played on."""

    data: DataSettings = DataSettings()
    split: Literal["train", "validation"] = "train"
    """The training notes, or those that are held out of them (`validation_data`)."""


class MedSeRLTaskset(vf.Taskset[GameTask, MedSeRLTasksetConfig]):
    """Every note of the split in both modes: two epochs of our own order, any stretch of it half and half."""

    def load(self) -> Iterator[GameTask]:
        settings = explicit_settings(None, self.config.data.model_dump())
        data = run_data(settings)
        loaded = data.train if self.config.split == "train" else data.validation
        if loaded is None:
            raise DataError(f"split {self.config.split!r}: nothing is held out of {settings.prompt_data}")
        notes = [note for note in loaded.notes if note.correct_note is not None]
        sampler = FreshBatchSampler(notes, len(notes), settings.seed)
        for epoch in range(2):
            for game in sampler.next_batch():
                yield GameTask(
                    GameData(
                        id=f"{game.note.note_id}/{game.mode}",
                        name=f"{game.note.note_id} ({game.mode}, epoch {epoch})",
                        original=game.original,
                        mode=game.mode,
                        error_type=game.error_type,
                    ),
                    self.config.task,
                )


# -- one turn -----------------------------------------------------------------------------------------------------


class ChatHarness(vf.Harness[vf.HarnessConfig]):
    """One request with the turn's messages, and its answer: a role of the game has no tools and no second turn."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        system, prompt = self.resolve_prompt(data)
        opening = [vf.UserMessage(content=prompt)] if isinstance(prompt, str) else list(prompt or ())
        messages = [*([vf.SystemMessage(content=system)] if system else []), *opening]
        async with httpx.AsyncClient(timeout=None) as client:  # the agent's own timeout bounds it
            answer = await client.post(
                f"{endpoint}/chat/completions",
                headers={"Authorization": f"Bearer {secret}"},
                json={"model": ctx.model, "messages": [each.model_dump(exclude_none=True) for each in messages]},
            )
        failed = answer.status_code >= 400
        return vf.ProgramResult(exit_code=int(failed), stdout="", stderr=answer.text if failed else "")


# -- the game -----------------------------------------------------------------------------------------------------


def _seat() -> vf.AgentConfig:
    """One request on this machine; the harness is the taskset's."""
    return vf.AgentConfig(runtime=vf.SubprocessConfig(), max_turns=1)


class MedSeRLEnvConfig(vf.EnvConfig):
    """The two roles, whose turns are trained on, and the rules of the game."""

    injector: vf.AgentConfig = _seat()
    assessor: vf.AgentConfig = _seat()
    role: Literal["both", "injector", "assessor"] = "both"
    """Whose turns are trained on; the other role is played all the same."""
    game: GameSettings = GameSettings()
    assessor_samples: int = TeachingSettings.model_fields["assessor_samples"].default
    """Assessor turns on each accepted note."""
    assessor_reward: AssessorReward = TeachingSettings.model_fields["assessor_reward"].default
    """verdict, or correction: the words that should stand there count as much."""


class MedSeRLEnv(vf.Env[MedSeRLEnvConfig]):
    """Plays a task as the module says; see there for what stands on which trace."""

    def __init__(self, config: MedSeRLEnvConfig) -> None:
        super().__init__(config)
        rules = config.game
        self.prompts = load_prompts(rules.prompts, rules.injector_format)

    async def setup(self, agents: vf.Agents) -> None:
        for role in ROLES:
            getattr(agents, role).trainable = self.config.role in ("both", role)

    async def run(self, task: GameTask, agents: vf.Agents) -> None:
        """One game. A turn that failed ends it without rewards: verifiers may then play it again."""
        data, rules = task.data, self.config.game
        traces: dict[int, vf.Trace] = {}

        async def turn(role: Role, messages: Messages) -> Turn | None:
            trace = await getattr(agents, role).run(_asking(task, messages))
            if not trace.ok:
                return None
            made = Turn(role, messages, _completion(trace))
            traces[id(made)] = trace
            return made

        attempts: list[Attempt] = []
        prompt = self.prompts.injector(data.original, data.mode, data.error_type)
        while len(attempts) < rules.vcf_max_attempts and not (attempts and attempts[-1].vcf.passed):
            tried = await turn("injector", prompt)
            if tried is None:
                return
            attempts.append(judge_attempt(tried, data.original, data.mode, self.prompts.form, rules, audit))
        episode = Episode(data.id or "", data.original, data.mode, data.error_type, tuple(attempts))
        if episode.modified is not None:
            readings = []
            for _ in range(self.config.assessor_samples):
                read = await turn("assessor", self.prompts.assessor(episode.modified))
                if read is None:
                    return
                readings.append(read)
            episode = settle(episode, readings, self.config.assessor_reward)
        self._record(episode, traces)

    def _record(self, episode: Episode, traces: Mapping[int, vf.Trace]) -> None:
        """Each turn's reward, facts and metrics, on its own trace."""
        rewards = {id(each.turn): each.reward for each in episode.samples()}
        for number, attempt in enumerate(episode.attempts, start=1):
            trace = traces[id(attempt.turn)]
            trace.record_metric("accepted", attempt.vcf.passed)
            trace.info[TURN_INFO] = {
                "role": "injector", "mode": episode.mode, "attempt": number,
                "reason": attempt.vcf.reason and attempt.vcf.reason.value,
                "modified": attempt.modified,
            }  # fmt: skip
        for reading in episode.assessor_turns:
            trace = traces[id(reading)]
            trace.record_metric("verdict_given", reading.verdict is not None)
            trace.info[TURN_INFO] = {"role": "assessor", "mode": episode.mode, "verdict": reading.verdict}
        for key, trace in traces.items():
            if key not in rewards:
                trace.agent.trainable = False  # no sample: not won, not lost
            elif trace.agent.trainable:
                trace.record_reward("game", rewards[key])
            if key in rewards:
                trace.record_metric("game_reward", rewards[key])


def _asking(task: GameTask, messages: Messages) -> vf.Task:
    """What an agent is run on: the turn's messages, and nothing else of the game."""
    kinds = {"system": vf.SystemMessage, "user": vf.UserMessage}
    prompt = [kinds[message["role"]](content=message["content"]) for message in messages]
    return vf.Task(vf.TaskData(idx=task.data.idx, id=task.data.id, name=task.data.name, prompt=prompt))


def _completion(trace: vf.Trace) -> Completion:
    """What was written, and whether it was cut off. Its tokens are the trace's."""
    cut = bool(trace.calls) and trace.calls[-1].finish_reason == "length"
    return Completion(trace.last_reply, (), (), (), "length" if cut else "stop")


# -- the door -----------------------------------------------------------------------------------------------------

_OF_THE_GAME, _OF_THE_NOTES = set(GameSettings.model_fields), set(DataSettings.model_fields)
_OF_THE_TURNS = {"assessor_samples", "assessor_reward"}


def load_environment(
    role: Literal["both", "injector", "assessor"] = "both",
    split: Literal["train", "validation"] = "train",
    *,
    injector: Mapping[str, Any] | None = None,
    assessor: Mapping[str, Any] | None = None,
    **settings: Any,
) -> MedSeRLEnv:
    """The game over a file of notes, by default the sample's.

    Args:
        role: Whose turns are trained on. With one role alone the other's turns have no reward.
        split: The training notes, or those held out of them.
        injector: Fields of verifiers' `AgentConfig` for this role: another model, client or sampling.
        assessor: Likewise.
        settings: MedSeRL's settings of data and game by name, such as `prompt_data`, `prompts`, `vcf_max_attempts` or
            `edit_audit`, and `assessor_samples` and `assessor_reward`.

    Returns:
        A `verifiers.v1.Env`: its `taskset` yields the games, two a note.

    Raises:
        ConfigError: a setting is unknown, cannot be used, or is the trainer's and not the game's.
        DataError: the notes cannot be used (when the taskset is read).
    """
    check_names(settings, "load_environment")
    foreign = sorted(settings.keys() - _OF_THE_GAME - _OF_THE_NOTES - _OF_THE_TURNS)
    if foreign:
        raise ConfigError(f"load_environment: {foreign[0]} is a setting of the trainer, and no rule of the game")
    checked = explicit_settings(None, settings).model_dump()
    values = {name: checked[name] for name in settings}
    config = {
        "taskset": {"id": PLUGIN, "split": split, "data": {k: v for k, v in values.items() if k in _OF_THE_NOTES}},
        "game": {k: v for k, v in values.items() if k in _OF_THE_GAME},
        "role": role,
        **{k: v for k, v in values.items() if k in _OF_THE_TURNS},
        **({"injector": dict(injector)} if injector else {}),
        **({"assessor": dict(assessor)} if assessor else {}),
    }
    try:
        return MedSeRLEnv(MedSeRLEnvConfig.model_validate(config))
    except ValueError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ConfigError(f"load_environment: {': '.join(lines[1:3]) or lines[0]}") from None
