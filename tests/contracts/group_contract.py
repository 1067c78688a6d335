"""What workers rely on in a consumer group: checked on the simulation's and on Kafka's alike.

The changelog is not fenced: that a former owner's commit is refused is how it hears that it is one.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

NO_GENERATION = -1
"""What a client has that was thrown out and knows it. An empty group takes its commits: the runners don't send them."""

Member = TypeVar("Member")


class Group(Protocol[Member]):
    """One group on one partition."""

    async def join(self) -> Member:
        """One member more; all of them are in a new generation when it returns."""

    async def leave(self, member: Member) -> None:
        """The others are in a new generation when it returns."""

    async def generation(self) -> int:
        """The newest."""

    async def commit(self, member: Member, generation: int, offset: int) -> bool:
        """Whether it was taken."""

    async def committed(self) -> int:
        """The last that was taken."""


async def group_holds(group: Group[Member]) -> None:
    """Offsets are taken from who is a member now, in the generation that is now, and from nobody else."""
    first = await group.join()
    alone = await group.generation()
    assert await group.commit(first, alone, 5)
    second = await group.join()
    both = await group.generation()
    assert both > alone
    assert not await group.commit(first, alone, 6), "of a former generation"
    assert not await group.commit(second, NO_GENERATION, 6), "of one who was thrown out"
    assert await group.committed() == 5
    assert await group.commit(second, both, 7)
    await group.leave(second)
    after = await group.generation()
    assert after > both
    for generation in (both, after):
        assert not await group.commit(second, generation, 8), "of one who has gone"
    assert await group.committed() == 7
    assert await group.commit(first, after, 9)
    assert await group.committed() == 9
