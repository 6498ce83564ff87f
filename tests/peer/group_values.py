"""Whatever gateways and coordinators can say of members and groups, for tests that draw it."""

from __future__ import annotations

from hypothesis import strategies as st

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.group_views import GroupState, MemberView
from riverrun_server.core.groups.joining import Join, Reattach
from riverrun_server.core.groups.members import Assignor
from riverrun_server.core.groups.offsets import CommittedOffset, OffsetRecord
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.coordination import (
    Attached,
    BeatRefused,
    Detached,
    GroupDescription,
    GroupListing,
    GroupPage,
    GroupQuery,
    Leave,
    MemberBeat,
    MemberCommit,
    MemberDescription,
    MemberName,
    MemberState,
    NewMember,
    Revoked,
)

GROUP = "g"

# Small ones often: 0 is on the wire what is not said.
counts = st.integers(0, 2) | st.integers(0, 2**63 - 1)
names = st.text(max_size=12)
ids = st.text(min_size=1, max_size=12)
tokens = st.binary(max_size=20)
assignors = st.none() | st.sampled_from(Assignor)
partitions = st.builds(
    PartitionId,
    st.sampled_from([b"t" * 16, b"u" * 16]),
    st.integers(0, 20) | st.integers(0, 2**31 - 1),
)
held = st.dictionaries(partitions, st.integers(0, 3) | counts, max_size=12)
joins = st.builds(
    Join,
    topics=st.lists(names, max_size=4).map(tuple),
    pattern=names,
    instance_id=names,
    client_id=names,
    address=names,
    rack=names,
    assignor=assignors,
    session_timeout_ms=st.none() | counts,
    revocation_timeout_ms=st.none() | counts,
)
starts = st.builds(NewMember, ids, tokens, joins) | st.builds(
    Reattach, member_id=ids, token=tokens, address=names, attachment=st.none() | counts
)


@st.composite
def views(draw):
    owned, revoking = draw(held), draw(held)
    for each in revoking:
        owned.pop(each, None)
    return MemberView(draw(counts), owned, revoking)


attached = st.builds(Attached, ids, counts, tokens, counts, counts, views())
beats = st.builds(MemberBeat, st.sampled_from(["g", "h"]) | names, ids, counts)
refused_beats = st.builds(BeatRefused, beats, st.sampled_from(Reason))
revocations = st.builds(Revoked, ids, counts, held)
leaves = st.builds(Leave, ids, counts | tokens, st.booleans())
detachments = st.builds(Detached, ids, counts)
offsets = st.builds(
    CommittedOffset,
    counts,
    st.none() | st.integers(0, 2**31 - 1),
    names,
    st.integers(-(2**63), 2**63 - 1),
)
records = st.lists(
    st.builds(OffsetRecord, st.just(GROUP), partitions, offsets),
    max_size=5,
    unique_by=lambda record: record.partition,
)
commits = st.builds(MemberCommit, ids, st.none() | counts, counts, records)
refusals = st.dictionaries(
    partitions, st.builds(Refusal, st.sampled_from(Reason), names), max_size=4
)
descriptions = st.builds(
    GroupDescription,
    st.none() | st.sampled_from(GroupState),
    assignors,
    counts,
    st.lists(
        st.builds(
            MemberDescription,
            ids,
            joins,
            st.none() | st.sampled_from(MemberState),
            st.none() | st.integers(0, 2**31 - 1),
            counts,
            views(),
            st.frozensets(partitions, max_size=12),
        ),
        max_size=4,
    ).map(tuple),
)
queries = st.builds(
    GroupQuery, names, st.integers(1, 1000), st.frozensets(st.sampled_from(GroupState))
)
listings = st.builds(
    GroupListing,
    ids,
    st.none() | st.sampled_from(GroupState),
    st.integers(0, 2**31 - 1),
    assignors,
)
pages = st.one_of(
    st.builds(GroupPage, st.lists(listings, max_size=4).map(tuple), st.just(False)),
    st.builds(GroupPage, st.lists(listings, min_size=1, max_size=4).map(tuple), st.booleans()),
)
member_names = st.one_of(
    st.builds(MemberName, ids, st.just("")), st.builds(MemberName, st.just(""), ids)
)
