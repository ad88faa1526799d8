# SPDX-License-Identifier: Apache-2.0
"""The `staffetta` command. Imports what is heavy only when a command needs it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from node.cli import ahead, guard, keep, keys, leaving, local, move, proof, reach, remote, silent, trail
from node.cli.context import Settings
from node.cli.demo import demo
from node.cli.output import explain, explain_use


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data",
    "data_dir",
    type=click.Path(path_type=Path),
    default=Path("."),
    help="The node's folder. Default: where you are.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text. May stand anywhere.")
@click.version_option(package_name="staffetta", prog_name="staffetta")
@click.pass_context
def cli(context: click.Context, data_dir: Path, as_json: bool) -> None:
    """Staffetta: sealed, consent-scoped referrals between agencies.

    Ends with 0 (done), 1 (refused; the sentence says what to do), 2 (wrong use) or 70 (a fault of ours).
    """
    context.obj = Settings(data_dir.absolute(), as_json)


for command in (
    local.init,
    local.serve,
    local.migrate,
    local.doctor,
    demo,
    remote.login,
    remote.logout,
    remote.peer,
    remote.staff,
    remote.desk,
    remote.refer,
    remote.referral,
    remote.outbox,
    reach.reach,
    reach.duty,
    reach.zone,
    keys.keys,
    guard.lock,
    guard.unlock,
    guard.clock_confirm,
    leaving.retire,
    trail.audit,
    keep.backup,
    keep.restore,
    move.database,
    ahead.programme,
    ahead.rehearse,
    ahead.report,
    proof.verify,
    silent.backstop,
):
    cli.add_command(command)


def main() -> None:
    """Run a command; whatever goes wrong is one sentence and an exit status, never a traceback."""
    words = sys.argv[1:]
    as_json = "--json" in words
    if as_json:  # wherever it stands: nobody remembers whether before or after the command
        words = ["--json", *(word for word in words if word != "--json")]
    try:
        sys.exit(cli.main(words, standalone_mode=False) or 0)
    except click.exceptions.Exit as leaving:
        sys.exit(leaving.exit_code)
    except click.Abort:
        click.echo("Stopped.", err=True)
        sys.exit(1)
    except click.ClickException as error:
        if as_json:
            explain_use(error.format_message())
        else:
            error.show()
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001  the one place where a person gets to see that something failed
        sys.exit(explain(error, as_json=as_json))
