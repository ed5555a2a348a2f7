from __future__ import annotations

from bladeroot.errors import DepotError
from bladeroot.events import Event, Note, Warned
from bladeroot.ops.saidonce import SaidOnce


def test_once_until_it_is_forgotten() -> None:
    said, heard = SaidOnce(), list[Event]()
    assert said.say(Note(text="a"), heard.append)
    assert not said.say(Note(text="a"), heard.append)
    assert said.say(Note(text="a"), heard.append, topic="another")
    said.forget("a")
    said.forget("never said")
    assert said.say(Note(text="a"), heard.append)
    assert said.warn(DepotError("what", "do"), heard.append)
    assert heard == [Note(text="a")] * 3 + [Warned(text="what", hint="do")]


def test_it_remembers_the_last_few_only() -> None:
    said, heard = SaidOnce(most=3), list[Event]()
    for number in range(1000):
        assert said.say(Note(text=str(number)), heard.append)
    assert not said.say(Note(text="999"), heard.append)
    assert len(said._topics) == 3
    assert said.say(Note(text="0"), heard.append)
