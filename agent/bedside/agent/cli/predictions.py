"""The commands about predictions: list and follow them, ask why, and have a model decide a file."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bedside.agent.buffer.rows import Prediction
from bedside.agent.cli.groups import ListingGroup
from bedside.agent.cli.reach import DIRECTORY, ask, named, reading
from bedside.service.options import COUNT
from bedside.service.output import Table, emit, emit_line, human_age, json_option
from bedside.service.platform import SystemClock
from bedside.service.text import bounded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bedside.agent.buffer.reader import BufferReader
    from bedside.agent.client import LocalAgent
    from bedside.agent.client_rows import Answer

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_PAGE = 1_000


@click.group("predictions", cls=ListingGroup)
def predictions() -> None:
    """Show what the models of a device have decided, and why. Without a command: `list`."""


@predictions.command("list")
@click.argument("directory", type=DIRECTORY)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 100_000), help="Newest to show.")
@click.option("--follow", is_flag=True, help="Go on with each prediction as it is made, until interrupted.")
@click.option("--session", default="", help="Of this session only.")
@click.option("--stream", default="", help="Of this stream only.")
@click.option("--model", default="", help="Of the model of this name only.")
@json_option
def list_predictions(
    directory: Path, limit: int, follow: bool, session: str, stream: str, model: str, as_json: bool
) -> None:
    """Show the newest predictions of DIRECTORY, from its database; the agent need not run, except for --follow."""
    with reading(directory) as reader:
        of_session, of_stream = named(directory, reader, session=session, stream=stream)

        def wanted(one: Prediction) -> bool:
            chosen = of_session in ("", one.session) and of_stream in ("", one.stream)
            return chosen and model in ("", one.model_name)

        stored = list(islice(filter(wanted, _newest_first(reader)), limit))[::-1]
        last = reader.last_prediction()
    if follow:
        for one in stored:
            _print(one, as_json)

        async def go_on(agent: LocalAgent) -> None:
            async for one in agent.follow(last.number if last is not None else 0):
                if wanted(one):
                    _print(one, as_json)

        ask(directory, go_on)
        return
    now_ns = SystemClock().now_ns()
    rows = [
        (
            str(p.number),
            p.stream,
            p.session[:8],
            human_age(p.end_ns, now_ns),
            bounded(p.words),
            p.sureness,
            p.model_name,
        )
        for p in stored
    ]
    columns = ("ID", "STREAM", "SESSION", "AGE", "LABEL", "CONFIDENCE", "MODEL")
    emit([prediction_fields(p) for p in stored], as_json, table=Table(columns, rows, empty="no predictions yet"))


@predictions.command("explain")
@click.argument("directory", type=DIRECTORY)
@click.argument("number", metavar="ID", type=COUNT)
@click.option("--segments", default=16, show_default=True, type=click.IntRange(1, 256), help="Pieces of time.")
@click.option("--output", default="", help="Another class, label or value of the model.  [default: the predicted one]")
@json_option
def explain(directory: Path, number: int, segments: int, output: str, as_json: bool) -> None:
    """Show which pieces of the signal prediction ID rests on, one row per channel, time from left to right.

    The running agent covers one piece of one channel after the other and sees how the probability of the predicted
    class, or the value, falls: what speaks for it is warm, what speaks against it is cold. Of a record there is a row
    for each field, and no time.
    """
    found = ask(directory, lambda agent: agent.explain(number, segments=segments, output=output))
    if as_json:
        fields = {"prediction": number, "output": found.output, "unit": found.unit, "method": found.method}
        fields |= {"fields": found.fields} if found.fields else {}
        emit(fields | {"effects": found.effects.round(6).tolist()}, as_json)
        return
    from bedside.agent.cli.heat import print_heat

    with reading(directory) as reader:
        print_heat(found, reader.prediction(number))


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.argument("file", type=_FILE)
@click.option("--model", default="", help="Name of the model, where several serve.")
@json_option
def predict(directory: Path, file: Path, model: str, as_json: bool) -> None:
    """Have a served model decide one window in FILE: .npy, or .csv with a row per sample and a column per channel.

    The shape is the model's window, (length, channels), in the physical unit of its stream. Nothing of it is stored.
    """
    from bedside.agent.cli.window_file import read_window

    values = read_window(file)
    answer = ask(directory, lambda agent: agent.predict(values, model=model))
    if answer.outputs:
        _print_outputs(answer, as_json)
        return
    ranked = sorted(answer.probabilities.items(), key=lambda pair: -pair[1])
    fields = {
        "model": answer.model,
        "digest": answer.model_digest,
        "label": answer.label,
        "probabilities": dict(ranked),
        "latency_us": round(answer.latency_s * 1e6),
    }
    rows = [(label, f"{probability:.4f}", "█" * round(30 * probability)) for label, probability in ranked]
    title = f"{answer.label}, says {answer.model} in {answer.latency_s * 1e3:.2f} ms"
    emit(fields, as_json, table=Table(("LABEL", "PROBABILITY", ""), rows, title=title))


def _print_outputs(answer: Answer, as_json: bool) -> None:
    """Of a model of several labels or of a regression."""
    rows = [
        (one.name, f"{one.value:.4f}" if one.is_probability else f"{one.value:.6g}", one.unit) for one in answer.outputs
    ]
    fields = {
        "model": answer.model,
        "digest": answer.model_digest,
        "outputs": [one.fields for one in answer.outputs],
        "latency_us": round(answer.latency_s * 1e6),
    }
    title = f"says {answer.model} in {answer.latency_s * 1e3:.2f} ms"
    emit(fields, as_json, table=Table(("OUTPUT", "VALUE", "UNIT"), rows, title=title))


def _newest_first(reader: BufferReader) -> Iterator[Prediction]:
    """All stored predictions from the newest back, a page at a time."""
    last = reader.last_prediction()
    end = last.number if last is not None else 0
    while end > 0:
        start = max(0, end - _PAGE)
        yield from reversed(reader.predictions(start, end - start))
        end = start


def _print(prediction: Prediction, as_json: bool) -> None:
    text = f"{prediction.number}  {prediction.stream}  {bounded(prediction.words)}  {prediction.sureness}".rstrip()
    emit_line(prediction_fields(prediction), as_json, text)


def prediction_fields(prediction: Prediction) -> dict[str, object]:
    """A prediction for programs."""
    return {
        "id": prediction.number,
        "stream": prediction.stream,
        "session": prediction.session,
        "start_ns": prediction.start_ns,
        "end_ns": prediction.end_ns,
        "label": prediction.label,
        "confidence": round(prediction.confidence, 6),
        "model": prediction.model.hex(),
        "model_name": prediction.model_name,
        "latency_us": round(prediction.latency_s * 1e6),
        **({"outputs": [one.fields for one in prediction.outputs]} if prediction.outputs else {}),
    }
