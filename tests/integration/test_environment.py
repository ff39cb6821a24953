"""The game as an environment of verifiers, played over HTTP with a scripted model on this machine."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from medserl.data.given import given_notes
from medserl.data.writing import note_lines
from medserl.errors import ConfigError, DataError
from medserl.game.prompts import load_prompts

TEXTS = ["A man has a cough. His right lung is dull.", "A woman has a rash. It is on her right arm."]
WRONG = "1 His left lung is dull."

Said = Callable[[str], str]


def test_without_verifiers_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['verifiers'] = None\nimport medserl.environment"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ConfigError: medserl.environment needs verifiers: pip install 'medserl[verifiers]'" in done.stderr


class Model:
    """An OpenAI-like endpoint whose answers follow from the last message; it keeps what it was sent."""

    def __init__(self, say: Said) -> None:
        self.say = say
        self.asked: list[dict[str, Any]] = []
        self.finish = "stop"

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body)
        message = {"role": "assistant", "content": self.say(body["messages"][-1]["content"])}
        return {
            "id": "x", "object": "chat.completion", "created": 0, "model": body["model"],
            "choices": [{"index": 0, "finish_reason": self.finish, "message": message}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }  # fmt: skip


@contextmanager
def serving(model: Model) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            answer = json.dumps(model.answer(body)).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Nothing on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def environment() -> Any:
    pytest.importorskip("verifiers", reason="verifiers is not installed: pip install 'medserl[verifiers]'")
    import medserl.environment

    return medserl.environment


@pytest.fixture
def notes(tmp_path: Path) -> str:
    path = tmp_path / "notes.jsonl"
    path.write_text(note_lines(given_notes(TEXTS).notes), encoding="utf-8")
    return str(path)


def play(env: Any, model: Model, mode: str = "error", note: str = "note-1") -> Any:
    """One episode of the game on that note."""
    import verifiers.v1 as vf

    task = next(task for task in env.taskset if task.data.id == f"{note}/{mode}")

    async def episode(url: str) -> Any:
        client = vf.EvalClientConfig(base_url=url, api_key_var="NO_SUCH_KEY")
        async with env.serving():
            return await env.run_episode(task, vf.ModelContext(model="policy", client=client))

    with serving(model) as url:
        return asyncio.run(episode(url))


def scripted(*injections: str, verdict: str = "CORRECT") -> Said:
    """Injections in turn, and as Assessor always that verdict."""
    rest = iter(injections)
    return lambda asked: f"final_answer: {verdict}" if "final_answer" in asked else next(rest)


def test_a_game_is_retried_without_a_word_of_why_and_pays_each_role(environment: Any, notes: str) -> None:
    """Two attempts are rejected, the third is accepted, and the Assessor is fooled."""
    model = Model(scripted("I would rather not.", f"{TEXTS[0]} and more", WRONG))
    env = environment.load_environment(prompt_data=notes)
    episode = play(env, model)
    assert episode.ok, episode.errors
    assert [trace.agent.name for trace in episode.traces] == ["injector"] * 3 + ["assessor"]
    assert [trace.agent.trainable for trace in episode.traces] == [False, False, True, True]
    assert [dict(trace.rewards) == {} for trace in episode.traces] == [True, True, False, False]
    assert [trace.reward for trace in episode.traces] == [0, 0, 1.0, -1.0]
    facts = [trace.info["medserl"] for trace in episode.traces]
    assert [fact.get("reason") for fact in facts[:3]] == ["format", "format", None]
    assert facts[3] == {"role": "assessor", "mode": "error", "verdict": "CORRECT"}
    asked = [body["messages"] for body in model.asked]
    prompts = load_prompts("term", "edit")
    (task,) = [task for task in env.taskset if task.data.id == "note-1/error"]
    assert asked[:3] == [list(prompts.injector(TEXTS[0], "error", task.data.error_type))] * 3
    assert asked[3] == list(prompts.assessor(TEXTS[0].replace("right", "left")))


def test_every_cell_of_the_rewards(environment: Any, notes: str) -> None:
    """Over every game that has a verdict the two sum to zero; without one nobody has won."""
    env = environment.load_environment(prompt_data=notes, edit_audit="off")
    for mode, verdict, injector, assessor in (
        ("error", "INCORRECT", -1, 1),
        ("error", "CORRECT", 1, -1),
        ("benign", "CORRECT", -1, 1),
        ("benign", "INCORRECT", 1, -1),
        ("error", "perhaps", None, -1),
    ):
        traces = play(env, Model(scripted(WRONG, verdict=verdict)), mode).traces
        got = [trace.reward if trace.agent.trainable else None for trace in traces]
        assert got == [injector, assessor], (mode, verdict)
    traces = play(env, Model(scripted("no", "no", "no"))).traces
    assert [trace.agent.trainable for trace in traces] == [False] * 3


def test_an_answer_that_was_cut_off_is_none(environment: Any, notes: str) -> None:
    model = Model(scripted(WRONG, WRONG))
    model.finish = "length"
    traces = play(environment.load_environment(prompt_data=notes, vcf_max_attempts=2), model).traces
    assert [trace.info["medserl"]["reason"] for trace in traces] == ["truncated", "truncated"]


def test_one_role_alone_is_trained(environment: Any, notes: str) -> None:
    for role in ("injector", "assessor"):
        env = environment.load_environment(role, prompt_data=notes)
        for trace in play(env, Model(scripted(WRONG))).traces:
            mine = trace.agent.name == role
            assert trace.agent.trainable is mine and bool(trace.rewards) is mine
            assert trace.metrics["game_reward"] == {"injector": 1, "assessor": -1}[trace.agent.name]


def test_a_rejected_attempt_earns_nothing_and_several_may_read(environment: Any, notes: str) -> None:
    env = environment.load_environment(prompt_data=notes, assessor_samples=2, assessor_reward="correction")
    verdicts = iter(["CORRECT", "INCORRECT"])
    rest = iter(["no", WRONG])
    said = Model(lambda asked: f"final_answer: {next(verdicts)}" if "final_answer" in asked else next(rest))
    assert [trace.reward for trace in play(env, said).traces] == [0.0, 0.5, -1.0, 0.0]


def test_each_note_is_a_game_in_either_mode_and_verifiers_finds_it_by_its_name(environment: Any, notes: str) -> None:
    from verifiers.v1.utils.loaders import load_environment, resolve_env_config

    config = {"taskset": {"id": "medserl-game", "data": {"prompt_data": notes, "seed": 3}}, "role": "assessor"}
    env = load_environment(resolve_env_config(config))
    assert type(env) is environment.MedSeRLEnv and env.config.role == "assessor"
    ids = [task.data.id for task in env.taskset]
    assert sorted(ids) == ["note-1/benign", "note-1/error", "note-2/benign", "note-2/error"]
    assert all(agent.runtime.type == "subprocess" for agent in (env.config.injector, env.config.assessor))


def test_what_is_no_rule_of_the_game_is_refused(environment: Any, notes: str) -> None:
    for settings, message in (
        ({"vcf_max_attempt": 2}, "unknown setting 'vcf_max_attempt'; did you mean 'vcf_max_attempts'"),
        ({"learning_rate": 1e-5}, "learning_rate is a setting of the trainer"),
        ({"vcf_max_attempts": 0}, "vcf_max_attempts"),
        ({"role": "judge"}, "role"),
        ({"injector": {"modle": "x"}}, "modle"),
        ({"prompts": "missing.toml"}, "no file 'missing.toml'"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            environment.load_environment(**settings)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="nothing is held out"):
        list(environment.load_environment(split="validation", prompt_data=notes).taskset)
