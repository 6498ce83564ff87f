"""GroupService: lists groups, tells who is in them and how far behind they are, and moves them.

Every method raises a Refusal for a call that fails as a whole; the interceptor makes a status of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from riverrun.v1 import group_pb2
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.commits import check_group_id
from riverrun_server.core.limits import Limits
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.ports.coordination import LISTED_MAX, GroupListing, GroupQuery, MemberName
from riverrun_server.ports.group_operations import GroupOperations
from riverrun_server.ports.partitions import Directory
from riverrun_server.rpc import group_descriptions, group_resets
from riverrun_server.rpc.errors import to_proto
from riverrun_server.rpc.group_progress import Progress
from riverrun_server.rpc.paging import page_token, read_page_token
from riverrun_server.rpc.reading_requests import check_count, check_not_negative, unknown_value
from riverrun_server.rpc.reply_size import check_size

SERVICE: Final = "riverrun.v1.GroupService"

_PAGE_DEFAULT: Final = 100

_Context = grpc.aio.ServicerContext[Any, Any]
# Each method takes and returns messages of its own types.
_Unary = Callable[[Any, _Context], Awaitable[Message]]


class GroupService:
    """Serves riverrun.v1.GroupService.

    Args:
        groups: asks their coordinators.
        directory: finds partitions.
        limits: how large a reply may be.
        reading: how many partitions a call may name.
        now_ms: the broker's clock.
    """

    def __init__(
        self,
        groups: GroupOperations,
        directory: Directory,
        limits: Limits,
        reading: ReadingLimits,
        now_ms: Callable[[], int],
    ) -> None:
        self._groups = groups
        self._directory = directory
        self._limits = limits
        self._reading = reading
        self._now_ms = now_ms
        self._progress = Progress(directory, to_proto, now_ms)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service's methods."""
        methods: dict[str, _Unary] = {
            "ListGroups": self.list_groups,
            "DescribeGroup": self.describe_group,
            "ResetOffsets": self.reset_offsets,
            "RemoveMember": self.remove_member,
            "DeleteGroup": self.delete_group,
        }
        service = group_pb2.DESCRIPTOR.services_by_name["GroupService"]
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                method.name: grpc.unary_unary_rpc_method_handler(
                    methods[method.name],
                    GetMessageClass(method.input_type).FromString,
                    GetMessageClass(method.output_type).SerializeToString,
                )
                for method in service.methods
            },
        )

    async def list_groups(
        self, request: group_pb2.ListGroupsRequest, _: _Context
    ) -> group_pb2.ListGroupsResponse:
        """List groups by name, a page at a time."""
        check_not_negative("page_size", request.page_size)
        size = min(request.page_size or _PAGE_DEFAULT, LISTED_MAX)
        states = []
        for number in request.states:
            state = group_descriptions.STATES_BY_NUMBER.get(number)
            if state is None:
                raise unknown_value("states", number, group_pb2.GroupState.keys())
            states.append(state)
        query = GroupQuery(read_page_token(request.page_token), size, frozenset(states))
        found = await self._groups.list_groups(query)
        response = group_pb2.ListGroupsResponse(
            groups=map(_summary, found.groups),
            next_page_token=page_token(found.groups[-1].group_id) if found.more else "",
        )
        for partition, refusal in sorted(found.silent.items()):
            response.silent.add(partition=partition, error=to_proto(refusal))
        return response

    async def describe_group(
        self, request: group_pb2.DescribeGroupRequest, _: _Context
    ) -> group_pb2.DescribeGroupResponse:
        """Tell everything about a group."""
        check_group_id(request.group_id)
        described = await self._groups.describe(request.group_id)
        committed = await self._groups.committed(request.group_id)
        holders = group_descriptions.holders(described)
        response = group_pb2.DescribeGroupResponse(
            group_id=request.group_id,
            state=group_descriptions.STATES[described.state],
            assignor=group_descriptions.ASSIGNORS[described.assignor],
            epoch=described.epoch,
            coordinator=self._groups.coordinator(request.group_id),
            members=[
                group_descriptions.member(each, self._directory) for each in described.members
            ],
            partitions=await self._progress.of(holders, committed),
        )
        check_size(
            response,
            self._limits,
            f"the description of group {request.group_id!r}",
            "ask FetchOffsets for its offsets",
        )
        return response

    async def reset_offsets(
        self, request: group_pb2.ResetOffsetsRequest, _: _Context
    ) -> group_pb2.ResetOffsetsResponse:
        """Make a group go on elsewhere."""
        check_group_id(request.group_id)
        if not request.targets:
            raise Refusal(
                Reason.INVALID_REQUEST, "the request says nowhere to go to; set `targets`"
            )
        check_count("targets", len(request.targets), self._reading)
        within_s = group_resets.timeout_of(request)
        committed = await self._groups.committed(request.group_id)
        moves = await group_resets.moves_of(
            request.targets, self._directory, committed, self._reading
        )
        if not request.validate_only:
            records = group_resets.records_of(request.group_id, moves, self._now_ms())
            await self._groups.reset_offsets(request.group_id, records, within_s)
        return group_pb2.ResetOffsetsResponse(moves=map(group_resets.to_message, moves))

    async def remove_member(
        self, request: group_pb2.RemoveMemberRequest, _: _Context
    ) -> group_pb2.RemoveMemberResponse:
        """Throw a member out."""
        check_group_id(request.group_id)
        name = MemberName(request.member_id, request.instance_id)
        if name == MemberName():
            raise Refusal(
                Reason.INVALID_REQUEST,
                "the request names no member; set `member_id`, or `instance_id`",
            )
        member_id = await self._groups.remove_member(request.group_id, name)
        return group_pb2.RemoveMemberResponse(member_id=member_id)

    async def delete_group(
        self, request: group_pb2.DeleteGroupRequest, _: _Context
    ) -> group_pb2.DeleteGroupResponse:
        """Delete a group."""
        check_group_id(request.group_id)
        await self._groups.delete_group(request.group_id)
        return group_pb2.DeleteGroupResponse()


def _summary(listing: GroupListing) -> group_pb2.GroupSummary:
    return group_pb2.GroupSummary(
        group_id=listing.group_id,
        state=group_descriptions.STATES[listing.state],
        members=listing.members,
        assignor=group_descriptions.ASSIGNORS[listing.assignor],
    )
