"""A member's stream: what its group gives and takes away, and what its reader is told, in order."""

from __future__ import annotations

from dataclasses import dataclass, field

from riverrun_server.core.reading.events import Assigned, Delivery, Lost, Revoking
from riverrun_server.core.reading.places import EARLIEST, Place, PlaceKind
from riverrun_server.runtime.assigned_partitions import NewPartition
from riverrun_server.wire import forms
from riverrun_server.wire.forms import Form


@dataclass(frozen=True, slots=True)
class Heard(Form):
    """A form that keeps what it was asked to put on the wire, as values."""

    heard: list = field(default_factory=list)

    def frames(self, delivery):
        self.heard.append(delivery)
        return Form.frames(self, delivery)

    def event(self, event, write_error):
        self.heard.append(event)
        return Form.event(self, event, write_error)


def heard_as(form: Form) -> Heard:
    return Heard(form.tag, form.unpack, form.accepted, form.bare)


class Member:
    """One member of the group `g`, whose epoch counts what the group says to it."""

    def __init__(self, world, *, form=forms.RECORDS, group_id="g", **settings):
        self.form = heard_as(form)
        self.stream = world.stream(form=self.form, group_id=group_id, is_member=True, **settings)
        self.assigned = self.stream.reader.assigned
        self.epoch = 0

    @property
    def heard(self):
        return self.form.heard

    def give(self, *accesses, place: Place = EARLIEST):
        self.epoch += 1
        self.assigned.give(self.epoch, [NewPartition(each, place, self.epoch) for each in accesses])

    def revoke(self, *accesses):
        self.epoch += 1
        return self.assigned.revoke(self.epoch, [each.id for each in accesses])

    def release(self, *accesses):
        self.assigned.release([each.id for each in accesses])

    def lose(self, *accesses):
        self.epoch += 1
        self.assigned.lose(self.epoch, [each.id for each in accesses])

    def spans(self, access):
        return [
            (each.first_offset, each.next_offset)
            for each in self.heard
            if isinstance(each, Delivery) and each.id == access.id
        ]

    def story(self, access):
        """Return what was told of a partition's assignment, and where something of it came."""
        story = []
        for each in self.heard:
            if isinstance(each, Delivery):
                if each.id == access.id:
                    story.append("delivery")
            elif isinstance(each, Assigned | Revoking | Lost):
                story += [type(each).__name__ for one in each.partitions if one.id == access.id]
        return story


def of(kind, member):
    """Return what a member was told of one kind."""
    return [each for each in member.heard if isinstance(each, kind)]


def offset(value):
    return Place(PlaceKind.OFFSET, value)


def nothing_is_left(member, *accesses):
    """Assert that a stream keeps nothing of the partitions that it had."""
    reader = member.stream.reader
    assert [each.cursors for each in accesses] == [[]] * len(accesses)
    assert reader._accesses == reader._sources._cursors == reader.assigned._coming == {}
    assert member.stream.machine.partitions == {}
