"""A machine's station in the room: it hears who is root, follows, and takes the role when it falls to it.

`core.takeover` decides; this does it: listening, announcing, serving, asking roots whether they are there.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import attrs
from attrs import frozen

from bladeroot.core.claims import Claim
from bladeroot.core.cluster import NAME_PATTERN, Netboot
from bladeroot.core.roomstate import BladePhase
from bladeroot.core.takeover import (
    Answers,
    Role,
    RoleState,
    Sighting,
    View,
    Wish,
    find_followed,
    is_challenged,
    step_role,
)
from bladeroot.errors import BladerootError, DepotError, NetworkError, UsageError
from bladeroot.events import Reporter, RoleChanged, Warned
from bladeroot.host.epochfile import read_epoch, write_epoch
from bladeroot.net.discovery import Announcement, Ear, Interface, announce
from bladeroot.ops.keepnetboot import NetbootKeeper
from bladeroot.ops.presence import Presence
from bladeroot.ops.prober import Prober
from bladeroot.ops.promote import RootRole, serve_netboot
from bladeroot.ops.saidonce import SaidOnce

_DEPUTIES = 3
"""So many, in the order of succession, ask the root often whether it is there."""
_LOOK_S = 2.0
"""At least so often the depot is looked into, and everything is thought over."""
_DEFEND_S = 2.0
_BEACON_S = 20.0
"""So often a root announces itself unasked: zeroconf asks again for what it knows only after a quarter of an
hour, and until then two roots of a network that was split and joined would not hear of each other.
"""


@frozen(kw_only=True)
class StationOptions:
    """What is asked of a station beside what the inventory says."""

    roots: Sequence[str] = ()
    """Roots that multicast does not reach, `host:port`."""
    default_port: int
    netboot: Netboot | None = None
    interface: str | None = None
    is_foreground: bool = False
    """Whether somebody waits for the promotion, who goes by `why_no_netboot` himself."""


class Station:
    """See the module. `run` steps it in one thread; the other methods may be called from any."""

    def __init__(
        self,
        presence: Presence,
        state: RoleState,
        options: StationOptions,
        *,
        reporter: Reporter,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.presence = presence
        self._noted_epoch = read_epoch(presence.holdings.depot.path)
        self.state = attrs.evolve(state, highest_epoch=max(state.highest_epoch, self._noted_epoch))
        self._options = options
        self._reporter = reporter
        self._chance = chance
        self._holdings = presence.holdings
        self._ear = Ear(self._holdings.cluster_id)
        self._wish = Wish.NONE
        self._root: RootRole | None = None
        self._netboot: NetbootKeeper | None = None
        self._netboot_mode = Netboot.OFF
        self._announcing = ExitStack()
        self._announcement: Announcement | None = None
        self._announced_on: tuple[Interface, ...] = ()
        self._defended_s = 0.0
        self._looked_s = 0.0
        self._said = SaidOnce()
        self._changed = threading.Condition()
        self._sightings: tuple[Sighting, ...] = ()
        self._followed: Sighting | None = None
        self._prober = Prober(
            self._holdings.trusted_keys,
            self._holdings.cluster_id,
            roots=options.roots,
            default_port=options.default_port,
            on_news=self._ear.wake,
        )

    # For everybody

    @property
    def root(self) -> RootRole | None:
        """The root role, while this machine has it."""
        return self._root

    @property
    def followed(self) -> Claim | None:
        """The root to follow, which may be this machine itself; None where there is none."""
        if self._root is not None:
            try:
                return attrs.evolve(self._root.claim(), host="127.0.0.1")
            except BladerootError:
                return None
        return self._followed.claim if self._followed else None

    @property
    def sightings(self) -> tuple[Sighting, ...]:
        """All claims of others that are heard."""
        return self._sightings

    def ask(self, wish: Wish) -> None:
        """Let the role machine know what a person wants."""
        with self._changed:
            self._wish = wish
        self._ear.wake()

    def doubt(self, where: str) -> None:
        """Somebody had no answer from that root: ask it now."""
        self._prober.ask_now(where)

    def wake(self) -> None:
        """There is something new in the depot."""
        self._looked_s = 0.0
        self._ear.wake()

    def wait_until(self, is_so: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for something that steps change; False where it takes longer."""
        with self._changed:
            return self._changed.wait_for(is_so, timeout_s)

    def promote(self, timeout_s: float = 30.0) -> RootRole:
        """Take the role, whoever has it; returns when this machine serves. Netboot may still have to wait for
        the one before to let go of it: see `why_no_netboot`. Raises DepotError without a generation.
        """
        self._holdings.newest  # noqa: B018 - raises
        if self._root is None:
            self.ask(Wish.PROMOTE)
        self.wait_until(lambda: self._root is not None, timeout_s)
        root, netboot = self._root, self._netboot
        if root is None:
            raise NetworkError("the root role was not taken in time", "see what the daemon says")
        if netboot is not None:
            netboot.wait_first(timeout_s)
        return root

    @property
    def why_no_netboot(self) -> BladerootError | None:
        """Why a root does not answer netboot although it should."""
        netboot = self._netboot
        return netboot.failure if netboot is not None else None

    def hand_over(self, to: str | None, timeout_s: float = 60.0) -> str:
        """Give the role to that blade, or to the best that there is; returns whose it is then.

        Raises UsageError where this is no root or nobody can take it, NetworkError where nobody does.
        """
        root = self._root
        if root is None:
            raise UsageError("this machine is not root", "`bladeroot roots` shows who is")
        if to == self.state.blade:
            raise UsageError(f"{to} is root already", "name another, or nobody for the next in order")
        if to and not NAME_PATTERN.fullmatch(to):
            raise UsageError(f"no blade has the name {to[:80]!r}", "`bladeroot blades list` shows them")
        root.successor = to or self.choose_successor(root)
        try:
            if self.wait_until(lambda: self._root is None, timeout_s):
                followed = self._followed
                return followed.claim.blade if followed else root.successor
        finally:
            root.successor = ""
        raise NetworkError(
            f"{to or 'nobody'} has not taken the role over in {timeout_s:.0f} s: this is still the root",
            "--force steps down all the same",
        )

    def choose_successor(self, root: RootRole) -> str:
        """Of the blades that are up and hold what this root holds, the first in the inventory's order."""
        serial = root.newest.serial
        able = [
            name
            for name, blade in root.room.blades.items()
            if blade.phase is BladePhase.UP and blade.holds >= serial and name != self.state.blade
        ]
        entries = [entry.blade for entry in root.newest.blades if entry.blade.name in able]
        if not entries:
            hint = "--force steps down all the same; `bladeroot status` shows who is up"
            raise UsageError(f"no blade that is up holds generation {serial}: nobody could be root", hint)
        return min(entries, key=lambda blade: (-blade.priority, blade.name)).name

    # Stepping

    def run(self, stop: threading.Event, *, until: Callable[[], bool] = lambda: False) -> None:
        """Step until `stop` is set (or it is so); then give the role back and fall silent."""
        try:
            with self._ear:
                self._prober.start()
                while not stop.is_set() and not until():
                    self.step()
                    self._ear.listen(self._choose_wait())
        finally:
            self._prober.stop()
            self._withdraw()  # first: what netboot takes to end, nobody need wait for
            self._end_root()

    def step(self) -> None:
        """Look once, and do what comes of it."""
        now_s = time.monotonic()
        if now_s >= self._looked_s + _LOOK_S:
            self._looked_s = now_s
            self._look_into_depot()
        self._sightings = tuple(self._look_around())
        with self._changed:
            wish, self._wish = self._wish, Wish.NONE
        if wish is Wish.NONE and self._is_named_successor():
            wish = Wish.PROMOTE
        view = View(
            now_s=now_s,
            chance=self._chance(),
            serial=self._holdings.newest_serial if self._may_be_root(wish) else 0,
            sightings=self._sightings,
            wish=wish,
        )
        if self._root is not None and self._root.successor:
            # Who hands over does not outdo its successor, however short ago it was promoted itself.
            self.state = attrs.evolve(self.state, promoted_until_s=None)
        before, self.state = self.state, step_role(self.state, view)
        self._followed = find_followed(self.state, view)
        self._note_epoch()
        self._become(before)
        pause_s = _DEFEND_S if is_challenged(self.state, view) else _BEACON_S
        if self._root is not None and now_s >= self._defended_s + pause_s:
            self._defended_s = now_s
            self._root.announce_again()
        with self._changed:
            self._changed.notify_all()

    def _note_epoch(self) -> None:
        """Before it is announced: the next root has to go beyond it, though it was just switched on."""
        if self.state.highest_epoch <= self._noted_epoch:
            return
        self._noted_epoch = self.state.highest_epoch
        with suppress(OSError):  # a full or dying disk: it is said elsewhere
            write_epoch(self._holdings.depot.path, self._noted_epoch)

    def _choose_wait(self) -> float:
        until_s = self.state.until_s
        return _LOOK_S if until_s is None else max(0.0, min(_LOOK_S, until_s - time.monotonic()))

    def _look_into_depot(self) -> None:
        try:
            if self._root is None:
                self._holdings.take_in()
                return
            self._root.take_in_generations()
            with suppress(DepotError):  # nothing whole is left: it is root no longer, as of this step
                self._heed_netboot_mode(self._root)
                self._root.refresh_netboot()
        except OSError as error:
            text = f"cannot look into {self._holdings.depot.path}: {error.strerror or error}"
            self._said.say(Warned(text=text, hint="see `dmesg`"), self._reporter)

    def _heed_netboot_mode(self, root: RootRole) -> None:
        """What a newer generation's inventory says of netboot holds as soon as that is taken in."""
        mode = root.newest.network.netboot
        if self._netboot is None or self._options.netboot is not None or mode is self._netboot_mode:
            return
        self._netboot_mode, root.netboot = mode, None
        self._netboot.begin_anew()

    def _look_around(self) -> Iterator[Sighting]:
        heard = self._ear.heard()
        claims = {(one.where, one.blade): one for one in heard.claims if one.blade != self.state.blade}
        keen = self.state.role is Role.ROOT or (self.state.is_automatic and self.state.rank < _DEPUTIES)
        # Who waits to be root, or stands for it, must know at once if there is one after all.
        self._prober.watch(claims.values(), is_keen=keen, is_urgent=self.state.until_s is not None)
        for claim in self._prober.static_claims():
            if claim.blade != self.state.blade:
                claims.setdefault((claim.where, claim.blade), claim)
        for claim in claims.values():
            age_s = heard.ages_s.get(claim, 0.0)
            told = self._prober.told(claim)
            newer = told is not None and told.epoch > claim.epoch
            answers = self._prober.answers(claim)
            if answers is Answers.PROVEN:  # of others it is only said that there is such a generation
                self._warn_of_twin(told or claim)
            yield Sighting(claim=told if told and newer else claim, answers=answers, age_s=age_s)

    def _warn_of_twin(self, claim: Claim) -> None:
        """Two generations with one serial: the operator signed twice, and only he knows which he meant."""
        ours = self._holdings.manifest_hash(claim.serial)[:16]
        if not ours or ours == claim.manifest_hash:
            return
        text = (
            f"two different generations {claim.serial}: {ours} here, {claim.manifest_hash} on {claim.blade} "
            f"at {claim.where}; both are kept"
        )
        hint = "publish the one that you mean once more: it gets a higher serial"
        topic = f"twin {claim.serial} {claim.manifest_hash}"
        self._said.say(Warned(text=text, hint=hint), self.presence.tell, topic)

    def _may_be_root(self, wish: Wish) -> bool:
        """A blade whose network is not up yet hears nobody, and must not think that it is alone."""
        has_role = self.state.role in (Role.ROOT, Role.CANDIDATE)
        has_network = not all(one.is_loopback for one in self._ear.interfaces)
        return has_role or wish is Wish.PROMOTE or has_network

    def _is_named_successor(self) -> bool:
        if self.state.role is Role.ROOT or self._followed is None:
            return False
        told = self._prober.told(self._followed.claim)
        return told is not None and told.successor == self.state.blade

    def _become(self, before: RoleState) -> None:
        """Do what the change of role means."""
        if (before.role, before.epoch) == (self.state.role, self.state.epoch):
            is_elsewhere = self._announced_on != self._ear.interfaces
            if self.state.announces and (self._announcement is None or is_elsewhere):
                self._withdraw()
                self._announce()
            return
        if before.role is Role.ROOT:
            if self.state.announces is None:
                self._withdraw()
            self._end_root()
        if self.state.role is Role.ROOT:
            self._begin_root()
        self._announce()
        self._reporter(
            RoleChanged(
                blade=self.state.blade,
                role=str(self.state.role),
                epoch=self.state.epoch,
                serial=self._holdings.newest_serial,
                root=self._followed.claim.blade if self._followed else "",
            )
        )

    def _announce(self) -> None:
        state = self.state.announces
        if state is None:
            self._withdraw()
            return
        part = self._root or self._make_part()
        try:
            claim = part.claim(state)
            if self._announcement is None:
                self._announced_on = self._ear.interfaces
                announcing = announce(claim, self._announced_on or None)
                self._announcement = self._announcing.enter_context(announcing)
            else:
                self._announcement.update(claim)
            part.announcement = self._announcement
        except BladerootError as error:
            self._withdraw()
            self._said.warn(error, self._reporter)

    def _withdraw(self) -> None:
        self._announcing.close()
        self._announcement = None

    def _make_part(self) -> RootRole:
        return RootRole(
            self.presence, blade=self.state.blade, epoch=self.state.epoch, priority=self.state.priority
        )

    def _begin_root(self) -> None:
        root = self._make_part()
        self.presence.begin_root(root)

        def hear(service: object) -> None:
            root.netboot = service  # type: ignore[assignment]
            root.tell_started()

        self._netboot_mode = root.newest.network.netboot
        self._netboot = NetbootKeeper(
            lambda: serve_netboot(root, mode=self._options.netboot, interface=self._options.interface),
            on_start=hear,
            reporter=self.presence.tell,
            tells_first=not self._options.is_foreground,
        )
        self._root = root  # last: who waits for it asks then what netboot does

    def _end_root(self) -> None:
        netboot, self._netboot, self._root = self._netboot, None, None
        if netboot is not None:
            netboot.stop()
        if self.presence.root is not None:
            self.presence.end_root()


@contextmanager
def running(station: Station) -> Iterator[Station]:
    """Step the station in a thread of its own for the length of the block."""
    stop = threading.Event()
    thread = threading.Thread(target=station.run, args=(stop,), name="station")
    thread.start()
    try:
        yield station
    finally:
        stop.set()
        station.wake()
        thread.join()
