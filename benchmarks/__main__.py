"""`python -m benchmarks <name> [options]`; `python -m benchmarks <name> --help` says what is measured and against what.

Belongs here: finding a benchmark by name and printing its report. A benchmark is a module of this package with `options(parser)`
and `run(arguments) -> Report`. Only the one that was asked for is imported.
"""

from __future__ import annotations

import argparse
import importlib
import sys

NAMES = ("definitions", "encode", "generate_cpu", "mixture", "packing", "step_cpu", "steps", "validate", "video")
ALIASES = {"pack": "packing"}


def main(argv: list[str]) -> int:
    """Run one benchmark; the last line printed is JSON."""
    chooser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure a part of this project.")
    chooser.add_argument("name", choices=sorted({*NAMES, *ALIASES}))
    chooser.add_argument("options", nargs=argparse.REMAINDER, help="`<name> --help` lists them")
    chosen = chooser.parse_args(argv)
    module = importlib.import_module(f"benchmarks.{ALIASES.get(chosen.name, chosen.name)}")
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {chosen.name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.options(parser)
    report = module.run(parser.parse_args(chosen.options))
    print(report.table())
    for name, value in report.facts.items():
        print(f"{name}: {value}")
    print(report.json_line())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
