# SPDX-License-Identifier: Apache-2.0
"""What the operator decides: one TOML file in the data folder. An unknown setting stops the start."""

from __future__ import annotations

import difflib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from node.errors import ConfigError
from node.exchange.client import check_address
from protocol.errors import LocalError

NAME: Final = "staffetta.toml"


class Database(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`url`: sqlite:///file (from the data folder) or postgresql+psycopg://user@host/name; password in a file."""

    url: str = "sqlite:///node.db"
    password_file: str | None = None


class Listen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the node answers. `metrics_port` is apart, on this machine only; 0 means none."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8470
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    #: How many proxies stand in front: 0, or exactly one whose X-Forwarded-For is believed.
    proxies: Literal[0, 1] = 0
    tls_certificate: str | None = None
    tls_key: str | None = None


class Agency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How other nodes reach this one: the public address, https except on one machine."""

    address: str = "http://127.0.0.1:8470"


class Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """JSON lines on standard output."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it, checked."""

    data_dir: Path
    database: Database = Database()
    listen: Listen = Listen()
    agency: Agency = Agency()
    log: Log = Log()


def load(data_dir: Path) -> Config:
    """Read the settings of a data folder. Raises ConfigError that names what is wrong and what to write instead."""
    path = data_dir / NAME
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("config-missing", f"There is no {path}. Run: staffetta init") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("config-unreadable", f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError("config-unreadable", f"{path} cannot be read. Check its owner and mode.") from error
    _refuse_unknown(path, raw)
    try:
        config = msgspec.convert({**raw, "data_dir": data_dir}, Config, dec_hook=_paths)
        check_address(config.agency.address)
    except msgspec.ValidationError as error:
        raise ConfigError("config-value", f"{path}: {error}") from error
    except LocalError as error:
        raise ConfigError("config-value", f"{path}, [agency] address: {error.text}") from error
    if (config.listen.tls_certificate is None) != (config.listen.tls_key is None):
        raise ConfigError("config-value", f"{path}: tls_certificate and tls_key belong together. Give both or neither.")
    return config


def _paths(kind: type[object], value: object) -> object:
    if kind is Path:
        return Path(str(value))
    raise NotImplementedError(kind.__name__)


_SECTIONS: Final = {"database": Database, "listen": Listen, "agency": Agency, "log": Log}


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
# Prometheus on 127.0.0.1; 0 means none.
# metrics_port = 9470
# The node's own certificate, if no proxy ends TLS.
# tls_certificate = "certificate.pem"
# tls_key = "certificate.key"

[database]
# For PostgreSQL: "postgresql+psycopg://staffetta@localhost/staffetta", with the password in a file of mode 0600.
url = {json.dumps(database.url)}
{password}

[log]
level = "info"
"""
