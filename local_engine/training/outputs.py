"""The target's own answers to many prompts, with the streams of its layers, kept in shards that a later run continues.

A shard is written beside its place and moved there when complete, so a killed run leaves whole shards only.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from local_engine.errors import BadTrainingData
from local_engine.model_runner import ModelRunner
from local_engine.tokenizer import Tokenizer
from local_engine.training.answers import Answerer, Task, Text

SHARD_TEXTS = 128
HELD_OUT = 16
INVENTED_TOKENS = 200
ROUND_TASKS = 512
"""Tasks are sorted by length within rounds of so many: a run cut short is a fair mix."""
TEMPERATURES = (0.0, 0.0, 0.6)
Report = Callable[[int, int], None]


def read_prompts(paths: Sequence[Path]) -> list[list[dict[str, str]]]:
    """Conversations from files: .jsonl with `messages`, `turns`, `prompt`, `question` or `text`; else one prompt per line."""
    conversations: list[list[dict[str, str]]] = []
    for path in paths:
        try:
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise BadTrainingData(f"prompts {str(path)!r} cannot be read: {error}") from error
        for number, line in enumerate(lines, start=1):
            place = f"line {number} of {str(path)!r}"
            conversations.append(_conversation(line, place) if path.suffix == ".jsonl" else _user(line))
    if not conversations:
        raise BadTrainingData(f"no prompts in {[str(path) for path in paths]!r}: one prompt per line, or .jsonl")
    return conversations


def _conversation(line: str, place: str) -> list[dict[str, str]]:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise BadTrainingData(f"{place} is not JSON: {error}") from error
    row = row if isinstance(row, dict) else {}
    messages = row.get("messages")
    if isinstance(messages, list) and messages and all(isinstance(m, dict) and "content" in m for m in messages):
        return [{"role": str(m.get("role", "user")), "content": str(m["content"])} for m in messages]
    turns = row.get("turns")
    text = turns[0] if isinstance(turns, list) and turns else row.get("prompt", row.get("question", row.get("text")))
    if not isinstance(text, str) or not text:
        raise BadTrainingData(f"{place} has none of messages, turns, prompt, question, text: {sorted(row)!r}")
    return _user(text)


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def make_tasks(
    conversations: Sequence[Sequence[dict[str, str]]],
    tokenizer: Tokenizer,
    *,
    room: int,
    max_tokens: int,
    seed: int,
) -> list[Task]:
    """Tasks in the order in which they are run; prompts that do not fit `room` with their answer are left out."""
    chance = random.Random(seed)  # noqa: S311  # an order, not a secret
    encoded = [tuple(tokenizer.encode_chat(messages)) for messages in conversations]
    tasks = [
        Task(number, tokens, max_tokens, chance.choice(TEMPERATURES))
        for number, tokens in enumerate(encoded)
        if len(tokens) + max_tokens <= room
    ]
    chance.shuffle(tasks)
    rounds = [tasks[first : first + ROUND_TASKS] for first in range(0, len(tasks), ROUND_TASKS)]
    ordered: list[Task] = []
    for index, part in enumerate(rounds):
        ordered += sorted(part, key=lambda task: len(task.tokens), reverse=index % 2 == 1)
    return ordered


@dataclass(frozen=True, slots=True)
class Window:
    """One text: `tokens` [n + 1], `streams` [n, taps * hidden] at the first n, `answer` [n] bool: the next is the answer's."""

    tokens: Tensor
    streams: Tensor
    answer: Tensor

    def of_answer(self) -> Window:
        """From the last token of the prompt on, whose stream says how the answer begins."""
        first = len(self.answer) - int(self.answer.sum())
        return Window(self.tokens[first:], self.streams[first:], self.answer[first:])


@dataclass(frozen=True, slots=True)
class Shard:
    """Texts end to end: `tokens` [n] int64, `streams` [n, taps * hidden], `bounds`, `prompts` and `numbers` [texts].

    Text i is `tokens[bounds[i]:bounds[i + 1]]`, its first `prompts[i]` tokens are the prompt; its last row of `streams`
    is zero, as the last token was never computed.
    """

    tokens: Tensor
    streams: Tensor
    bounds: list[int]
    prompts: list[int]
    numbers: list[int]

    def windows(self, *, held_out: bool) -> list[Window]:
        """The texts to train on, or the one in HELD_OUT that is kept to measure on."""
        texts = self.all_windows()
        return [text for index, text in enumerate(texts) if (index % HELD_OUT == HELD_OUT - 1) == held_out]

    def all_windows(self) -> list[Window]:
        """Every text, in the order of `numbers`."""
        found = []
        for index, prompt in enumerate(self.prompts):
            first, last = self.bounds[index], self.bounds[index + 1]
            answer = torch.arange(last - first - 1) >= prompt - 1
            found.append(Window(self.tokens[first:last], self.streams[first : last - 1], answer))
        return found


class ShardFolder:
    """Shards of one target and one choice of taps in a folder; one of another target is refused."""

    def __init__(self, folder: Path, fingerprint: str, taps: Sequence[int]) -> None:
        self.folder = folder
        self._identity = {"target": fingerprint, "taps": json.dumps(list(taps))}
        folder.mkdir(parents=True, exist_ok=True)

    def paths(self) -> list[Path]:
        """Complete shards, oldest first."""
        return sorted(self.folder.glob("texts-*.safetensors"))

    def write(self, texts: Sequence[Text]) -> None:
        """One more shard. Raises ValueError for a text without a row of streams for each token but the last."""
        for text in texts:
            if len(text.streams) != len(text.tokens) - 1:
                raise ValueError(f"text {text.number!r}: {len(text.streams)} rows for {len(text.tokens)} tokens")
        rows = [torch.cat((text.streams, torch.zeros_like(text.streams[:1]))) for text in texts]
        tensors = {
            "tokens": torch.tensor([token for text in texts for token in text.tokens], dtype=torch.int32),
            "lengths": torch.tensor([len(text.tokens) for text in texts]),
            "prompts": torch.tensor([text.prompt for text in texts]),
            "numbers": torch.tensor([text.number for text in texts]),
            "streams": torch.cat(rows),
        }
        path = self.folder / f"texts-{len(self.paths()):05d}.safetensors"
        unfinished = path.with_suffix(".part")
        save_file(tensors, unfinished, metadata=self._identity)
        unfinished.rename(path)

    def done(self) -> set[int]:
        """Numbers of the prompts whose texts are here."""
        return {int(number) for path in self.paths() for number in self._read(path, ("numbers",))["numbers"]}

    def shards(self) -> Iterator[Shard]:
        """Every shard in turn."""
        for path in self.paths():
            read = self._read(path, ("tokens", "lengths", "prompts", "numbers", "streams"))
            bounds = [0, *read["lengths"].cumsum(0).tolist()]
            yield Shard(
                read["tokens"].long(), read["streams"], bounds, read["prompts"].tolist(), read["numbers"].tolist()
            )

    def _read(self, path: Path, names: Sequence[str]) -> dict[str, Tensor]:
        try:
            with safe_open(path, framework="pt") as file:
                if file.metadata() != self._identity:
                    raise BadTrainingData(
                        f"{str(path)!r} holds outputs of another target or other taps: choose another --work folder"
                    )
                return {name: file.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise BadTrainingData(f"{str(path)!r} is damaged, delete it and run again: {error}") from error


def collect(
    runner: ModelRunner,
    ends: frozenset[int],
    tasks: Sequence[Task],
    folder: ShardFolder,
    taps: Sequence[int],
    *,
    lanes: int,
    seconds: float,
    seed: int,
    report: Report | None = None,
) -> int:
    """Answer tasks that have no text yet, for about `seconds`; returns how many tokens were generated."""
    began, done = time.monotonic(), folder.done()
    open_tasks = [task for task in tasks if task.number not in done]
    if not open_tasks:
        return 0
    answerer = Answerer(runner, ends, lanes=lanes, taps=taps, seed=seed)
    held: list[Text] = []
    generated = 0
    for finished, text in enumerate(answerer.answer(open_tasks), start=1):
        held.append(text)
        generated += len(text.tokens) - text.prompt
        if len(held) == SHARD_TEXTS:
            folder.write(held)
            held = []
        if report is not None:
            report(finished, len(open_tasks))
        if time.monotonic() - began > seconds:
            break
    cut = answerer.unfinished()
    generated += sum(len(text.tokens) - text.prompt for text in cut)
    if held or cut:
        folder.write([*held, *cut])
    return generated


def invent_prompts(
    runner: ModelRunner,
    tokenizer: Tokenizer,
    kept: Path,
    count: int,
    *,
    room: int,
    lanes: int,
    seconds: float,
    seed: int,
    report: Report | None = None,
) -> list[list[dict[str, str]]]:
    """Prompts the target makes up itself when it is given the opening of a user's turn (Magpie, arXiv 2406.08464).

    `kept` is the file they are written to, and read from when it is there. `room`: tokens of a context. Raises
    BadTrainingData.
    """
    if kept.is_file():
        return read_prompts([kept])
    # Two conversations that differ from the first character of the prompt on show where the opening ends.
    first, second = (tokenizer.encode_chat(_user(text)) for text in ("0", "Q"))
    start = tuple(
        token for token, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    )
    if len(start) + INVENTED_TOKENS > room:
        raise BadTrainingData(f"a context of {room!r} tokens is too short to invent prompts in: give --prompts FILE")
    tasks = [Task(number, start, INVENTED_TOKENS, 1.0) for number in range(count)]
    answerer = Answerer(runner, tokenizer.end_ids, lanes=min(lanes, count), seed=seed)
    began, found = time.monotonic(), set()
    for text in answerer.answer(tasks):
        said = tokenizer.decode(text.tokens[len(start) :]).strip()
        if text.tokens[-1] in tokenizer.end_ids and len(said) >= 20:
            found.add(said)
        if report is not None:
            report(len(found), count)
        if time.monotonic() - began > seconds:
            break
    kept.write_text("".join(json.dumps({"prompt": said}) + "\n" for said in sorted(found)), encoding="utf-8")
    return [_user(said) for said in sorted(found)]
