"""`molmo2`: looking at things, from a shell.

Belongs here: the commands, their arguments, and how a mistake is told: one line, exit code 2. Does not belong here: what a command
prints (`data.py`, `datasets.py`, `history.py`, `running.py`, `weights.py`, what they share in `show.py`), or any work; each
command calls the room that does it, imported when it is asked for.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from molmo2_assets.cli import data, datasets, history, running, weights
from molmo2_assets.cli.show import UserError, unknown
from training_backend.api import RunFailed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 1 where a command found something wrong, 2 for a mistake that is told in one line."""
    try:
        options = _parse(arguments)
        code = int(options.run(options) or 0)
        sys.stdout.flush()  # a reader that went away is noticed here, not in the interpreter's own last words
        return code
    except BrokenPipeError:
        # `molmo2 datasets | head`: what is still buffered goes nowhere, or Python would complain while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except (UserError, RunFailed, ValueError, OSError) as error:
        print(f"molmo2: {error}", file=sys.stderr)
        return 2


class _Parser(argparse.ArgumentParser):
    """argparse whose errors read like every other mistake: one line, what is known, the nearest name."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (`{self.prog} --help`)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise UserError(unknown(action.dest, str(value), [str(choice) for choice in action.choices]))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser, commands = _parser()
    options, rest = parser.parse_known_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        raise UserError("which command?")
    if rest:
        chosen = commands[options.command]
        known = [name for action in chosen._actions for name in action.option_strings if action.help != argparse.SUPPRESS]
        if rest[0] in known:
            raise UserError(f"{rest[0]} stands after the command: `{chosen.prog} {rest[0]}`")
        if rest[0].startswith("-"):
            raise UserError(unknown("option", rest[0].partition("=")[0], known))
        raise UserError(f"{rest[0]!r} is one word too many (`{chosen.prog} --help`)")
    return options


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = _Parser(prog="molmo2", description="Datasets, mixtures, checkpoints and scores of a Molmo2-class model.")
    parser.add_argument("--profile", help="profile to look at (default: MOLMO2_PROFILE, else demo)")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    found: dict[str, argparse.ArgumentParser] = {}

    def command(name: str, run: Callable[[Any], Any], text: str, *, listing: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(run=run)
        sub.add_argument("--profile", default=argparse.SUPPRESS, help="profile to look at")
        if listing:
            sub.add_argument("--json", action="store_true", help="print JSON")
        found[name] = sub
        return sub

    command("demo", running.demo, "materialise every asset of the profile, then print the scoreboard", listing=False)
    command("profiles", data.profiles, "list profiles")
    sets = command("datasets", datasets.datasets, "list the profile's datasets and their state; or show one")
    sets.add_argument("action", nargs="?", choices=["show"], help="show one dataset")
    sets.add_argument("name", nargs="?", metavar="DATASET")
    sets.add_argument("--all", action="store_true", help="the whole catalogue, not only what the profile uses")
    quarantine = command("quarantine", data.quarantine, "rows of a dataset that were set aside")
    quarantine.add_argument("action", choices=["show"])
    quarantine.add_argument("name", metavar="DATASET")
    quarantine.add_argument("--reason", help="only rows with this reason")
    mixture = command("mixture", data.mixture, "weights of a mixture, before and after it was made")
    mixture.add_argument("action", choices=["show"])
    mixture.add_argument("name", metavar="MIXTURE")
    preview = command("preview", weights.preview, "a page of encoded examples: what the model sees, reads and learns", listing=True)
    preview.add_argument("name", metavar="DATASET|MIXTURE|SEQUENCES")
    preview.add_argument("--stage", help="stage whose recipe encodes them (default: the first that reads them)")
    preview.add_argument("--count", type=int, metavar="N", help="rows, positions or packs to show (default: 12, of packs 4)")
    preview.add_argument("--start", type=int, default=0, metavar="N", help="first row, position or pack")
    preview.add_argument("--out", metavar="FILE", help="where the page goes (default: it stays with its run)")
    preview.add_argument("--open", action="store_true", help="open it in a browser")
    command("scoreboard", running.scoreboard, "scores of every stage beside their blind baselines")
    runs = command("runs", running.runs, "list runs; follow (attach) or stop one")
    runs.add_argument("action", nargs="?", choices=["attach", "stop"])
    runs.add_argument("name", nargs="?", metavar="RUN")
    command("stale", history.stale, "assets that are out of date, and why")
    why = command("why", history.why, "why one asset is out of date")
    why.add_argument("name", metavar="ASSET")
    bom = command("bom", history.bom, "everything an asset was made from")
    bom.add_argument("name", metavar="ASSET")
    diff = command("diff", history.diff, "rows that changed between the current version of a dataset and the one before it")
    diff.add_argument("name", metavar="DATASET")
    precisions = ["keep", "float32", "bfloat16"]
    into = command("import", weights.import_weights, "a Hugging Face Molmo2 as a checkpoint")
    into.add_argument("folder", metavar="SOURCE", help="a folder, or owner/name@commit on the Hub")
    into.add_argument("--preset", help="model that the folder must hold (default: whatever it holds)")
    into.add_argument("--out", required=True, metavar="FOLDER")
    into.add_argument("--precision", choices=precisions, default="keep")
    out = command("export", weights.export_weights, "a checkpoint as a folder that transformers opens")
    out.add_argument("checkpoint", metavar="CHECKPOINT", help="an asset, or a folder")
    out.add_argument("--out", required=True, metavar="FOLDER")
    out.add_argument("--precision", choices=precisions, default="keep")
    ask = command("ask", weights.ask, "ask a checkpoint about images or a video; points in the answer are drawn")
    ask.add_argument("checkpoint", metavar="CHECKPOINT", help="an asset, or a folder")
    ask.add_argument("question")
    ask.add_argument("--image", action="append", default=[], metavar="FILE", help="may be repeated")
    ask.add_argument("--video", action="append", default=[], metavar="FILE")
    ask.add_argument("--out", default=".", metavar="FOLDER", help="where pictures of the answer go (default: here)")
    ask.add_argument("--tokens", type=int, default=256, help="longest answer")
    command("doctor", running.doctor, "what this machine has and lacks")
    command("sweep", running.sweep, "close runs that a killed process left open in Dagster's history")
    return parser, found
