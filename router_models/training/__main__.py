"""python -m router_models.training --data DIR [--out FILE] [--seed N]: train the router's artifact and print its card as JSON.

Also says whether what stood at FILE was the same, or how far its scores were from the new ones.

Exits with 1 and one line on standard error when the tables cannot be used; nothing is written then.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from router_models.artifact import BUNDLED
from router_models.errors import RouterError


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m router_models.training", description="Train the router's artifact."
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of prompts, outcomes and overlaps (parquet)")
    parser.add_argument("--out", type=Path, default=BUNDLED, help="artifact to write (default: the bundled one)")
    parser.add_argument("--seed", type=int, default=0, help="draws the folds of the calibration (default: 0)")
    chosen = parser.parse_args(arguments)
    try:
        from router_models.training.data import read_source, together, with_recorded
        from router_models.training.reproduced import before, compared
        from router_models.training.train import train

        was = before(chosen.out)
        tables = together(with_recorded(read_source(chosen.data)))
        trained = train(tables, chosen.out, chosen.seed)
    except ImportError as error:
        print(f"error: training needs the extra `train` ({error}): pip install 'penstock[train]'", file=sys.stderr)
        return 1
    except RouterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report = {"artifact": trained.version, **compared(was, chosen.out), **trained.card}
    print(json.dumps(report, indent=1, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
