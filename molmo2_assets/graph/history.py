"""Dagster's history in SQLite, as activate.sh configures it: the layout of Dagster's own storage, with connections that are kept.

Belongs here: how the databases are opened. Does not belong here: what is written, which is Dagster's.

Dagster opens a connection for every statement and closes it again, and SQLite, whose last connection to a database writes it out,
then waits for the disk: some twenty times a step, more than anything else in a run in which nothing changes. Here connections stay
open, with the statements compiled for them, and a commit waits for no disk. A process that is killed loses nothing; a machine that
loses power may lose the last seconds of history, never its integrity, and no asset: manifests are the truth.
"""

from __future__ import annotations

import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster._core.event_api import EventHandlerFn
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorageWatchdog
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DisconnectionError
from watchdog.events import FileSystemEvent
from watchdog.observers import Observer

_RUNS_AT_ONCE = 8
"""Databases of runs that a process keeps open: a UI looks at many, one after another."""


def kept_engine(url: str) -> Engine:
    """An engine whose one idle connection stays open, and whose commits wait for no disk."""
    engine = create_engine(url, pool_size=1, max_overflow=-1, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS})
    path = Path(str(engine.url.database))

    def identity() -> tuple[int, int]:
        return os.getpid(), path.stat().st_ino if path.exists() else 0

    @event.listens_for(engine, "connect")
    def opened(connection: Any, record: Any) -> None:
        # With a write-ahead log: fsync where it is written out, not at every commit.
        connection.execute("PRAGMA synchronous=NORMAL")
        record.info["identity"] = identity()

    @event.listens_for(engine, "checkout")
    def taken(connection: Any, record: Any, _proxy: Any) -> None:
        # SQLite must not be carried through a fork; and a database that somebody removed would be written on, seen by nobody.
        if record.info["identity"] != identity():
            if record.info["identity"][0] != os.getpid():
                record.dbapi_connection = None  # the parent's to close
            raise DisconnectionError("this connection belongs to another process or to a file that is gone")

    return engine


def _close(engines: MutableMapping[str, Engine], owner: int) -> None:
    """Close what the process `owner` keeps open, so that no write-ahead log stays behind; in a fork of it, do nothing."""
    while engines and os.getpid() == owner:
        engines.popitem()[1].dispose()


class KeptEvents(SqliteEventLogStorage):
    """Events: a database a run, and the index of all."""

    _obs: Any  # Dagster's, which gives it no type

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        self._there: set[tuple[str, str]] = set()
        weakref.finalize(self, _close, self._engines, os.getpid())  # few that make an instance dispose of it
        super().__init__(base_dir, inst_data)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> KeptEvents:
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            engine = self._engines.get(shard)
            if engine is None:
                engine = self._engines[shard] = kept_engine(self.conn_string_for_shard(shard))
                while len(self._engines) > _RUNS_AT_ONCE:
                    self._engines.pop(next(iter(self._engines))).dispose()
            self._engines.move_to_end(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection

    def has_table(self, table_name: str) -> bool:
        ask = super().has_table
        return self._once("table", table_name, lambda: ask(table_name))

    def has_secondary_index(self, name: str) -> bool:
        ask = super().has_secondary_index
        return self._once("index", name, lambda: ask(name))

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        ask = super()._has_asset_key_col_on_connection
        return self._once("column", column_name, lambda: ask(conn, column_name))

    def _once(self, kind: str, name: str, ask: Callable[[], bool]) -> bool:
        """Dagster asks at every event whether its schema has been migrated; what is there stays there."""
        if (kind, name) not in self._there:
            if not ask():
                return False
            self._there.add((kind, name))
        return True

    def watch(self, run_id: str, cursor: str | None, callback: EventHandlerFn) -> None:
        if not self._obs:
            self._obs = Observer()
            self._obs.start()
        watchdog = _Watchdog(self, run_id, callback, cursor)
        self._watchers[run_id][callback] = (watchdog, self._obs.schedule(watchdog, self._base_dir, recursive=True))

    def dispose(self) -> None:
        super().dispose()
        with self._db_lock:
            _close(self._engines, os.getpid())


class _Watchdog(SqliteEventLogStorageWatchdog):
    """Tells a UI of new events. With connections kept they stand in the write-ahead log long before the database changes."""

    def __init__(self, events: KeptEvents, run_id: str, callback: EventHandlerFn, cursor: str | None) -> None:
        super().__init__(events, run_id, callback, cursor)
        self._patterns = [self._log_path, f"{self._log_path}-wal"]

    def on_modified(self, event: FileSystemEvent) -> None:
        self._process_log()


class KeptRuns(SqliteRunStorage):
    """Runs, their tags and snapshots."""

    def __init__(self, conn_string: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engine = kept_engine(conn_string)
        weakref.finalize(self, _close, {"runs": self._engine}, os.getpid())
        super().__init__(conn_string, inst_data)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

    def dispose(self) -> None:
        self._engine.dispose()


class KeptHistory(DagsterSqliteStorage):
    """What dagster.yaml names: runs, events and schedules where Dagster's own storage has them."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self.base_dir = base_dir
        self._inst_data = inst_data
        self._run_storage = KeptRuns.from_local(os.path.join(base_dir, "history", ""))
        self._event_log_storage = KeptEvents(os.path.join(base_dir, "history", "runs", ""))
        self._schedule_storage = SqliteScheduleStorage.from_local(os.path.join(base_dir, "schedules"))
        super(DagsterSqliteStorage, self).__init__()  # not its own, which would open all of them once more

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> KeptHistory:
        return cls(inst_data=inst_data, **config_value)
