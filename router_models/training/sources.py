"""python -m router_models.training.sources --out DIR: build the training and evaluation tables from their public sources.

Files come from fixed commits and are checked against their git ids (`public_files`). A download that fails, or a file that is
not the known one, is named and nothing is written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from router_models.errors import RouterError, TrainingDataError
from router_models.training.data import EVALUATION_ONLY
from router_models.training.overlap import repeating
from router_models.training.public_files import REPOSITORIES, Repository
from router_models.training.public_parsers import Part, parse, stem_key

ADDRESS = "https://raw.githubusercontent.com"
SECONDS = 60
_EXCLUDED = "contaminated_prompts.jsonl"
_EXCLUDED_SETS = {"mmlu": "mmlu_test", "gsm8k": "gsm8k_test", "mt_bench": "mt_bench"}


def fetch(
    folder: Path,
    wanted: Iterable[str] = tuple(REPOSITORIES),
    base: str = ADDRESS,
    repositories: Mapping[str, Repository] = REPOSITORIES,
) -> int:
    """Write prompts, outcomes, overlaps and the protocol's exclusions to `folder`; returns the number of prompts.

    `base` is where repositories lie as OWNER/NAME/COMMIT/PATH, also file://. Raises TrainingDataError.
    """
    part = Part()
    excluded: dict[str, list[str]] = {}
    for source in wanted:
        repository = repositories[source]
        for path, identity in repository.files.items():
            content = _read(base, repository, path, identity)
            if path.endswith(_EXCLUDED):
                excluded[_EXCLUDED_SETS[Path(path).parent.name]] = _excluded_prompts(content)
            else:
                parse(source, path, content, part)
    part.outcomes[:] = [row for row in part.outcomes if (row["dataset"], row["prompt_id"]) in part.prompts]
    prompts = pd.DataFrame(part.prompts.values())
    folder.mkdir(parents=True, exist_ok=True)
    prompts.to_parquet(folder / "prompts.parquet", index=False)
    pd.DataFrame(part.outcomes).to_parquet(folder / "outcomes.parquet", index=False)
    overlaps(prompts).to_parquet(folder / "overlap_with_routellm_eval.parquet", index=False)
    _exclusions(prompts, excluded).to_csv(folder / "routellm_excluded.csv", index=False)
    return len(prompts)


def overlaps(prompts: pd.DataFrame) -> pd.DataFrame:
    """Prompts of other sets that repeat a prompt of the evaluation in part (dataset, prompt_id)."""
    tested = prompts["dataset"].isin(EVALUATION_ONLY)
    others = prompts[~tested]
    repeats = repeating(others["prompt"], prompts.loc[tested, "prompt"])
    return others.loc[repeats, ["dataset", "prompt_id"]].reset_index(drop=True)


def _exclusions(prompts: pd.DataFrame, excluded: Mapping[str, list[str]]) -> pd.DataFrame:
    """What the protocol leaves out, by the text of its prompts; a question of MT-Bench by its first turn."""
    found = []
    for dataset, texts in excluded.items():
        stems = {stem_key(re.split(r"\nA\. ", text)[0]) for text in texts}
        names = prompts.loc[(prompts["dataset"] == dataset) & prompts["stem_key"].isin(stems), "prompt_id"].astype(str)
        found += [(dataset, name) for name in sorted({re.sub(r"-t\d+$", "-t1", name) for name in names})]
    return pd.DataFrame(found, columns=["dataset", "prompt_id"])


def _excluded_prompts(content: bytes) -> list[str]:
    return [str(json.loads(line)["eval_prompt"]) for line in content.decode().split("\n") if line.strip()]


def _read(base: str, repository: Repository, path: str, identity: str) -> bytes:
    address = f"{base}/{repository.name}/{repository.commit}/{urllib.parse.quote(path)}"
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as reply:  # noqa: S310 (fixed addresses, or the caller's own)
            content: bytes = reply.read()
    except (OSError, ValueError) as error:
        raise TrainingDataError(f"{address!r} cannot be fetched: {error}") from error
    if git_id(content) != identity:
        raise TrainingDataError(f"{address!r} is not the known file: its git id is {git_id(content)}, not {identity}")
    return content


def git_id(content: bytes) -> str:
    """SHA-1 of the content as git names it."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m router_models.training.sources", description="Build the tables from public sources."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write the tables to")
    parser.add_argument(
        "--only", nargs="+", choices=tuple(REPOSITORIES), default=tuple(REPOSITORIES), help="some sources"
    )
    parser.add_argument("--base", default=ADDRESS, help="where OWNER/NAME/COMMIT/PATH lies (default: GitHub)")
    chosen = parser.parse_args(arguments)
    try:
        count = fetch(chosen.out, chosen.only, chosen.base)
    except RouterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {count} prompts of {', '.join(chosen.only)} to {str(chosen.out)!r}")
    return 0


__all__ = ["fetch", "git_id", "main", "overlaps", "stem_key"]

if __name__ == "__main__":
    sys.exit(main())
