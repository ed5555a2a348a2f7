"""What was said already: what is true for hours is not said every half minute."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from bladeroot.errors import BladerootError
from bladeroot.events import Event, Note, Warned

_MOST = 256
"""Others choose some of the words: who never says the same must not fill the memory."""


@attrs.define
class SaidOnce:
    """Remembers the last few hundred topics."""

    most: int = _MOST
    _topics: dict[str, None] = attrs.field(factory=dict, init=False)

    def say(self, event: Note | Warned, tell: Callable[[Event], None], topic: str = "") -> bool:
        """Tell that, unless it was told; the topic is its text unless there is one. False if it was."""
        topic = topic or event.text
        if topic in self._topics:
            return False
        while len(self._topics) >= self.most:
            del self._topics[next(iter(self._topics))]
        self._topics[topic] = None
        tell(event)
        return True

    def warn(self, error: BladerootError, tell: Callable[[Event], None]) -> bool:
        """The same of an error, as a warning."""
        return self.say(Warned(text=str(error), hint=error.hint), tell)

    def forget(self, topic: str) -> None:
        """It is not so any more: if it is again, that is news."""
        self._topics.pop(topic, None)
