"""The table of errors, the enum on the wire and what its comments say are one and the same."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest

from riverrun.v1 import errors_pb2
from riverrun_server.core.errors import MEANINGS, Reason

PROTO = Path(__file__).resolve().parents[2] / "proto/riverrun/v1/errors.proto"
PREFIX = "ERROR_REASON_"
# The last comment line of each value: "// CODE, nothing happened." or "// CODE, unknown."
VALUE = re.compile(
    r"// ([A-Z_]+), (nothing happened|unknown)\.\n\s*" + PREFIX + r"([A-Z_]+) = (\d+);"
)


def documented() -> dict[str, tuple[str, str]]:
    return {found[3]: (found[1], found[2]) for found in VALUE.finditer(PROTO.read_text())}


def test_reasons_have_the_names_and_numbers_of_the_wire():
    wire = {
        key.removeprefix(PREFIX): number
        for key, number in errors_pb2.ErrorReason.items()
        if number != errors_pb2.ERROR_REASON_UNSPECIFIED
    }
    assert {reason.name: reason.value for reason in Reason} == wire


def test_every_reason_has_a_meaning_and_a_comment():
    assert set(MEANINGS) == set(Reason)
    assert set(documented()) == {reason.name for reason in Reason}


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_the_comment_says_the_code_and_the_outcome_of_the_table(reason):
    code, outcome = documented()[reason.name]
    assert code == MEANINGS[reason].code
    assert (outcome == "nothing happened") is MEANINGS[reason].definite


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_codes_exist_and_waiting_is_only_advised_where_sending_again_is_safe(reason):
    meaning = MEANINGS[reason]
    assert meaning.code in grpc.StatusCode.__members__
    if meaning.retry_after_s is not None:
        assert meaning.retry_safe
    if meaning.retry_safe:
        assert meaning.definite, "what may have happened must not be sent again blindly"
