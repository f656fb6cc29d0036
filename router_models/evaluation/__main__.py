"""python -m router_models.evaluation --data DIR [--json FILE] [--curves DIR]: measure an artifact on prompts it never saw.

Prints a Markdown table of targets and baselines, and writes one JSON document: RouteLLM's protocol without and with a few
labels, nine models on fourteen tasks, calibration, promised floors, newcomers, wording, routing by tier, time per score,
machine and commit; with --curves also PNG files. Exits with 1 and one line on standard error when the tables or the artifact
cannot be used, or a library is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from router_models.artifact import BUNDLED
from router_models.errors import RouterError
from router_models.router import Router


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m router_models.evaluation", description="Measure an artifact.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables (parquet)")
    parser.add_argument("--artifact", type=Path, default=BUNDLED, help="artifact to measure (default: the bundled one)")
    parser.add_argument("--json", type=Path, help="file to write everything to")
    parser.add_argument("--curves", type=Path, help="folder for PNG files (needs matplotlib)")
    parser.add_argument("--seed", type=int, default=0, help="draws the bootstrap and the random router (default: 0)")
    chosen = parser.parse_args(arguments)
    try:
        from router_models.evaluation.curves import draw_curves
        from router_models.evaluation.report import evaluate
        from router_models.evaluation.target_table import target_table

        report = evaluate(chosen.data, Router.load(chosen.artifact), chosen.seed)
        if chosen.curves:
            draw_curves(report, chosen.curves)
    except ImportError as error:
        print(f"error: evaluation needs the extra `train` ({error}): pip install 'penstock[train]'", file=sys.stderr)
        return 1
    except RouterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1) + "\n")
    print(target_table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
