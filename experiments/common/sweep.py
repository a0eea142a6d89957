"""Many independent runs in several processes, kept one by one so that a restart goes on."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TypeVar

import torch
from tqdm import tqdm

Run = TypeVar("Run")

JOURNAL = "runs.jsonl"


def sweep(
    execute: Callable[[Run], dict], runs: Sequence[Run], out: Path, workers: int
) -> list[dict]:
    """Returns ``execute(run)`` of every run, in the order of ``runs``.

    Each record is appended to ``out / JOURNAL`` as soon as it is there, and a run that the journal
    already has is not executed again. A run is known by all its entries, so it must hold
    everything that decides its record: a change of the settings then leads to new runs, while
    nothing knows of a change of the code. :func:`finish` ends a journal.

    Args:
        execute: a function at the top level of a module; its record can be written as JSON, and
            comes back as JSON gives it back, floats with six significant digits.
        runs: named tuples, dataclasses or dictionaries of JSON values, no two equal.
        out: folder of the results, made where it is not there.
        workers: processes of one thread each; 1 stays in this process.
    """
    journal = out / JOURNAL
    keys = [_key(run) for run in runs]
    if len(set(keys)) != len(keys):
        raise ValueError("runs: two of them are equal")
    records = _read(journal)
    missing = [(key, run) for key, run in zip(keys, runs, strict=True) if key not in records]
    bar = tqdm(total=len(runs), initial=len(runs) - len(missing), unit="run", smoothing=0)
    out.mkdir(parents=True, exist_ok=True)
    with bar, journal.open("a", encoding="utf-8") as file:
        for key, record in _executed(execute, missing, workers):
            records[key] = rounded(record)
            file.write(json.dumps([json.loads(key), records[key]], allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
            bar.update()
    return [json.loads(json.dumps(records[key])) for key in keys]


def finish(out: Path) -> None:
    """Removes the journal, once the results are written: the next call starts anew."""
    (out / JOURNAL).unlink(missing_ok=True)


def rounded(value: object) -> object:
    """Keeps six significant digits of every float, so that the results file stays small."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def _executed(
    execute: Callable[[Run], dict], runs: list[tuple[str, Run]], workers: int
) -> Iterator[tuple[str, dict]]:
    if workers == 1 or len(runs) < 2:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for key, run in runs:
                yield key, execute(run)
        finally:
            torch.set_num_threads(threads)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
        futures = {pool.submit(execute, run): key for key, run in runs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _key(run: object) -> str:
    if is_dataclass(run):
        run = asdict(run)
    elif hasattr(run, "_asdict"):
        run = run._asdict()
    return json.dumps(run, sort_keys=True, default=_entries)


def _entries(value: object) -> object:
    """A dataclass inside a named tuple; anything else has no JSON form."""
    if is_dataclass(value):
        return asdict(value)
    raise TypeError(f"a run holds {value!r}, which cannot be written as JSON")


def _read(journal: Path) -> dict[str, dict]:
    """The journal's records by key; a last line that was cut off is removed from the file."""
    if not journal.exists():
        return {}
    text = journal.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        journal.write_text(whole, encoding="utf-8")
    lines = [json.loads(line) for line in whole.splitlines()]
    return {json.dumps(key, sort_keys=True): record for key, record in lines}
