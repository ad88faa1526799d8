# SPDX-License-Identifier: Apache-2.0
"""A short examination, before users find what is wrong. Changes nothing; says of each finding what to do.

What is on this machine is looked at here, what answers over the network in `node.cli.outside`, at the same time.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Connection, select

from node import config, filing, listing, watch
from node.casework import returning
from node.cli import outside
from node.errors import NodeError
from node.exchange import callback, peers
from node.office import audit, lock, roster, setup
from node.storage import files, revision, tables
from node.storage.here import Here
from node.storage.keystore import Keystore
from node.storage.settings import get_setting
from protocol import crypto, identity
from protocol.directory import Directory
from protocol.encoding import DAY_SECONDS, seconds
from protocol.errors import ProtocolError

#: Below this the database may soon not be able to take what peers send.
FREE_MIN_BYTES: Final = 500 * 1024 * 1024
#: The root lies in a safe, and whoever can fetch it has holidays.
RENEW_DAYS: Final = 60
#: A desk's key is changed by its own people on a page.
DESK_KEY_DAYS: Final = 30
BACKLOG_SECONDS: Final = 24 * 3600
BACKUP_DAYS: Final = 3
#: A node of this age without any backup is no longer being set up.
BACKUP_FIRST_DAYS: Final = 7
#: Agencies that one finding names; more do not fit on a screen.
_NAMED_MAX: Final = 12
#: Reading all of a larger file would take longer than somebody waits; `--thorough` does it.
QUICK_CHECK_MAX_BYTES: Final = 256 * 1024 * 1024
#: Corruption when two connections write or checkpoint at one moment: 3.7.0 to 3.51.2, repaired in two older lines too.
_WAL_FAULT: Final = ((3, 7, 0), (3, 51, 3))
_WAL_REPAIRED: Final = (((3, 44, 6), (3, 45, 0)), ((3, 50, 7), (3, 51, 0)))

Finding = dict[str, Any]


def examine(data_dir: Path, *, thorough: bool = False) -> list[Finding]:
    """Findings: `what`, `ok`, and a `text` that says what to do; `code` when something is wrong."""
    now = datetime.now(UTC)
    findings = [
        look("settings", partial(_settings, data_dir)),
        look("primitives", _primitives),
        look("modes", partial(_modes, data_dir)),
        look("disk", partial(_disk, data_dir)),
        look("keys", partial(_keys, data_dir, now)),
    ]
    if not findings[0]["ok"]:
        return findings  # without settings nothing else can be found
    settings = config.load(data_dir)
    with ThreadPoolExecutor(4, thread_name_prefix="doctor") as pool:
        asked = {
            "node": pool.submit(look, "node", partial(outside.node, data_dir)),
            "address": pool.submit(look, "address", partial(outside.address, settings)),
            "mail": pool.submit(look, "mail", partial(outside.mail, settings)),
        }
        try:
            with _reading(settings) as db:
                here = setup.load_here(db, Keystore.open(data_dir / "keys"), Directory())
                called = pool.submit(outside.call_back, here, peers.heard_last(db, now, callback.ASKED_MAX), now)
                findings += _in_database(db, here, settings, now, thorough)
                clocks = peers.clock_offset(db, now)
        except (NodeError, ProtocolError) as error:
            findings.append(_bad("database", error))
        else:
            try:
                found = called.result()
            except (NodeError, ProtocolError) as error:
                findings.append(_bad("reach", error))
                found = []
            else:
                findings.append(look("reach", partial(outside.reach, found)))
            findings.append(look("version", partial(outside.newest, data_dir, found)))
            findings.append(look("clock", partial(outside.clock, found, clocks)))
        findings += [one.result() for one in asked.values()]
    findings.append(look("services", partial(_services, settings)))
    findings.append(look("backups", partial(_backups, settings, now)))
    return findings


def look(what: str, check: Callable[[], str]) -> Finding:
    """One finding; a check that fails in a way nobody foresaw is a finding too, never a traceback."""
    try:
        return {"what": what, "ok": True, "text": check()}
    except (NodeError, ProtocolError) as error:
        return _bad(what, error)
    except Exception as error:  # noqa: BLE001  the others are still worth knowing
        kind = type(error).__name__
        return {"what": what, "ok": False, "text": f"This could not be examined ({kind}).", "code": "internal"}


def _bad(what: str, error: NodeError | ProtocolError) -> Finding:
    return {"what": what, "ok": False, "text": error.text, "code": error.code}


# -- this machine ----------------------------------------------------------------------------------------------------


def _settings(data_dir: Path) -> str:
    loaded = config.load(data_dir)
    for name, what in (
        (loaded.database.password_file, "the database's password"),
        (loaded.post.password_file, "the mail password"),
        (loaded.listen.tls_key, "the TLS key"),
    ):
        if name is not None:
            files.read_secret(files.secret_path(data_dir, name), what)
    return f"answers on {loaded.listen.host}:{loaded.listen.port}"


def _primitives() -> str:
    crypto.known_answer_test()
    return "give the known answers"


def _keys(data_dir: Path, now: datetime) -> str:
    store = Keystore.open(data_dir / "keys")
    entries = store.kem_entries(now)
    if not entries:
        raise NodeError("keys-old", "Every sealing key is too old for peers. Start the node: it makes a new one.")
    days = (max(entry.not_after for entry in entries) - seconds(now)) // DAY_SECONDS
    if days < identity.KEM_USE_DAYS - 2 * identity.KEM_ROTATE_DAYS:
        raise NodeError(
            "keys-old", f"No new sealing key was made; the last ends in {days} days. Run: staffetta keys rotate"
        )
    return f"{len(store.kem_keys)} sealing keys, the newest for {days} more days"


def _modes(data_dir: Path) -> str:
    """Everything in the folder is the node's alone."""
    for path in (data_dir, *data_dir.rglob("*")):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue  # the node works while we look
        if not path.is_symlink() and mode & 0o077 and path.name != config.NAME:
            raise NodeError("modes", f"Others can reach {path}. Run: chmod -R go-rwx {data_dir}")
    return "nobody else can read or write the folder"


def _disk(data_dir: Path) -> str:
    free = shutil.disk_usage(data_dir).free
    if free < FREE_MIN_BYTES:
        raise NodeError("disk", f"Only {free // 2**20} MiB are free. Make room before the node has to refuse mail.")
    return f"{free // 2**20} MiB free"


def _backups(settings: config.Config, now: datetime) -> str:
    note, at = watch.read_note(settings.data_dir), seconds(now)
    if not note.made:
        made_at = int((settings.data_dir / "keys" / "node.key").stat().st_mtime)
        if at - made_at > BACKUP_FIRST_DAYS * DAY_SECONDS:
            raise NodeError(
                "backup-none", "There is no backup. Run: staffetta backup --to FOLDER, and start its timer."
            )
        return "none yet: staffetta backup --to FOLDER"
    if at - note.made > BACKUP_DAYS * DAY_SECONDS:
        days = (at - note.made) // DAY_SECONDS
        raise NodeError("backup-old", f"The last backup is {days} days old. Look at its timer and its log.")
    opened = (
        "no two people have opened one" if not note.opened else f"opened {(at - note.opened) // DAY_SECONDS} days ago"
    )
    return f"the last is {(at - note.made) // 3600} h old; {opened}"


# -- the database ----------------------------------------------------------------------------------------------------


def _in_database(db: Connection, here: Here, settings: config.Config, now: datetime, thorough: bool) -> list[Finding]:
    """Each on its own: one fault does not hide the next."""
    findings = [look("sqlite", partial(_sqlite, db)), look("database", partial(_database, db, settings, thorough))]
    if not findings[-1]["ok"]:
        return findings
    counts = watch.counts(db, now)
    findings += [
        look("certificates", partial(_certificates, db, here, now)),
        look("backlog", partial(_backlog, counts)),
        look("alarms", partial(_alarms, counts)),
        look("lock", partial(_lock, db)),
        look("files", partial(_files, db, settings)),
        look("erasures", partial(_erasures, db, here, settings)),
    ]
    if thorough:
        findings.append(look("trail", partial(_trail, db)))
    return findings


@contextmanager
def _reading(settings: config.Config) -> Iterator[Connection]:
    """A connection that only reads, beside a node that serves."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    from node.storage import engines

    data_dir, chosen = settings.data_dir, settings.database
    url = engines.parse_url(chosen.url, data_dir)
    if url.get_backend_name() == engines.SQLITE:
        engine = create_engine(f"sqlite:///file:{quote(str(url.database))}?mode=ro&uri=true", hide_parameters=True)
    else:
        secret: dict[str, Any] = {"connect_timeout": outside.CONNECT_SECONDS}
        if chosen.password_file is not None:
            path = files.secret_path(data_dir, chosen.password_file)
            secret["password"] = files.read_secret(path, "the database's password").decode().strip()
        engine = create_engine(url, hide_parameters=True, connect_args=secret)
    try:
        with engine.connect() as db:
            yield db
    except (SQLAlchemyError, engine.dialect.loaded_dbapi.Error) as error:  # a compiled statement gives the driver's own
        text = "The database cannot be read. See that it runs and that the folder is ours."
        raise engines.explain(error) or NodeError("database", text) from None
    finally:
        engine.dispose()


def _sqlite(db: Connection) -> str:
    if db.dialect.name != "sqlite":
        return f"not used; PostgreSQL {db.exec_driver_sql('SHOW server_version').scalar()}"
    found = sqlite3.sqlite_version_info
    repaired = any(low <= found < high for low, high in _WAL_REPAIRED)
    if _WAL_FAULT[0] <= found < _WAL_FAULT[1] and not repaired:
        return (
            f"version {sqlite3.sqlite_version} has the WAL-reset fault, which needs two writers at once: the node has "
            "one. Never open node.db with another program that writes while the node runs."
        )
    return f"version {sqlite3.sqlite_version}, without a fault that is known to us"


def _services(settings: config.Config) -> str:
    from node.office import services

    named = settings.reach.services
    if not named:
        return "none but mail ([reach] in staffetta.toml)"
    if not services.is_installed():
        raise NodeError("services", "[reach] names services that cannot be used. Run: pip install 'staffetta[notify]'")
    return ", ".join(named)


def _database(db: Connection, settings: config.Config, thorough: bool) -> str:
    if not revision.is_current(db):
        if revision.is_known(db):
            raise NodeError("schema", "The database is of an older version. Start the node once, or: staffetta migrate")
        raise NodeError("schema-newer", "The database is of a newer version than this program. Install that version.")
    if db.dialect.name != "sqlite":
        return f"answers, version {revision.newest()}"
    size = (settings.data_dir / "node.db").stat().st_size if (settings.data_dir / "node.db").exists() else 0
    if size > QUICK_CHECK_MAX_BYTES and not thorough:
        return f"version {revision.newest()}, {size // 2**20} MiB; staffetta doctor --thorough reads all of it"
    check = "integrity_check" if thorough else "quick_check"
    damaged = db.exec_driver_sql(f"PRAGMA {check}").scalar() != "ok"
    if damaged or (thorough and db.exec_driver_sql("PRAGMA foreign_key_check").first() is not None):
        raise NodeError("database-damaged", "The database is damaged. Stop the node and restore the last backup.")
    return f"whole, version {revision.newest()}, {size // 2**20} MiB"


def _certificates(db: Connection, here: Here, now: datetime) -> str:
    """The node's, its officers' and its desks': who has to renew what, before peers refuse it."""
    setup.refuse_other_keys(db, here.keystore)
    at = seconds(now)
    active = set(db.execute(select(tables.staff.c.id).where(tables.staff.c.status == "active")).scalars())
    certified = [(watch.certificate_until(db), "The node's certificate ends")]
    certified += [
        (officer.certificate.not_after, "An officer's certificate ends")
        for officer in roster.officers(db, here).values()
        if officer.staff_id in active
    ]
    until, what = min(certified)
    days = (until - at) // DAY_SECONDS
    if days < RENEW_DAYS:
        raise NodeError("certificate", f"{what} in {days} days. Fetch the root, then: staffetta keys renew")
    bundle = get_setting(db, "bundle")
    if bundle is not None:
        for desk in identity.verify_bundle(bytes.fromhex(bundle), at).desks:
            left = (desk.key_until - at) // DAY_SECONDS
            if left < DESK_KEY_DAYS:
                raise NodeError(
                    "desk-key",
                    f"The key of the desk “{desk.entry.name}” ends in {left} days. Change it on the page “Desks”.",
                )
            days = min(days, left)
    return f"the first to end has {days} more days"


def _backlog(counts: dict[str, Any]) -> str:
    if counts["oldest"] > BACKLOG_SECONDS:
        hours = int(counts["oldest"] // 3600)
        raise NodeError("backlog", f"A message waits for {hours} h. See `staffetta outbox`, telephone that agency.")
    return f"{counts['queued']} messages wait, none for long"


def _alarms(counts: dict[str, Any]) -> str:
    if counts["alarms_open"]:
        raise NodeError(
            "alarms", f"{counts['alarms_open']} alarms are open. Sign in as administrator and look at them."
        )
    return f"none; {counts['tasks_open']} tasks wait for people"


def _lock(db: Connection) -> str:
    waiting = returning.unanswered(db)
    if waiting:
        named = ", ".join(agency[:12] for agency in waiting[:_NAMED_MAX])
        raise NodeError(
            "not-answered",
            f"Restored, and locked until {len(waiting)} agencies have said what was stopped since the backup: {named}. "
            "Telephone those that do not answer within minutes, then: staffetta unlock --anyway",
        )
    if lock.is_locked(db):
        raise NodeError("locked", "The node is locked: nobody can sign in. When it is safe again: staffetta unlock")
    return "open for its people"


def _files(db: Connection, settings: config.Config) -> str:
    depot = filing.depot(settings.data_dir)
    count, lost = filing.missing(db, depot)
    if lost:
        raise NodeError(
            "files-missing",
            f"{lost} of {count} parts of files are not in {settings.data_dir / filing.FOLDER}. If another host of this "
            "node has them, mount its folder here; else bring the folder back from a copy of the disk.",
        )
    wanted = config.DISK if filing.uses_depot(settings) else config.DATABASE
    return f"new ones go to the {wanted}; {count} parts lie in the folder {filing.FOLDER}, all there"


def _erasures(db: Connection, here: Here, settings: config.Config) -> str:
    """Whatever was erased is listed where a backup that is restored finds it."""
    for path in listing.places(settings, here.agency):
        lacking = listing.missing(db, path, here.agency)
        if path.parent != settings.data_dir and not path.exists():
            raise NodeError(
                "erasures-not-listed",
                f"There is no list of erasures in {path.parent} ([erasures] also). The node makes it in a minute if "
                "it runs and can write there: check that the folder is there, is the node's own, and of mode 0700.",
            )
        if lacking:
            raise NodeError(
                "erasures-not-listed",
                f"{lacking} erasures are not in {path}. The node adds them within a minute if it runs and can write "
                "there: check its disk and owner, and that the folder is of mode 0700.",
            )
    if not settings.erasures.also:
        return "listed in the data folder only; name a folder on another disk in staffetta.toml, [erasures] also"
    return "all listed, in the data folder and in the second place"


def _trail(db: Connection) -> str:
    for chain, _ in audit.chains(db):
        _, broken = audit.verify(db, chain)
        if broken is not None:
            raise NodeError("trail", f"The trail does not fit at entry {broken}. Keep a copy and tell your director.")
    return "every entry fits the one before"
