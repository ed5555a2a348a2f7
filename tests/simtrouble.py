"""What befalls a simulated room, and what must be true of it when it is left alone again."""

from __future__ import annotations

from random import Random

import attrs
from attrs import frozen

from bladeroot.core.takeover import Role, Wish
from tests.simair import LIBRARY, TEXTBOOK, Air, SimBlade
from tests.simroom import SimRoom

TROUBLE_S = 120.0
SETTLED_S = 120.0
"""So long after the last disturbance a room has one root in each segment, and everybody follows it."""
KINDS = ("restart", "die", "split", "join", "promote", "demote", "publish", "loss")


@frozen(kw_only=True)
class Trouble:
    """One disturbance. `which` chooses the blade; `much`, from 0 to 1, means what the kind makes of it."""

    when_s: float
    kind: str
    which: int = 0
    much: float = 0.5


@frozen(kw_only=True)
class Member:
    """A blade of the room before anything happens; serial 0 is an empty depot."""

    serial: int = 1
    manifest: str = "a" * 16
    priority: int = 0
    is_automatic: bool = True
    starts_s: float = 0.0


@frozen(kw_only=True)
class Story:
    """A room and all that befalls it."""

    members: tuple[Member, ...]
    troubles: tuple[Trouble, ...]
    air: Air = LIBRARY
    calm_loss: float = 0.0
    is_joined: bool = True
    """Whether a split ends with the trouble, or stays."""
    seed: int = 0


def tell_story(random: Random, size: int) -> Story:
    """A story by chance. One in four rooms holds several generations, one in four has manual blades."""
    is_mixed, is_manual = random.random() < 0.25, random.random() < 0.25
    members = tuple(
        Member(
            serial=random.randint(0, 3) if is_mixed else 1,
            manifest=random.choice("ab") * 16,
            priority=random.choice((0, 0, 0, 5)),
            is_automatic=not (is_manual and random.random() < 0.5),
            starts_s=random.uniform(0, 60),
        )
        for _ in range(size)
    )
    troubles = tuple(
        Trouble(
            when_s=random.uniform(0, TROUBLE_S),
            kind=random.choice(KINDS),
            which=random.randrange(size),
            much=random.random(),
        )
        for _ in range(random.randint(0, 12))
    )
    return Story(
        members=members,
        troubles=troubles,
        air=random.choice((LIBRARY, TEXTBOOK)),
        calm_loss=random.choice((0.0, 0.0, 0.03)),
        is_joined=random.random() < 0.7,
        seed=random.getrandbits(32),
    )


def play(story: Story) -> SimRoom:
    """The room at the moment when all trouble is over. Ranks are by priority, then by name."""
    room = SimRoom(Random(story.seed), story.air)
    order = sorted(range(len(story.members)), key=lambda index: (-story.members[index].priority, index))
    for index, member in enumerate(story.members):
        blade = room.add(
            f"blade{index:03}",
            rank=order.index(index),
            serial=member.serial,
            manifest=member.manifest,
            priority=member.priority,
            is_automatic=member.is_automatic,
        )
        room.at(member.starts_s, room.start, blade)
    for trouble in story.troubles:
        room.at(trouble.when_s, _befall, room, trouble)
    room.run(TROUBLE_S)
    room.air = attrs.evolve(room.air, loss=story.calm_loss)
    if story.is_joined:
        for blade in room.blades.values():
            blade.segment = 0
    return room


def _befall(room: SimRoom, trouble: Trouble) -> None:
    blades = list(room.blades.values())
    blade = blades[trouble.which % len(blades)]
    if trouble.kind == "restart":
        room.stop(blade)
        back_s = room.now_s + 60 * trouble.much
        room.at(min(back_s, TROUBLE_S), _start_unless_dead, room, blade)
    elif trouble.kind == "die":
        blade.is_dead = True
        room.stop(blade)
    elif trouble.kind == "split":
        for index, one in enumerate(blades):
            one.segment = (index * 7 + trouble.which) % (2 + round(trouble.much))
    elif trouble.kind == "join":
        for one in blades:
            one.segment = 0
    elif trouble.kind == "promote":
        room.wish(blade, Wish.PROMOTE)
    elif trouble.kind == "demote":
        room.wish(blade, Wish.DEMOTE)
    elif trouble.kind == "publish":
        room.publish(blade, round(2 + 8 * trouble.much), "abc"[trouble.which % 3] * 16)
    else:
        room.air = attrs.evolve(room.air, loss=0.4 * trouble.much)


def _start_unless_dead(room: SimRoom, blade: SimBlade) -> None:
    if not blade.is_dead:
        room.start(blade)


def find_faults(room: SimRoom) -> list[str]:
    """What is not as it should be in a room that was left alone long enough, a line each."""
    return [
        fault
        for segment in sorted({blade.segment for blade in room.up()})
        for fault in _find_faults_in(room, segment)
    ]


def _find_faults_in(room: SimRoom, segment: int) -> list[str]:
    up, roots = room.up(segment), room.roots(segment)
    if not roots:
        able = [blade.name for blade in up if blade.is_able]
        return [f"segment {segment}: no root, though there is {able[0]}"] if able else []
    if len(roots) > 1:
        return [f"segment {segment}: {', '.join(one.name for one in roots)} are root"]
    root, faults = roots[0], []
    highest = max(blade.best[0] for blade in up)
    for blade in up:
        if blade is not root and room.followed(blade) != root.name:
            faults.append(f"{blade.name}, {blade.role}, follows {room.followed(blade)}, not {root.name}")
        if blade.role is Role.CANDIDATE:
            faults.append(f"{blade.name} is candidate")
        if blade.best[0] != highest:
            faults.append(f"{blade.name}, {blade.role}, holds {blade.best[0]}, not {highest}")
    manifests = {blade.best[1] for blade in up}
    if len(manifests) > 1 and not any(conflict[0] == highest for conflict in room.conflicts):
        faults.append(f"nobody says that there are {len(manifests)} generations {highest}")
    return faults
