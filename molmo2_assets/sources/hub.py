"""Datasets on the Hugging Face Hub: the head that is observed, and the download of one exact commit.

Belongs here: resolving a revision, choosing files, downloading and checking them, errors in one sentence. Does not belong here:
reading the files, tokens (the client finds the user's own; none ever enters a message, a fact or a file).

The endpoint is HF_ENDPOINT where it is set, read at each call.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from molmo2_assets.sources.arriving import arriving
from molmo2_assets.sources.outcome import FetchResult, SourceError, SourceUnavailable
from molmo2_assets.sources.progress import Progress
from training_backend.data.fingerprint import file_sha256, fingerprint, short

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import DatasetInfo, RepoFile

    from molmo2_assets.profile import DatasetSpec

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DATA_SUFFIXES = (".parquet", ".json", ".jsonl", ".json.gz", ".jsonl.gz", ".csv", ".tsv")
_DOWNLOADS = 4
_BUSY = (408, 429, 500, 502, 503, 504)
WAITS = (1.0, 2.0, 4.0)
"""Seconds before a question that met a busy Hub is asked again, where the answer's Retry-After does not say. The client waits like
this for listings and files, but not for the facts of a repository."""
_LONGEST_WAIT = 60.0


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
    branch = None if pinned is None or _COMMIT.fullmatch(pinned) else pinned
    with _one_sentence(spec):
        return _commit(_info(_api(), _repo(spec), branch), spec)


def fetch_hub(spec: DatasetSpec, dest: Path, log: Callable[[str], None], downloads: Path | None = None) -> FetchResult:
    """Download the files of one commit into `dest`, under their names in the repository, and check each against the Hub's listing.

    Files: `source.files` patterns; else those that the dataset card lists for `config` and `split`; else the usual names. They
    arrive in `downloads` (default: `dest` itself): call again with the same folder after an interruption and what is complete is
    kept. Raises SourceUnavailable or SourceError.
    """
    repo = _repo(spec)
    with _one_sentence(spec):
        api = _api()
        info = _info(api, repo, spec.source.revision)
        commit = _commit(info, spec)
        listing = _listing(api, repo, commit)
    chosen = _choose(spec, info, listing)
    total = sum(file.size for file in chosen)
    log(f"{repo} at {commit[:12]}: {len(chosen)} files, {total} bytes")

    with arriving(downloads, dest, short(fingerprint([identity(spec), commit])), log) as folder:
        with Progress(spec.name, total, "B", log) as progress, _one_sentence(spec), ThreadPoolExecutor(_DOWNLOADS) as pool:
            counting = _counting(progress)
            tasks = [pool.submit(_download, repo, commit, file, folder, counting) for file in chosen]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # what has not begun need not: the set will not be complete
                raise
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's own book-keeping of this folder
    facts = {
        "repo": repo,
        "commit": commit,
        "files": len(chosen),
        "bytes": total,
        "licence": _card(info, "license"),
        "gated": bool(info.gated),
    }
    return FetchResult(revision=commit, facts=facts)


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


def _info(api: HfApi, repo: str, revision: str | None) -> DatasetInfo:
    """Facts of a repository; a busy Hub is asked again after the time that it names."""
    from huggingface_hub import errors

    for wait in WAITS:
        try:
            return api.dataset_info(repo, revision=revision)
        except errors.HfHubHTTPError as error:
            if error.response.status_code not in _BUSY:
                raise
            named = error.response.headers.get("Retry-After", "")
            time.sleep(min(float(named), _LONGEST_WAIT) if named.isdigit() else wait)
    return api.dataset_info(repo, revision=revision)


def _counting(progress: Progress) -> Any:
    """A class in the shape of the client's own bars, which adds the bytes that it is told of to one progress."""
    from tqdm import tqdm

    class Counting(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "disable": True})
            progress.add(options.get("initial") or 0)

        def update(self, n: float | None = 1) -> bool | None:
            progress.add(int(n or 0))
            return None

    return Counting


def _repo(spec: DatasetSpec) -> str:
    if not spec.source.repo:
        raise SourceError(f"{spec.name} is on the Hub but its entry names no source.repo.")
    return spec.source.repo


def _commit(info: DatasetInfo, spec: DatasetSpec) -> str:
    if info.sha is None or not _COMMIT.fullmatch(info.sha):
        raise SourceError(f"The Hub gave no commit for {spec.source.repo} at {spec.source.revision or 'its head'}.")
    return info.sha


def _card(info: DatasetInfo, field: str) -> Any:
    """A field of the dataset card; None where there is no card or no such field."""
    return None if info.card_data is None else info.card_data.get(field)


def _listing(api: HfApi, repo: str, commit: str) -> list[RepoFile]:
    from huggingface_hub.hf_api import RepoFile

    files = [entry for entry in api.list_repo_tree(repo, recursive=True, revision=commit, repo_type="dataset")
             if isinstance(entry, RepoFile)]  # fmt: skip
    for file in files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or "\\" in file.path:
            raise SourceError(f"{repo} lists a file outside its own folder ({file.path!r}); nothing was downloaded.")
    return sorted(files, key=lambda file: file.path)


def _choose(spec: DatasetSpec, info: DatasetInfo, listing: list[RepoFile]) -> list[RepoFile]:
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


def _patterns(spec: DatasetSpec, info: DatasetInfo) -> Iterator[list[str]]:
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


def _download(repo: str, commit: str, file: RepoFile, dest: Path, counting: Any) -> None:
    """One file, checked; a broken one is fetched once more from the start."""
    from huggingface_hub import hf_hub_download

    path = dest / file.path
    for attempt in range(2):
        if not _is_right(path, file):
            hf_hub_download(
                repo,
                file.path,
                repo_type="dataset",
                revision=commit,
                local_dir=dest,
                endpoint=os.environ.get("HF_ENDPOINT"),
                force_download=attempt > 0,
                tqdm_class=counting,
            )
        if _is_right(path, file):
            return
    size = path.stat().st_size if path.is_file() else 0
    raise SourceError(
        f"{file.path} of {repo} arrived twice with other content than the Hub lists ({size} bytes, listed {file.size}); try again."
    )


def _is_right(path: Path, file: RepoFile) -> bool:
    """Whether a local file has the size and the hash that the Hub lists: sha256 of large files, git's blob hash of others."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    if file.lfs is not None:
        return file_sha256(path) == file.lfs.sha256
    digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    digest.update(path.read_bytes())
    return digest.hexdigest() == file.blob_id


@contextmanager
def _one_sentence(spec: DatasetSpec) -> Iterator[None]:
    """The client's errors as ours. Nothing of theirs is repeated: their texts carry URLs and may carry signed parts of them."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        ours = _translate(error, spec)
        if ours is None:
            raise
        raise ours from None


def _translate(error: BaseException, spec: DatasetSpec) -> SourceError | None:
    """Our error for one of the client's; None for what is not about the Hub (a full disk, a defect)."""
    from huggingface_hub import errors

    repo, page = spec.source.repo, spec.url or f"https://huggingface.co/datasets/{spec.source.repo}"
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        # the client could not ask, and looked for a local copy that nobody expects
        return _translate(error.__cause__, spec)
    if isinstance(error, errors.GatedRepoError):
        return SourceUnavailable(
            f"{repo} is gated and this machine has no access to it.",
            spec.source.instructions or f"Accept its conditions at {page} and sign in with `hf auth login`.",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return SourceUnavailable(
            f"{repo} does not exist on the Hub, or is private and this machine may not see it.",
            f"Check source.repo, or sign in with `hf auth login` ({page}).",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return SourceError(f"{repo} has no revision {spec.source.revision}; correct source.revision.")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return SourceUnavailable(f"{repo} was not fetched: HF_HUB_OFFLINE is set.", "Unset it to allow downloads.")
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return SourceUnavailable(f"The Hub refused {repo} ({status}).", f"Sign in with `hf auth login`; see {page}.")
        return SourceUnavailable(f"The Hub answered {status} for {repo}.", "Try again later.", passing=status in _BUSY)
    broken_off = isinstance(error, OSError) and error.errno is None  # the client's own check of sizes
    transport = type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2")
    if transport or broken_off or isinstance(error, ConnectionError | errors.EntryNotFoundError):
        return SourceUnavailable(
            f"{repo} could not be downloaded: the Hub cannot be reached, or broke off.",
            "Check the connection and HF_ENDPOINT, then try again; what is complete is kept.",
            passing=True,
        )
    return None
