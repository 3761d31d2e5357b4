"""Published weights: a folder of one's own, or the files of one exact commit on the Hub.

Belongs here: which files of a model's repository are wanted, and where they lie afterwards. Does not belong here: talking to the
Hub (`hub_client.py`), what is in the files (`training_backend.model`).

A commit is downloaded once for all profiles, into `weights/<owner>--<name>/<commit>` below a cache folder; who needs the space may
remove it, and it is downloaded again when somebody asks. Nothing is asked of the Hub for a commit that is there.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from molmo2_assets.sources.hub_client import (
    COMMIT,
    Repository,
    commit_of,
    download,
    hub_api,
    list_commit,
    one_sentence,
    repository_info,
)
from molmo2_assets.sources.outcome import SourceError
from molmo2_assets.sources.progress import Progress

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
_WORDS = ("*.json", "*.jinja")
"""Configuration, tokenizer, processor, chat template: small, and what makes weights a model."""


def fetch_weights(repo: str, revision: str | None, cache: Path, log: Callable[[str], None], place: str | None) -> Path:
    """The folder of a model at one commit, complete. `place` is the table of a profile that `repo` and `revision` were written in,
    for messages; None: `repo@revision` was written on the command line.

    Files: configuration and the like, and the safetensors that the index names (else `model.safetensors`); no pickle, no code. Call
    again after an interruption: what is complete is kept. Raises SourceUnavailable or SourceError.
    """
    name_at, revision_at = (f"{place}.repo", f"{place}.revision") if place else [f"{repo}@{revision}"] * 2
    repository = Repository(repo, revision, "model", name_at, revision_at, f"https://huggingface.co/{repo}")
    if revision is None or not COMMIT.fullmatch(revision):
        with one_sentence(repository):
            head = commit_of(repository_info(hub_api(), repository, revision), repository)
        said = "no commit" if revision is None else f"{revision!r}, which is no commit"
        right = f"{revision_at}: {head}" if place else f"{repo}@{head}"
        raise SourceError(f"{place or revision_at} names {said} of {repo}; it stands at {head} now: write {right}")
    folder = cache / "weights" / repo.replace("/", "--") / revision
    if folder.is_dir():
        return folder
    partial = folder.with_name(f"{revision}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{revision}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever waited finds it done
        if not folder.is_dir():
            partial.mkdir(exist_ok=True)
            _fill(partial, repository, revision, log)
            partial.rename(folder)
    return folder


def _fill(folder: Path, repository: Repository, revision: str, log: Callable[[str], None]) -> None:
    with one_sentence(repository):
        listing = {file.path: file for file in list_commit(hub_api(), repository, revision)}
    words = [file for path, file in listing.items() if "/" not in path and any(fnmatch(path, pattern) for pattern in _WORDS)]
    _get(words, folder, repository, revision, log)
    shards = _shards(folder, listing, repository, revision)
    log(f"{repository.name} at {revision[:12]}: {len(shards)} files of weights, {sum(file.size for file in shards)} bytes")
    _get(shards, folder, repository, revision, log)


def _get(files: list[RepoFile], folder: Path, repository: Repository, revision: str, log: Callable[[str], None]) -> None:
    with Progress(repository.name, sum(file.size for file in files), "B", log) as progress:
        download(repository, revision, files, folder, progress)


def _shards(folder: Path, listing: dict[str, RepoFile], repository: Repository, revision: str) -> list[RepoFile]:
    """The files of weights. Raises SourceError where there are none, or not those that the index names."""
    where = f"{repository.name} at {revision[:12]}"
    if not (folder / INDEX).is_file():
        if WHOLE not in listing:
            raise SourceError(
                f"{where} holds no {WHOLE} and no {INDEX}; weights in other formats are not read, they can hold code."
            )
        return [listing[WHOLE]]
    try:
        names = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SourceError(f"{where}: {INDEX} cannot be read as an index of weights.") from None
    for name in names:
        if not isinstance(name, str) or os.sep in name or not name.endswith(".safetensors") or name not in listing:
            raise SourceError(f"{where}: {INDEX} names {name!r}, which is no safetensors file of that commit.")
    return [listing[name] for name in names]
