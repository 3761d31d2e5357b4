"""raw rows + media facts → validated rows: frame, parse, facts, contract, across rows, write.

Belongs here: the order of these steps, and that every row is accounted for. Does not belong here: layouts, rules, file formats
(next door). rows_in = rows_ok + rows_quarantined, always.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from molmo2_assets.ingest.adapters import Adapter, Context, Piece, adapter_of
from molmo2_assets.ingest.contracts import Facts, facts_of, verdicts
from molmo2_assets.ingest.media_table import MediaRecord, read_media
from molmo2_assets.ingest.quarantine import Quarantined, by_reason, preview, write_quarantine
from molmo2_assets.ingest.reasons import LEFT_OUT, RowFault
from molmo2_assets.ingest.rows import BadRow, RawRow, annotation_files
from molmo2_assets.ingest.tables import rows_of
from training_backend.data.example import SCHEMA, Branch, Example, Media, Source
from training_backend.data.fingerprint import fingerprint
from training_backend.data.store import RowWriter

if TYPE_CHECKING:
    from molmo2_assets.profile import DatasetSpec

SAMPLES_FILE = "samples.json"
_SAMPLES = 12
_LOG_SECONDS = 30.0


@dataclass
class ValidateReport:
    """What became of a set's rows. `rejected`: more were set aside than the entry allows; nothing is published then."""

    rows_in: int
    rows_ok: int
    quarantined: dict[str, int]
    data_version: str
    facts: dict[str, Any]
    rejected: bool
    examples: int = 0


@dataclass(slots=True)
class _Accepted:
    """A row that parsed: its piece, where it stands, the facts of what it says."""

    row: RawRow
    piece: Piece
    facts: Facts


@dataclass
class _Work:
    dataset: str
    accepted: list[_Accepted] = field(default_factory=list)
    aside: list[Quarantined] = field(default_factory=list)
    rows: int = 0

    def set_aside(self, row: RawRow | BadRow, stage: Any, fault: RowFault) -> None:
        text = row.preview if isinstance(row, BadRow) else preview(row.data)
        self.aside.append(
            Quarantined(
                dataset=self.dataset,
                file=row.file,
                row=row.row,
                stage=stage,
                reason=fault.reason,
                field=fault.field,
                detail=fault.detail[:200],
                byte_offset=row.offset,
                byte_length=row.length,
                preview=text,
            )
        )


def validate(spec: DatasetSpec, raw: Path, media: Path, dest: Path, log: Callable[[str], None]) -> ValidateReport:
    """Write data.jsonl, data.idx, quarantine.jsonl and samples.json into `dest`.

    Equal inputs give equal bytes. Raises ValueError where a whole file does not have the published layout.
    """
    adapter, context = adapter_of(spec)
    table = read_media(media)
    work = _Work(spec.name)
    spoke = time.monotonic()
    files = annotation_files(raw, spec.source.patterns)
    if not files:
        raise ValueError(f"{spec.name}: its raw files hold no annotations of {list(spec.source.patterns) or 'a known type'}")
    for path in files:
        for row in rows_of(spec, path, raw, adapter.needs(context), adapter.optional):
            work.rows += 1
            _one_row(row, adapter, context, table, work)
            if time.monotonic() - spoke > _LOG_SECONDS:
                log(f"{spec.name}: {work.rows} rows read, {len(work.aside)} set aside")
                spoke = time.monotonic()
    _apply_contract(spec, work)
    _compare_rows(work)
    examples = list(_merge(spec, work))
    rows_ok = len(work.accepted)
    assert work.rows == rows_ok + len(work.aside), "every row is either accepted or set aside"
    left_out = sum(row.reason in LEFT_OUT for row in work.aside)
    share = (len(work.aside) - left_out) / (work.rows - left_out) if work.rows > left_out else 0.0
    rejected = share > spec.max_bad_fraction
    write_quarantine(dest, work.aside)
    facts = {"bad_fraction": round(share, 6), "max_bad_fraction": spec.max_bad_fraction, **_sketch(examples)}
    reasons = by_reason(work.aside)
    if rejected:
        return ValidateReport(work.rows, rows_ok, reasons, "rejected", facts, rejected=True)
    with RowWriter(dest) as writer:
        for example in examples:
            writer.add(example)
    assert writer.info is not None
    step = max(1, len(examples) // _SAMPLES)
    (dest / SAMPLES_FILE).write_bytes(msgspec.json.encode([example.id for example in examples[::step][:_SAMPLES]]))
    facts["tasks"] = writer.info.tasks
    return ValidateReport(work.rows, rows_ok, reasons, writer.info.data_version, facts, rejected=False, examples=len(examples))


def _one_row(row: RawRow | BadRow, adapter: Adapter, context: Context, table: dict[str, MediaRecord], work: _Work) -> None:
    if isinstance(row, BadRow):
        work.set_aside(row, "parse", row.fault)
        return
    try:
        references = adapter.media(row, context)
    except Exception as error:
        work.set_aside(row, "layout", _fault(error))
        return
    found = []
    for number, reference in enumerate(references):
        record = table.get(reference.uri)
        if record is None:
            work.set_aside(row, "media", RowFault("media_missing", reference.uri, "no such medium was collected"))
            return
        if record.state != "ok":
            work.set_aside(row, "media", RowFault(f"media_{record.reason}", reference.uri, record.detail))
            return
        if reference.sha256 and reference.sha256 != record.sha256:
            work.set_aside(row, "media", RowFault("media_checksum", reference.uri, f"published {reference.sha256[:12]}…"))
            return
        found.append(record.media(f"m{number}"))
    try:
        piece = adapter.read(row, found, context)
    except Exception as error:
        work.set_aside(row, "layout", _fault(error))
        return
    work.accepted.append(_Accepted(row, piece, facts_of(piece.branches, piece.media)))


def _fault(error: Exception) -> RowFault:
    """What an adapter said of a row. Adapters name what they foresee; a row built in a way that they do not is set aside as well,
    and counts towards the limit that rejects a set whose layout has changed."""
    if isinstance(error, RowFault):
        return error
    return RowFault("wrong_type", "", f"{type(error).__name__}: {error}")


def _apply_contract(spec: DatasetSpec, work: _Work) -> None:
    kept = []
    for item, verdict in zip(work.accepted, verdicts(spec.family, [item.facts for item in work.accepted]), strict=True):
        if verdict is None:
            kept.append(item)
        else:
            reason, name = verdict
            work.set_aside(item.row, "contract", RowFault(reason, name, str(item.facts[name])))
    work.accepted = kept


def _compare_rows(work: _Work) -> None:
    """Set aside rows that contradict others about their media, and rows that say again what an earlier one said.

    Where rows of one group disagree, what most of them say holds, and among equals the one with the smaller hash: never the one
    that happens to come first, so that the order of the source decides nothing.
    """
    import duckdb
    import pyarrow as pa

    if not work.accepted:
        return
    rows = pa.table(
        {
            "place": list(range(len(work.accepted))),
            "key": [item.piece.key for item in work.accepted],
            "about": [_about(item.piece) for item in work.accepted],
            "said": [_said(item.piece) for item in work.accepted],
        }
    )
    connection = duckdb.connect()
    connection.register("rows", rows)
    found = connection.execute(
        """
        with counted as (select *, count(*) over (partition by key, about) as agreeing from rows),
        compared as (
            select place,
                   about <> first_value(about) over (partition by key order by agreeing desc, about) as conflict,
                   row_number() over (partition by key, about, said order by place) > 1 as again
            from counted)
        select place, case when conflict then 'id_conflict' else 'duplicate' end
        from compared where conflict or again order by place
        """
    ).fetchall()
    connection.close()
    reasons = dict(found)
    for place, reason in reasons.items():
        detail = "most rows of its group say otherwise" if reason == "id_conflict" else "see the earlier row"
        work.set_aside(work.accepted[place].row, "cross", RowFault(reason, work.accepted[place].piece.key, detail))
    work.accepted = [item for place, item in enumerate(work.accepted) if place not in reasons]


def _about(piece: Piece) -> str:
    """Identity of what rows of one group must agree on: their media, and the masks of the objects that their points are on."""
    return fingerprint([list(piece.media), piece.meta.get("masks")])


def _said(piece: Piece) -> str:
    return fingerprint([list(piece.branches)])


def _merge(spec: DatasetSpec, work: _Work) -> Iterable[Example]:
    """Pieces about the same media become one example with all their branches; examples in order of first appearance, the pieces
    of one in an order of their own, because branches are part of an example's identity and the order of the source is not."""
    groups: dict[str, list[_Accepted]] = {}
    for item in work.accepted:
        groups.setdefault(item.piece.key, []).append(item)
    for key, items in groups.items():
        names: dict[str, int] = {}
        branches: list[Branch] = []
        meta: dict[str, Any] = {}
        for item in sorted(items, key=lambda item: (item.piece.branches[0].id, _said(item.piece))) if len(items) > 1 else items:
            called: dict[str, str] = {}
            for branch in item.piece.branches:
                count = names[branch.id] = names.get(branch.id, 0) + 1
                called[branch.id] = branch.id if count == 1 else f"{branch.id}~{count}"
                branches.append(branch if count == 1 else msgspec.structs.replace(branch, id=called[branch.id]))
            for name, value in item.piece.meta.items():
                if name == "answers":  # by branch
                    value = {called[branch]: answers for branch, answers in value.items()}
                meta[name] = {**meta[name], **value} if isinstance(meta.get(name), dict) else value
        first = items[0]
        yield Example(
            id=f"{spec.name}/{key}",
            schema=SCHEMA,
            task=spec.task,
            source=Source(file=first.row.file, row=first.row.row),
            media=first.piece.media,
            branches=tuple(branches),
            meta=meta,
        )


def _sketch(examples: list[Example]) -> dict[str, Any]:
    """Quantiles of what a person would ask first: branches, words, media, seconds."""
    if not examples:
        return {}

    def seconds(media: tuple[Media, ...]) -> float:
        return max((item.seconds or 0.0 for item in media), default=0.0)

    columns = {
        "branches": [float(len(example.branches)) for example in examples],
        "media": [float(len(example.media)) for example in examples],
        "seconds": [seconds(example.media) for example in examples],
        "words": [float(sum(_words(branch) for branch in example.branches)) for example in examples],
    }
    return {"quantiles": {name: _quantiles(values) for name, values in columns.items()}}


def _words(branch: Branch) -> int:
    from training_backend.data.example import Text

    return sum(len(part.text.split()) for turn in branch.turns for part in turn.parts if isinstance(part, Text))


def _quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {f"p{share}": ordered[min(len(ordered) - 1, share * len(ordered) // 100)] for share in (0, 25, 50, 75, 95, 100)}
