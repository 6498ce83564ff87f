"""`riverrun doctor`: check what clients need from a broker, and say what to do where it lacks."""

from __future__ import annotations

import click

from riverrun.cli.exits import Exit
from riverrun.cli.settings import Command, settings
from riverrun.cli.tables import Table, print_json, print_table


@click.command(cls=Command, short_help="Check what clients need from a broker.")
@click.pass_context
def doctor(ctx: click.Context) -> int:
    r"""Check each address of --bootstrap: whether it answers, version, clock, limits and disk.

    The addresses that brokers give to clients are tried too, and every partition is looked at: one
    that is offline or without a leader is a failed check that names the command to run. So are brokers
    that are fenced, and partitions with fewer replicas in sync than they need; brokers that drain, and
    replicas that are behind, are warnings. What is not well comes with what to do. The exit code is 1
    where a check failed; warnings do not count.

    \b
    riverrun doctor
    riverrun doctor --bootstrap broker-1:7171,broker-2:7171
    riverrun doctor --output json | jq '.findings[] | select(.state != "ok")'
    """
    import asyncio  # noqa: PLC0415 - no help text needs it

    from riverrun.cli.checks import examine  # noqa: PLC0415 - imports grpc

    findings = asyncio.run(examine(settings(ctx)))
    failed = any(finding.state == "failed" for finding in findings)
    if settings(ctx).as_json:
        fields = [
            {
                "check": finding.check,
                "state": finding.state,
                "found": finding.found,
                "advice": finding.advice,
            }
            for finding in findings
        ]
        print_json({"ok": not failed, "findings": fields})
    else:
        rows = [
            (finding.check, finding.state, finding.found, finding.advice) for finding in findings
        ]
        print_table(Table(("CHECK", "STATE", "FOUND", "WHAT TO DO"), rows, states="STATE"))
    return Exit.FAILED if failed else Exit.OK
