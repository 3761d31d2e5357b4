"""Datasets on the Hugging Face Hub: the head that is observed, and the download of one exact commit.

Belongs here: choosing the files of a set. Does not belong here: talking to the Hub (`hub_client.py`), reading the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmo2_assets.sources.arriving import arriving
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
from molmo2_assets.sources.outcome import FetchResult, SourceError
from molmo2_assets.sources.progress import Progress
from training_backend.data.fingerprint import fingerprint, short

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

    from molmo2_assets.profile import DatasetSpec

_DATA_SUFFIXES = (".parquet", ".json", ".jsonl", ".json.gz", ".jsonl.gz", ".csv", ".tsv")


def identity(spec: DatasetSpec) -> dict[str, Any]:
    """What the catalogue asks for. The commit that a branch stood at is the revision of what was fetched."""
    source = spec.source
    return {
        "repo": source.repo,
        "revision": source.revision,
        "config": source.config,
        "split": source.split,
        "files": list(source.files),
    }


def head_revision(spec: DatasetSpec) -> str:
    """The newest commit of the branch that the catalogue names (of the default branch where it pins a commit).

    Raises SourceUnavailable where the Hub cannot be asked, SourceError where it has no such repository or branch.
    """
    pinned = spec.source.revision
    branch = None if pinned is None or COMMIT.fullmatch(pinned) else pinned
    repository = _repository(spec)
    with one_sentence(repository):
        return commit_of(repository_info(hub_api(), repository, branch), repository)


def fetch_hub(spec: DatasetSpec, dest: Path, log: Callable[[str], None], downloads: Path | None = None) -> FetchResult:
    """Download the files of one commit into `dest`, under their names in the repository, and check each against the Hub's listing.

    Files: `source.files` patterns; else those that the dataset card lists for `config` and `split`; else the usual names. They
    arrive in `downloads` (default: `dest` itself): call again with the same folder after an interruption and what is complete is
    kept. Raises SourceUnavailable or SourceError.
    """
    repository = _repository(spec)
    repo = repository.name
    with one_sentence(repository):
        api = hub_api()
        info = repository_info(api, repository, spec.source.revision)
        commit = commit_of(info, repository)
        listing = list_commit(api, repository, commit)
    chosen = _choose(spec, info, listing)
    total = sum(file.size for file in chosen)
    log(f"{repo} at {commit[:12]}: {len(chosen)} files, {total} bytes")

    name = short(fingerprint([identity(spec), commit]))
    with arriving(downloads, dest, name, log) as folder, Progress(spec.name, total, "B", log) as progress:
        download(repository, commit, chosen, folder, progress)
    facts = {
        "repo": repo,
        "commit": commit,
        "files": len(chosen),
        "bytes": total,
        "licence": _card(info, "license"),
        "gated": bool(info.gated),
    }
    return FetchResult(revision=commit, facts=facts)


def _repository(spec: DatasetSpec) -> Repository:
    source = spec.source
    if not source.repo:
        raise SourceError(f"{spec.name} is on the Hub but its entry names no source.repo.")
    page = spec.url or f"https://huggingface.co/datasets/{source.repo}"
    return Repository(source.repo, source.revision, "dataset", "source.repo", "source.revision", page, source.instructions or "")


def _card(info: Any, field: str) -> Any:
    """A field of the dataset card; None where there is no card or no such field."""
    return None if info.card_data is None else info.card_data.get(field)


def _choose(spec: DatasetSpec, info: Any, listing: list[RepoFile]) -> list[RepoFile]:
    """The files to download. Raises SourceError where none match."""
    source = spec.source
    for patterns in _patterns(spec, info):
        chosen = [file for file in listing if any(fnmatch(file.path, pattern) for pattern in patterns)]
        if chosen:
            return chosen
    if not source.files and not source.config and not source.split:
        chosen = [file for file in listing if file.path.endswith(_DATA_SUFFIXES)]
        if chosen:
            return chosen
    wanted = ", ".join(source.files) or f"config {source.config or 'default'}, split {source.split or 'any'}"
    some = ", ".join(file.path for file in listing[:5]) or "nothing"
    raise SourceError(f"{source.repo} has no file for {wanted}; it holds {some}{', …' if len(listing) > 5 else ''}.")


def _patterns(spec: DatasetSpec, info: Any) -> Iterator[list[str]]:
    """Groups of patterns in the order in which they are tried; the first that matches anything counts."""
    source = spec.source
    if source.files:
        yield list(source.files)
        return
    yield list(_card_patterns(_card(info, "configs") or [], source.config, source.split))
    config, split = source.config, source.split
    if split:
        folders = [f"{config}/"] if config else ["data/", "", "parquet/"]
        yield [f"{folder}{split}-*" for folder in folders] + [f"{folder}{split}.*" for folder in folders]
        yield [f"{folder}{split}/*" for folder in folders]
    elif config:
        yield [f"{config}/*"]


def _card_patterns(configs: Iterable[Any], config: str | None, split: str | None) -> Iterator[str]:
    """Patterns of `data_files` in a dataset card, which come as one path, a list of paths, or a list of {split, path}."""
    for entry in configs:
        if not isinstance(entry, dict) or (config or entry.get("config_name")) != entry.get("config_name"):
            continue
        files = entry.get("data_files") or []
        for item in [files] if isinstance(files, str | dict) else files:
            if isinstance(item, str):
                yield item
            elif isinstance(item, dict) and split in (None, item.get("split")):
                paths = item.get("path") or []
                yield from [paths] if isinstance(paths, str) else paths
