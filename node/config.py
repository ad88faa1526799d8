# SPDX-License-Identifier: Apache-2.0
"""What the operator decides: one TOML file in the data folder. An unknown setting stops the start."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from node.errors import ConfigError
from node.office import services
from node.office.services import Post, Reach
from node.place import Duty
from protocol.errors import LocalError

#: Each has four connections to the database, and a server has a hundred.
PROCESSES_MAX: Final = 16
NAME: Final = "staffetta.toml"
#: What `[attachments] store` may be.
DISK: Final = "disk"
DATABASE: Final = "database"
_ADDRESS: Final = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?")


class Database(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`url`: sqlite:///file (from the data folder) or postgresql+psycopg://user@host/name; password in a file."""

    url: str = "sqlite:///node.db"
    password_file: str | None = None


class Listen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the node answers. `metrics_port` is apart, 0 for none; `metrics_peers`: also of each agency, by its id."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8470
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    metrics_host: str = "127.0.0.1"
    metrics_peers: bool = False
    #: How many proxies stand in front: 0, or exactly one whose X-Forwarded-For is believed.
    proxies: Literal[0, 1] = 0
    tls_certificate: str | None = None
    tls_key: str | None = None


class Agency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How other nodes reach this one: the public address, https except on one machine."""

    address: str = "http://127.0.0.1:8470"


class Attachments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where sealed parts of files lie. `store`: "disk", "database"; empty: with SQLite the disk, else the database."""

    store: str = ""


class Erasures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`also`: a folder on another disk or machine where the list of what was erased is kept as well; a whole path."""

    also: str = ""


class Pages(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The staff's pages. `leave_to`: the harmless site to which “leave now” goes.

    `address`: where people open the pages, if not at the agency's address. Passkeys are bound to it.
    """

    leave_to: str = "https://www.wikipedia.org/"
    address: str = ""


class Processes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """On PostgreSQL: how many processes on this machine, and what they do."""

    count: Annotated[int, msgspec.Meta(ge=1, le=PROCESSES_MAX)] = 1
    role: Duty = Duty.ALL


class Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """JSON lines on standard output."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it, checked."""

    data_dir: Path
    database: Database = Database()
    listen: Listen = Listen()
    agency: Agency = Agency()
    pages: Pages = Pages()
    post: Post = Post()
    processes: Processes = Processes()
    attachments: Attachments = Attachments()
    erasures: Erasures = Erasures()
    reach: Reach = Reach()
    log: Log = Log()


def with_database(text: str, wanted: Database) -> str:
    """The text of a settings file, naming this database; everything else in it stays as it was."""
    lines = text.splitlines()
    begin = next((number for number, line in enumerate(lines) if line.strip() == "[database]"), None)
    setting = [f"url = {json.dumps(wanted.url)}"]
    if wanted.password_file is not None:
        setting.append(f"password_file = {json.dumps(wanted.password_file)}")
    if begin is None:
        return "\n".join([*lines, "", "[database]", *setting]) + "\n"
    end = next((n for n in range(begin + 1, len(lines)) if lines[n].lstrip().startswith("[")), len(lines))
    kept = [line for line in lines[begin + 1 : end] if not re.match(r"\s*(url|password_file)\s*=", line)]
    lines[begin + 1 : end] = [*setting, *kept]
    return "\n".join(lines) + "\n"


def load(data_dir: Path) -> Config:
    """Read the settings of a data folder. Raises ConfigError that names what is wrong and what to write instead."""
    # Here and not above: it brings the whole client with it, which most commands never need.
    from node.exchange.client import check_address

    path = data_dir / NAME
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("config-missing", f"There is no {path}. Run: staffetta init") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        twice = re.search(r"Cannot declare \('(\w+)',\) twice \(at line (\d+)", str(error))
        if twice is not None:  # what a guide shows was put at the end, where the section was there already
            raise ConfigError(
                "config-twice",
                f"{path}, line {twice[2]}: there is a section [{twice[1]}] already, further up. Write it there.",
            ) from error
        raise ConfigError("config-unreadable", f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError("config-unreadable", f"{path} cannot be read. Check its owner and mode.") from error
    _refuse_unknown(path, raw)
    try:
        config = msgspec.convert({**raw, "data_dir": data_dir}, Config, dec_hook=_paths)
        check_address(config.agency.address)
        check_leave_to(path, config.pages.leave_to)
        check_pages(path, config.pages.address)
        check_post(path, config.post)
        check_reach(path, config.reach)
        check_attachments(path, config.attachments)
        check_erasures(path, config.erasures)
    except msgspec.ValidationError as error:
        raise ConfigError("config-value", f"{path}: {error}") from error
    except LocalError as error:
        raise ConfigError("config-value", f"{path}, [agency] address: {error.text}") from error
    if (config.listen.tls_certificate is None) != (config.listen.tls_key is None):
        raise ConfigError("config-value", f"{path}: tls_certificate and tls_key belong together. Give both or neither.")
    return check_processes(config)


def check_processes(config: Config) -> Config:
    """The same, unless it wants several processes on one SQLite file."""
    if config.processes != Processes() and config.database.url.startswith("sqlite"):
        raise ConfigError(
            "several-on-sqlite",
            "On SQLite a node is one process that does everything. Leave out --workers, --role and [processes], or "
            "move to PostgreSQL first: staffetta database copy --to URL",
        )
    return config


def check_leave_to(path: Path, address: str) -> None:
    """It goes into a header of every page, so it is an address and nothing else."""
    if not _ADDRESS.fullmatch(address):
        raise ConfigError("config-value", f"{path}, [pages] leave_to: write an address like https://www.wikipedia.org/")


def check_pages(path: Path, address: str) -> None:
    """Passkeys are bound to it, so it is an address and nothing else."""
    if address and not _ADDRESS.fullmatch(address):
        raise ConfigError("config-value", f"{path}, [pages] address: write an address like https://node.example.org")


def check_post(path: Path, post: Post) -> None:
    """What it takes to send mail, or nothing of it."""
    if not post.host:
        return
    if not re.fullmatch(r"[^\s@<>]+@[^\s@<>]+", post.sender):
        raise ConfigError("config-value", f"{path}, [post] sender: write the address that mail comes from.")
    if post.security == "none" and post.host not in ("localhost", "127.0.0.1", "::1"):
        raise ConfigError("config-value", f"{path}, [post] security: without TLS only on this machine.")


def check_reach(path: Path, reach: Reach) -> None:
    """Only services that are known, and hosts by name."""
    for name in reach.services:
        if name not in services.KNOWN:
            raise ConfigError(
                "config-value",
                f"{path}, [reach] services: there is no {name}.{_nearest(name, services.KNOWN)} "
                f"Known: {', '.join(services.KNOWN)}.",
            )
    for host in reach.hosts:
        if not re.fullmatch(r"[a-z0-9.-]+(:[0-9]{1,5})?", host):
            raise ConfigError(
                "config-value", f"{path}, [reach] hosts: write small letters, as ntfy.example.org or localhost:8080."
            )


def check_attachments(path: Path, attachments: Attachments) -> None:
    """Only a store that there is."""
    known = (DISK, DATABASE)
    if attachments.store not in ("", *known):
        raise ConfigError(
            "config-value",
            f"{path}, [attachments] store: there is no {attachments.store}.{_nearest(attachments.store, known)} "
            f"Known: {', '.join(known)}.",
        )


def check_erasures(path: Path, erasures: Erasures) -> None:
    """A whole path: where a command is given must not decide where the list lies."""
    if erasures.also and not Path(erasures.also).is_absolute():
        raise ConfigError("config-value", f"{path}, [erasures] also: write a whole path, as /mnt/other/staffetta")


def _paths(kind: type[object], value: object) -> object:
    if kind is Path:
        return Path(str(value))
    raise NotImplementedError(kind.__name__)


_SECTIONS: Final = {
    "database": Database,
    "listen": Listen,
    "agency": Agency,
    "pages": Pages,
    "post": Post,
    "processes": Processes,
    "attachments": Attachments,
    "erasures": Erasures,
    "reach": Reach,
    "log": Log,
}


def _refuse_unknown(path: Path, raw: dict[str, object]) -> None:
    for section, values in raw.items():
        if section not in _SECTIONS:
            raise ConfigError(
                "config-unknown", f"{path}: there is no section [{section}].{_nearest(section, _SECTIONS)}"
            )
        known = _SECTIONS[section].__struct_fields__
        for name in values if isinstance(values, dict) else ():
            if name not in known:
                raise ConfigError(
                    "config-unknown", f"{path}: there is no setting {name} in [{section}].{_nearest(name, known)}"
                )


def _nearest(name: str, known: object) -> str:
    import difflib  # for somebody who mistyped a setting, and nobody else

    close = difflib.get_close_matches(name, list(known), 1)  # type: ignore[call-overload]  # any iterable of names
    return f" Did you mean {close[0]}?" if close else ""


def default_toml(*, address: str, host: str, port: int, database: Database) -> str:
    """The commented file that `staffetta init` writes."""
    name = database.password_file
    password = '# password_file = "database.password"' if name is None else f"password_file = {json.dumps(name)}"
    return f"""\
# Staffetta. What is absent has its default; an unknown name stops the start. Secrets are never in here.

[agency]
# Where other nodes reach this one. https, except for nodes on one machine.
address = "{address}"

[listen]
host = "{host}"
port = {port}
# 1 if a proxy such as Caddy or nginx stands in front: its X-Forwarded-For is believed.
# proxies = 1
# Prometheus, apart from everything else; 0 means none. Whoever reaches it reads how much waits, never of whom.
# metrics_port = 9470
# metrics_host = "127.0.0.1"
# true: also how much waits for each agency, by the beginning of its id.
# metrics_peers = false
# The node's own certificate, if no proxy ends TLS.
# tls_certificate = "certificate.pem"
# tls_key = "certificate.key"

[database]
# For PostgreSQL: "postgresql+psycopg://staffetta@localhost/staffetta", with the password in a file of mode 0600.
url = {json.dumps(database.url)}
{password}

[pages]
# Where “leave now” takes somebody who must not be seen here: a site that anybody may have open.
# leave_to = "https://www.wikipedia.org/"
# Where people open these pages, if not at the agency's address. Passkeys work there and nowhere else.
# address = "https://node.example.org"

[post]
# The mail server that tells staff “There is something to read”: that sentence, and nothing else, ever.
# host = "mail.example.org"
# port = 465
# security = "tls"              # or "starttls", mostly with port 587
# sender = "reminder@example.org"
# username = "reminder@example.org"
# password_file = "mail.password"

[reach]
# Other ways for the same sentence, with pip install staffetta[notify]: "ntfy", "signal", "matrix", "twilio", …
# (deploy/README.md lists them). Staff enter their own addresses, and only for what stands here.
# services = ["ntfy"]
# Those with a host of their own may talk to these hosts, and to no other.
# hosts = ["ntfy.example.org"]

[processes]
# On PostgreSQL only: how many processes on this machine, and whether they answer people and peers ("web"), deliver and
# keep the clocks ("worker"), or both ("all").
# count = 1
# role = "all"

[attachments]
# Where sealed parts of files lie: "disk" (the folder files/ beside this file) or "database". Without a word here: the
# disk, with PostgreSQL the database. Can be changed at any time; what is there moves by itself after the start.
# store = "disk"

[erasures]
# The list of what was erased (ids only) is kept in this folder; and here as well: a folder of mode 0700 on another disk
# or another machine. A backup that is restored erases again what is in the list: it must not be lost with this disk.
# also = "/var/backups/staffetta"

[log]
level = "info"
"""
