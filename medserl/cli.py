"""The commands of `medserl`, their flags, and how they end. They import what they need when they run."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from cyclopts import App, CycloptsError, Group, Parameter, UnknownOptionError, UnusedCliTokensError
from pydantic import ValidationError, create_model

from medserl import __version__
from medserl.config import SECTIONS, Settings, describe
from medserl.config.precedence import SOURCES, concerns, said_in
from medserl.config.removed import gone
from medserl.display.console import BROKEN_PIPE, complain, console, errors, say, set_up_logging
from medserl.display.progress import end_display
from medserl.errors import ConfigError, MedSeRLError
from medserl.evaluation.options import EvaluationOptions
from medserl.pipeline import Pipeline, PipelineOptions
from medserl.prediction.options import PredictOptions
from medserl.serve.options import ServeOptions

app = App(
    name="medserl",
    version=__version__,
    help="Self-play reinforcement learning for medical error detection in clinical notes. Not a medical device.",
    console=console,
    error_console=errors,
    help_format="plaintext",
)
data_app = App(name="data", help="Get and convert data.")
app.command(data_app)


def _flags(command: str) -> Any:
    """The settings as flags of a command: grouped by section; those that it does not read are not shown."""
    fields: dict[str, Any] = {}
    for number, section in enumerate(SECTIONS):
        group = Group(str(section.__doc__), sort_key=number + 1)
        for name, field in section.model_fields.items():
            flag = Parameter(group=group, show=concerns(command, name))
            fields[name] = (Annotated[field.annotation, flag], copy.copy(field))
    return Annotated[create_model("Settings", __base__=Settings, **fields) | None, Parameter(name="*")]


if TYPE_CHECKING:
    TrainFlags: TypeAlias = Settings | None
    WarmUpFlags: TypeAlias = Settings | None
    EvaluateFlags: TypeAlias = Settings | None
    PlayFlags: TypeAlias = Settings | None
    PredictFlags: TypeAlias = Settings | None
    ServeFlags: TypeAlias = Settings | None
else:
    TrainFlags, WarmUpFlags, EvaluateFlags, PlayFlags, PredictFlags, ServeFlags = map(
        _flags, ("train", "sft", "evaluate", "play", "predict", "serve")
    )


@app.command(config=SOURCES)
def train(*, settings: TrainFlags = None, config: Path | None = None, dry_run: bool = False) -> None:
    """Play the game online and learn from it: Injector, VCF, Assessor, REINFORCE++, round after round.

    Args:
        config: TOML file of settings.
        dry_run: Say what memory training takes here, and stop: no weight is read or downloaded.
    """
    from medserl.commands import tell_memory
    from medserl.commands import train as run

    (tell_memory if dry_run else run)(settings or Settings())


@app.command(config=SOURCES)
def sft(
    *,
    settings: WarmUpFlags = None,
    output: Path = Path("outputs/warmup"),
    epochs: int = 4,
    steps: int | None = None,
    batch_size: int = 16,
    sft_learning_rate: float = 1e-3,
    measure: int = 64,
    config: Path | None = None,
) -> None:
    """Teach a model both roles from pairs of notes, before it plays; saves a LoRA adapter.

    Args:
        output: Folder of the adapter.
        epochs: Passes over the pairs; the best one on validation pairs is kept.
        steps: Optimizer steps, if that is sooner.
        batch_size: Pairs a step.
        sft_learning_rate: Peak learning rate.
        measure: Validation notes that the model is tried on after each epoch; 0 for none.
        config: TOML file of settings.
    """
    from medserl.commands import warm_up as run
    from medserl.sft import WarmUp

    run(settings or Settings(), WarmUp(epochs, batch_size, sft_learning_rate, steps), output, measure)


@app.command(config=SOURCES)
def evaluate(
    *,
    settings: EvaluateFlags = None,
    options: Annotated[EvaluationOptions | None, Parameter(name="*")] = None,
    config: Path | None = None,
) -> None:
    """Judge labelled notes with one or several systems, side by side, and score them as MEDEC's shared task does.

    Args:
        config: TOML file of settings.
    """
    from medserl.commands import evaluate as judge

    judge(settings or Settings(), options or EvaluationOptions())


@app.command(config=SOURCES)
def predict(
    notes: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    options: Annotated[PredictOptions | None, Parameter(name="*")] = None,
    settings: PredictFlags = None,
    config: Path | None = None,
) -> None:
    """Judge notes without labels: which are suspicious, which sentence it is, and what it should say.

    Args:
        notes: File or folder of notes, sample (the embedded test set), or - for standard input.
        config: TOML file of settings.
    """
    from medserl.prediction.command import predict_notes

    predict_notes(settings or Settings(), notes, options or PredictOptions())


@app.command(config=SOURCES)
def pipeline(
    *,
    options: Annotated[PipelineOptions | None, Parameter(name="*")] = None,
    settings: TrainFlags = None,
    config: Path | None = None,
) -> None:
    """Warm up where it is needed, train, evaluate before and after, write the report: all with the same settings.

    Args:
        config: TOML file of settings.
    """
    Pipeline(settings or Settings(), options or PipelineOptions()).play()


@app.command
def seeds(evaluations: list[Path], /, *, output: Path = Path("outputs/seeds")) -> None:
    """Put evaluations of runs that differ in their seed into one table: means over the seeds, with 95 % intervals.

    Args:
        evaluations: Folders of evaluations, or of runs that have one.
        output: Folder of the tables.
    """
    from medserl.display.markdown import say_markdown
    from medserl.evaluation.seeds import write_seeds

    if output.resolve() in {folder.resolve() for given in evaluations for folder in (given, given / "eval")}:
        raise ConfigError(f"--output {output}: that is one of the evaluations; name another folder")
    say_markdown(write_seeds(evaluations, output))
    say(f"tables: {output}")


@app.command(config=SOURCES)
def play(
    *,
    settings: PlayFlags = None,
    note: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    mode: str = "error",
    run: Path | None = None,
    config: Path | None = None,
) -> None:
    """Play one game on a note and show it: the edit, the VCF's decision, the Assessor's words, who won.

    Args:
        note: Text file with one correct note, or - for standard input; default a sample note.
        mode: error or benign.
        run: Play with the newest checkpoint of this run.
        config: TOML file of settings.
    """
    from medserl.commands import play as show

    show(settings or Settings(), note, mode, run)


@app.command(config=SOURCES)
def serve(
    *,
    settings: ServeFlags = None,
    options: Annotated[ServeOptions | None, Parameter(name="*")] = None,
    config: Path | None = None,
) -> None:
    """Review notes in a browser: what the model found, your decisions, a game on a note; not a medical device.

    Args:
        config: TOML file of settings.
    """
    from medserl.serve.server import serve as run

    run(settings or Settings(), options or ServeOptions())


@app.command
def report(run: Path, *, output: Path | None = None, without_notes: bool = False) -> None:
    """Write the HTML report of a run.

    Args:
        run: Run folder.
        output: File to write; default RUN/report.html, or RUN/report_without_notes.html.
        without_notes: Leave out the games, the notes' ids and folders, so that the report can be handed on.
    """
    from medserl.reports.html import write_report

    if output and output.is_file() and output.suffix not in (".html", ".htm"):
        raise ConfigError(f"--output {output}: a file of another kind is there; name one that ends in .html")
    say(f"report: {write_report(run, output, with_notes=not without_notes)}")


@app.command
def export(
    source: Path,
    output: Path,
    /,
    *,
    merged: bool = False,
    role: Literal["assessor", "injector"] | None = None,
    checkpoint: Literal["trained", "best"] = "trained",
    model: str | None = None,
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto",
    push_to_hub: str | None = None,
) -> None:
    """Write a trained model as a folder for others: transformers, PEFT, vLLM, llama.cpp's converter. With its card.

    Args:
        source: Run, checkpoint, or folder of an adapter.
        output: Folder to write.
        merged: The whole model, the adapter merged into its weights, in place of the adapter.
        role: Whose adapter and prompt, of a run with an adapter for each role.
        checkpoint: Of a run: trained (the newest) or best (on its validation notes).
        model: Base model, where it does not lie where it was trained from.
        dtype: Type of merged weights; auto is the base model's own.
        push_to_hub: Upload to this repository (owner/name) of the Hugging Face hub, private at first.
    """
    from medserl.sharing.export import export as write

    write(
        source,
        output,
        merged=merged,
        role=role,
        checkpoint=checkpoint,
        model=model,
        dtype=dtype,
        push_to_hub=push_to_hub,
    )


@data_app.command
def medec(*, source: Path | None = None, output: Path = Path("data")) -> None:
    """Turn MEDEC's published CSV files into medec_train / medec_validation / medec_test.jsonl.

    Args:
        source: Folder of the CSV files; without it the MS files are fetched from the dataset's public repository.
        output: Folder to write to.
    """
    from medserl.commands import medec as convert

    convert(source, output)


@data_app.command
def sample(*, seed: int = 2026, output: Path = Path("data")) -> None:
    """Build the sample notes from the fact table. Invented patients, for developing software, not for clinical use.

    Args:
        seed: 2026 gives the committed files.
        output: Folder to write to.
    """
    from medserl.data.corpus import write_corpus

    for path in write_corpus(output, seed):
        say(str(path))


@data_app.command(name="larger-test")
def larger_test(*, output: Path = Path("outputs")) -> None:
    """Build 1,001 more test pairs on the sample's facts, in other notes, for what the sample's 364 are too few to tell.

    Args:
        output: Folder to write to.
    """
    from medserl.data.corpus import write_larger_test

    say(str(write_larger_test(output)))


@data_app.command(name="further-train")
def further_train(*, output: Path = Path("outputs")) -> None:
    """Build 3,640 more training pairs on the sample's facts, in other words, which the shipped adapter is taught too.

    Args:
        output: Folder to write to.
    """
    from medserl.data.corpus import write_further_train

    say(str(write_further_train(output)))


@data_app.command(name="untaught-notes")
def untaught_notes(*, output: Path = Path("outputs")) -> None:
    """Build 455 correct notes without twins, of the 91 facts held out of the sample, and 273 test pairs in other words.

    Args:
        output: Folder to write to.
    """
    from medserl.data.corpus import write_untaught

    for path in write_untaught(output):
        say(str(path))


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: exit code 0, 2 for what a user can mend (one line on standard error), 130 when interrupted.

    141 where whoever read standard output has gone: what was under way is finished first.
    """
    _fill_closed_streams()
    set_up_logging()
    try:
        try:
            app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        finally:
            end_display()
    except CycloptsError as error:
        _fail(_usage_line(error))
    except MedSeRLError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(130)
    except _out_of_memory():
        _fail(
            "the GPU's memory does not suffice: lower generation_token_budget or training_token_budget, give "
            "gradient_checkpointing, or take a smaller model (medserl train --dry-run estimates what is needed)"
        )
    trouble = console.outlet.trouble
    if isinstance(trouble, BrokenPipeError):
        sys.exit(BROKEN_PIPE)
    if trouble:
        _fail(f"standard output: {trouble.strerror}")


def _fill_closed_streams() -> None:
    """Where standard input, output or error is closed, no file that is opened later may take its place."""
    with suppress(OSError):
        while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(opened)


def _out_of_memory() -> tuple[type[BaseException], ...]:
    """What is raised where a GPU's memory does not suffice; nothing as long as torch has not been needed."""
    torch = sys.modules.get("torch")
    return (torch.OutOfMemoryError,) if torch else ()


def _usage_line(error: CycloptsError) -> str:
    cause: Any = error.__cause__
    if isinstance(cause, ValidationError):
        return f"{said_in(error)}: {describe(cause)}"
    if isinstance(error, UnknownOptionError) and (why := gone(_setting_of(error.token.keyword or ""))):
        return why
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"unexpected argument {error.unused_tokens[0]!r}: settings are flags, each with one value (--name VALUE)"
    return " ".join(str(error).split())


def _setting_of(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _fail(message: str) -> None:
    complain(f"error: {message}", style="red")
    sys.exit(2)


if __name__ == "__main__":
    main()
