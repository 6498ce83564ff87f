"""What shells complete: bash at a real prompt, and each shell's function on words of our own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from tests.client.cli_process import SCRIPT, CommandLine
from tests.client.terminal import Terminal, plain
from tests.e2e.broker_process import BrokerProcess

TOPIC = "orders"


@pytest.fixture(scope="module")
def cli(tmp_path_factory):
    broker = BrokerProcess(tmp_path_factory.mktemp("broker"))
    try:
        broker.start()
        commands = CommandLine(broker.address)
        commands.run("topic", "create", TOPIC)
        commands.env["PATH"] = f"{SCRIPT.parent}:{os.environ['PATH']}"
        yield commands
    finally:
        broker.stop()


# The line that a tab leaves is printed and given up by ctrl-o; what a tab offers stands before it.
PROMPT = r"""
bind 'set bell-style none'; bind 'set enable-bracketed-paste off'
bind 'set show-all-if-ambiguous on'; bind 'set page-completions off'
bind 'set completion-query-items 0'
show() { printf '\n<%s>\n' "$READLINE_LINE"; READLINE_LINE=; }
bind -x '"\C-o": show'
PS1= PS2=
eval "$(riverrun completion bash)"
"""


class Prompt:
    """A bash that somebody sits at."""

    def __init__(self, terminal, env, tmp_path):
        (tmp_path / "rc").write_text(PROMPT)
        self._terminal = terminal
        self._seen = 0
        self.process = terminal.start(
            ["bash", "--noprofile", "--rcfile", str(tmp_path / "rc"), "-i"], env=env
        )

    def tab(self, line, behind="", run=""):
        """Type a line and a tab in it; return the line that is there then, and what was offered."""
        left = b"\x1b[D" * len(behind)
        text = (f"{run}\r" if run else "") + line + behind
        self._terminal.type(text.encode() + left + b"\t\x0f")
        said = self._terminal.wait_for(re.compile(rb"<([^<>\r\n]*)>\r?\n"), self._seen)
        offered = plain(self._terminal.written()[self._seen : said.start()])
        self._seen = said.end()
        return said[1].decode(), offered


@pytest.fixture(scope="module")
def prompt(cli, tmp_path_factory):
    with Terminal(columns=400) as terminal:
        # The broker of the environment is one that does not answer.
        env = cli.env | {"RIVERRUN_BOOTSTRAP": "127.0.0.1:1", "HISTFILE": ""}
        prompt = Prompt(terminal, env, tmp_path_factory.mktemp("bash"))
        try:
            yield prompt
        finally:
            prompt.process.kill()
            prompt.process.wait()


@pytest.mark.parametrize(
    ("line", "added"),
    [
        ("riverrun --bootstrap ADDRESS consume or", "ders "),
        ("riverrun consume --bootstrap=127.0.0.1:1,ADDRESS or", "ders "),
        ("riverrun --bootstrap ADDRESS consu", "me "),
        ("riverrun consume --bootstrap ADDRESS,127.0.0.1:71", "71 "),
        ("riverrun consume --bootstrap=127.0.0.1:71", "71 "),
        ("riverrun cluster drain --bootstrap ADDRESS ", "1 "),
        ("riverrun cluster elect-leaders --all --bootstrap ADDRESS or", "ders "),
        ("riverrun topic alter t --config=fsync=true --config retention.m", "s="),
        ("riverrun topic offsets --bootstrap ADDRESS --at @1000 or", "ders "),
        ("A=1:2 riverrun consume --format '%k=%s: %v' --bootstrap ADDRESS or", "ders "),
        ("echo a:b | riverrun --bootstrap ADDRESS produce or", "ders "),
    ],
)
def test_bash_completes_behind_every_sign_at_which_it_breaks_words(cli, prompt, line, added):
    line = line.replace("ADDRESS", cli.env["RIVERRUN_BOOTSTRAP"])
    assert prompt.tab(line)[0] == line + added


def test_bash_completes_in_the_middle_of_a_line(cli, prompt):
    line = f"riverrun --bootstrap {cli.env['RIVERRUN_BOOTSTRAP']} consume or"
    assert prompt.tab(line, behind=" --max 3")[0] == f"{line}ders --max 3"
    assert prompt.tab(line, behind="x")[0] == f"{line}dersx"


def test_bash_offers_the_arguments_of_a_command_behind_an_address_and_not_the_commands(cli, prompt):
    line = f"riverrun --bootstrap {cli.env['RIVERRUN_BOOTSTRAP']} topic "
    there, offered = prompt.tab(line)
    assert there == line
    assert {"create", "describe", "delete"} <= set(offered.split())
    assert "doctor" not in offered


def test_addresses_stay_whole_where_bash_does_not_break_words_at_colons(cli, prompt):
    run = "COMP_WORDBREAKS=${COMP_WORDBREAKS//:}"
    back = "COMP_WORDBREAKS=$COMP_WORDBREAKS:"
    line = f"riverrun --bootstrap {cli.env['RIVERRUN_BOOTSTRAP']} consume or"
    assert prompt.tab(line, run=run)[0] == f"{line}ders "
    line = "riverrun --bootstrap 127.0.0.1:71"
    assert prompt.tab(line)[0] == f"{line}71 "
    assert prompt.tab(line, run=back)[0] == f"{line}71 "


# What each shell would run at a tab, the functions of its own completion system reduced to printing.
COMPLETED = {
    "bash": """
        eval "$(riverrun completion bash)"
        COMP_WORDS=(riverrun {words}) COMP_CWORD={at} COMP_LINE='riverrun {words}'
        COMP_POINT=${{#COMP_LINE}}
        _riverrun_completion riverrun
        printf '%s\\n' "${{COMPREPLY[@]}}" """,
    "zsh": """
        compdef() {{ }}; compadd() {{ print -rl -- $completions }}
        _describe() {{ print -rl -- ${{completions_with_descriptions%%:*}} }}
        eval "$(riverrun completion zsh)"
        words=(riverrun {words}) CURRENT={at}+1
        _riverrun_completion""",
    "fish": """
        riverrun completion fish | source
        complete -C 'riverrun {words}' | string replace -r '\\t.*' ''""",
}
SHELLS = {name: where for name in COMPLETED if (where := shutil.which(name))}
"""Those of this machine; bash is everywhere, and the two others where somebody installed them."""


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("consume ord", ["orders"]),
        ("group describe g --topic ord", ["orders"]),
        ("topic de", ["delete", "describe"]),
        ("produce orders --ac", ["--acks"]),
        ("consume orders --from yes", ["yesterday"]),
        ("topic alter orders --config retention.m", ["retention.ms="]),
    ],
)
def test_commands_options_and_topics_are_completed_by_a_shell(cli, shell, words, offered):
    script = COMPLETED[shell].format(words=words, at=len(words.split()))
    done = subprocess.run(
        [SHELLS[shell], "-c", script],
        capture_output=True,
        timeout=60,
        check=False,
        text=True,
        env=cli.env,
    )
    assert sorted(done.stdout.split()) == offered, done.stderr


def test_bash_is_there_to_complete():
    assert "bash" in SHELLS


def test_the_addresses_of_the_environment_are_offered_and_those_given_not_again(cli):
    words = "riverrun consume --bootstrap=127.0.0.1:7171,127.0.0.1:"
    env = f"_RIVERRUN_COMPLETE=bash_complete COMP_WORDS='{words}' COMP_CWORD=2"
    address = cli.env["RIVERRUN_BOOTSTRAP"]
    assert cli.shell(f"{env} riverrun").stdout == f"plain,127.0.0.1:7171,{address}\n".encode()
