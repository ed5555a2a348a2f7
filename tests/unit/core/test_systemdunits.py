from __future__ import annotations

from collections.abc import Mapping

import pytest

from bladeroot.core.systemdunits import (
    Unit,
    UnitLink,
    complete_name,
    is_link_of,
    parse_install,
    plan_disable,
    plan_enable,
    template_of,
)
from bladeroot.errors import OverlayError

WANTED = "[Unit]\nAfter=x\n[Install]\nWantedBy=multi-user.target\n"


class Units:
    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def __call__(self, name: str) -> Unit | None:
        for file in filter(None, (name, template_of(name))):
            if file in self._texts:
                return Unit(name, f"usr/lib/systemd/system/{file}", parse_install(self._texts[file]))
        return None


def links(name: str, texts: Mapping[str, str], passed_over: tuple[str, ...] = ()) -> dict[str, str]:
    return {
        link.path.removeprefix("etc/systemd/system/"): link.target.removeprefix("/usr/lib/systemd/system/")
        for link in plan_enable(name, Units(texts), passed_over)
    }


def test_names_are_completed() -> None:
    assert complete_name("nginx") == "nginx.service"
    assert complete_name("getty@tty1") == "getty@tty1.service"
    assert complete_name("fstrim.timer") == "fstrim.timer"
    assert complete_name("a.b") == "a.b.service"


@pytest.mark.parametrize("name", ["", "../x.service", "a b", "x/y.service", "a\n"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(OverlayError, match="not a unit's name"):
        complete_name(name)


def test_assignments_add_up_and_an_empty_one_starts_again() -> None:
    section = parse_install(
        "[Install]\nWantedBy=a.target b.target\nWantedBy=c.target\nAlias=x.service\nAlias=\n"
        "# WantedBy=d.target\nRequiredBy=e.target \\\n  # in between\n  f.target\n"
        "[Service]\nWantedBy=no.target\n"
    )
    assert section.wanted_by == ("a.target", "b.target", "c.target")
    assert section.alias == ()
    assert section.required_by == ("e.target", "f.target")


def test_wants_requires_upholds_and_alias() -> None:
    text = (
        "[Install]\nWantedBy=a.target\nRequiredBy=b.target\nUpheldBy=c.service\n"
        "Alias=other.service x.service\n"
    )
    assert links("x.service", {"x.service": text}) == {
        "other.service": "x.service",
        "a.target.wants/x.service": "x.service",
        "b.target.requires/x.service": "x.service",
        "c.service.upholds/x.service": "x.service",
    }


def test_links_are_absolute_and_below_etc() -> None:
    (link,) = plan_enable("x.service", Units({"x.service": WANTED}))
    assert link == UnitLink(
        "etc/systemd/system/multi-user.target.wants/x.service", "/usr/lib/systemd/system/x.service"
    )


def test_also_is_followed_but_not_for_what_is_missing_or_passed_over() -> None:
    texts = {
        "x.service": WANTED + "Also=y.socket gone.service z.service\n",
        "y.socket": "[Install]\nWantedBy=sockets.target\nAlso=x.service\n",
        "z.service": WANTED,
    }
    assert set(links("x.service", texts)) == {
        "multi-user.target.wants/x.service",
        "sockets.target.wants/y.socket",
        "multi-user.target.wants/z.service",
    }
    assert "multi-user.target.wants/z.service" not in links("x.service", texts, ("z.service",))
    assert plan_disable("x.service", Units(texts)) == {"x.service", "y.socket", "z.service"}


def test_templates_take_an_instance_or_their_default() -> None:
    texts = {"getty@.service": "[Install]\nWantedBy=getty.target\nDefaultInstance=tty1\n"}
    assert links("getty@tty7.service", texts) == {"getty.target.wants/getty@tty7.service": "getty@.service"}
    assert links("getty@.service", texts) == {"getty.target.wants/getty@tty1.service": "getty@.service"}
    with pytest.raises(OverlayError, match=r"x@\.service is a template without a DefaultInstance"):
        links("x@.service", {"x@.service": WANTED})


def test_a_template_may_want_to_be_started_by_another_template() -> None:
    texts = {"dump@.timer": "[Install]\nWantedBy=db@.service\n"}
    assert links("dump@.timer", texts) == {"db@.service.wants/dump@.timer": "dump@.timer"}


def test_specifiers_are_filled_in() -> None:
    texts = {"a-b@.service": "[Install]\nWantedBy=%i.target %p.target %j.target\nAlias=%%%N.service\n"}
    assert set(links("a-b@c.service", texts)) == {
        "c.target.wants/a-b@c.service",
        "a-b.target.wants/a-b@c.service",
        "b.target.wants/a-b@c.service",
        "%a-b@c.service",
    }
    with pytest.raises(OverlayError, match="uses %H"):
        links("x.service", {"x.service": "[Install]\nWantedBy=%H.target\n"})


def test_what_nothing_would_start_cannot_be_enabled() -> None:
    with pytest.raises(OverlayError, match=r"no \[Install\] section"):
        links("x.service", {"x.service": "[Service]\nExecStart=/bin/true\n"})
    with pytest.raises(OverlayError, match=r"there is no unit y\.service; looked in /etc/systemd/system"):
        links("y.service", {})


@pytest.mark.parametrize(
    ("path", "target", "units", "answer"),
    [
        ("d/a.target.wants/x.service", "/lib/systemd/system/x.service", {"x.service"}, True),
        ("d/a.target.requires/y.service", "/lib/systemd/system/x.service", {"x.service"}, True),
        ("d/alias.service", "/lib/systemd/system/x.service", {"x.service"}, True),
        ("d/x.service", "/opt/x.service", {"x.service"}, False),
        ("d/x.service", "/dev/null", {"x.service"}, False),
        ("d/a.target.wants/z.service", "/lib/systemd/system/z.service", {"x.service"}, False),
        ("d/g.target.wants/g@1.service", "/lib/systemd/system/g@.service", {"g@.service"}, True),
        ("d/g.target.wants/g@1.service", "/lib/systemd/system/g@.service", {"g@2.service"}, False),
    ],
)
def test_which_links_belong_to_a_unit(path: str, target: str, units: set[str], answer: bool) -> None:
    assert is_link_of(path, target, units) is answer
