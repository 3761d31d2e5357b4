"""The Hub's client as every source uses it: facts and listing of a commit, checked downloads, errors in one sentence.

Belongs here: everything that data sets and weights share. Does not belong here: which files are wanted (`hub.py`, `weights.py`),
tokens (the client finds the user's own; none ever enters a message, a fact or a file).

The endpoint is HF_ENDPOINT where it is set, read at each call.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from molmo2_assets.sources.outcome import SourceError, SourceUnavailable
from molmo2_assets.sources.progress import Progress
from training_backend.data.fingerprint import file_sha256

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo, RepoFile

COMMIT = re.compile(r"[0-9a-f]{40}")
_DOWNLOADS = 4
_BUSY = (408, 429, 500, 502, 503, 504)
WAITS = (1.0, 2.0, 4.0)
"""Seconds before a question that met a busy Hub is asked again, where the answer's Retry-After does not say. The client waits like
this for listings and files, but not for the facts of a repository."""
_LONGEST_WAIT = 60.0


@dataclass(frozen=True)
class Repository:
    """A repository at a revision (None: its head), and how messages speak of it.

    `name_at` and `revision_at` are where a person wrote the two, `page` is where one can read about it, `instructions` what opens
    it where it is gated.
    """

    name: str
    revision: str | None
    kind: Literal["dataset", "model"]
    name_at: str
    revision_at: str
    page: str
    instructions: str = ""


def hub_api() -> HfApi:
    """The client, at the endpoint of this moment."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


def repository_info(api: HfApi, repository: Repository, revision: str | None) -> DatasetInfo | ModelInfo:
    """Facts of a repository; a busy Hub is asked again after the time that it names."""
    from huggingface_hub import errors

    ask = api.dataset_info if repository.kind == "dataset" else api.model_info
    for wait in WAITS:
        try:
            return ask(repository.name, revision=revision)
        except errors.HfHubHTTPError as error:
            if error.response.status_code not in _BUSY:
                raise
            named = error.response.headers.get("Retry-After", "")
            time.sleep(min(float(named), _LONGEST_WAIT) if named.isdigit() else wait)
    return ask(repository.name, revision=revision)


def commit_of(info: DatasetInfo | ModelInfo, repository: Repository) -> str:
    """The commit that was answered for. Raises SourceError where there is none."""
    if info.sha is None or not COMMIT.fullmatch(info.sha):
        raise SourceError(f"The Hub gave no commit for {repository.name} at {repository.revision or 'its head'}.")
    return info.sha


def list_commit(api: HfApi, repository: Repository, commit: str) -> list[RepoFile]:
    """Its files, sorted by path. Raises SourceError for one that would leave the folder that it is put in."""
    from huggingface_hub.hf_api import RepoFile

    files = [entry for entry in api.list_repo_tree(repository.name, recursive=True, revision=commit, repo_type=repository.kind)
             if isinstance(entry, RepoFile)]  # fmt: skip
    for file in files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or "\\" in file.path:
            raise SourceError(f"{repository.name} lists a file outside its own folder ({file.path!r}); nothing was downloaded.")
    return sorted(files, key=lambda file: file.path)


def download(repository: Repository, commit: str, files: Sequence[RepoFile], folder: Path, progress: Progress) -> None:
    """Files of one commit into `folder`, under their names in the repository, each checked against the listing.

    What is there already and right is kept, half a file is continued. Raises SourceUnavailable or SourceError.
    """
    with one_sentence(repository), ThreadPoolExecutor(_DOWNLOADS) as pool:
        counting = _counting(progress)
        tasks = [pool.submit(_download, repository, commit, file, folder, counting) for file in files]
        try:
            for task in tasks:
                task.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # what has not begun need not: the set will not be complete
            raise
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's own book-keeping of this folder


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


def _download(repository: Repository, commit: str, file: RepoFile, dest: Path, counting: Any) -> None:
    """One file, checked; a broken one is fetched once more from the start."""
    from huggingface_hub import hf_hub_download

    path = dest / file.path
    for attempt in range(2):
        if not _is_right(path, file):
            hf_hub_download(
                repository.name,
                file.path,
                repo_type=repository.kind,
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
        f"{file.path} of {repository.name} arrived twice with other content than the Hub lists ({size} bytes, listed {file.size}); "
        "try again."
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
def one_sentence(repository: Repository) -> Iterator[None]:
    """The client's errors as ours. Nothing of theirs is repeated: their texts carry URLs and may carry signed parts of them."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        ours = _translate(error, repository)
        if ours is None:
            raise
        raise ours from None


def _translate(error: BaseException, repository: Repository) -> SourceError | None:
    """Our error for one of the client's; None for what is not about the Hub (a full disk, a defect)."""
    from huggingface_hub import errors

    repo, page = repository.name, repository.page
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        # the client could not ask, and looked for a local copy that nobody expects
        return _translate(error.__cause__, repository)
    if isinstance(error, errors.GatedRepoError):
        return SourceUnavailable(
            f"{repo} is gated and this machine has no access to it.",
            repository.instructions or f"Accept its conditions at {page} and sign in with `hf auth login`.",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return SourceUnavailable(
            f"{repo} does not exist on the Hub, or is private and this machine may not see it.",
            f"Check {repository.name_at}, or sign in with `hf auth login` ({page}).",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return SourceError(f"{repo} has no revision {repository.revision}; correct {repository.revision_at}.")
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
