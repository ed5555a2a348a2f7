"""`*.j2` files of overlays: Jinja2 with facts about blade and cluster. The one door to Jinja2; no I/O.

Whatever has no value is undefined, and using it is an error; `{{ blade.rack | default("none") }}` and
`{% if blade.rack is defined %}` say what to do without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_interface
from typing import Any

import jinja2
from attrs import frozen
from jinja2.sandbox import ImmutableSandboxedEnvironment

from bladeroot.core.cluster import Blade, Cluster
from bladeroot.errors import OverlayError


class Facts(dict[str, Any]):
    """Named values for templates; `title` is what a message calls them. None values are not there at all."""

    def __init__(self, title: str, values: Mapping[str, Any]) -> None:
        super().__init__({name: value for name, value in values.items() if value is not None})
        self.title = title


class _Undefined(jinja2.StrictUndefined):
    @property
    def _undefined_message(self) -> str:
        if isinstance(self._undefined_obj, Facts):
            return f"{self._undefined_obj.title} has no {self._undefined_name!r}"
        return str(super()._undefined_message)


@frozen
class TemplateFacts:
    """What a template of one blade can name."""

    values: Mapping[str, Any]


def make_template_facts(cluster: Cluster, blade: Blade, switched_services: Sequence[str]) -> TemplateFacts:
    """`blade`, `role`, `cluster`, `blades` (all, by name) and `switched_services`."""
    network = cluster.network
    role = cluster.roles[blade.role]
    return TemplateFacts(
        {
            "blade": _blade_facts(blade),
            "role": Facts(f"role {role.name}", {"name": role.name, "description": role.description}),
            "cluster": Facts(
                f"cluster {cluster.name}",
                {
                    "name": cluster.name,
                    "id": cluster.id,
                    "arch": cluster.arch,
                    "port": network.port,
                    "domain": network.domain or None,
                    "gateway": network.gateway,
                    "nameservers": network.nameservers,
                    "roots": network.roots,
                    "roles": tuple(sorted(cluster.roles)),
                },
            ),
            "blades": tuple(_blade_facts(one) for _name, one in sorted(cluster.blades.items())),
            "switched_services": tuple(switched_services),
        }
    )


@lru_cache(maxsize=4096)  # every blade's overlay names every blade
def split_address(address: str) -> tuple[str, int]:
    """`10.77.0.11/24` as address and prefix length."""
    interface = ip_interface(address)
    return str(interface.ip), interface.network.prefixlen


def _blade_facts(blade: Blade) -> Facts:
    ip, prefix_length = split_address(blade.address) if blade.address else (None, None)
    return Facts(
        f"blade {blade.name}",
        {
            "name": blade.name,
            "role": blade.role,
            "macs": blade.macs,
            "uuid": blade.uuid,
            "address": blade.address,
            "ip": ip,
            "prefix_length": prefix_length,
            "rack": blade.rack,
            "priority": blade.priority,
            "facts": Facts(f"blade {blade.name}'s facts", blade.facts),
        },
    )


_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=_Undefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
)


@lru_cache(maxsize=256)
def _compile(text: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(text)


def render_template(text: bytes, source: str, facts: TemplateFacts) -> bytes:
    """The text with its facts filled in; `source` is the file's name. Raises OverlayError."""
    try:
        return _compile(text.decode("utf-8")).render(facts.values).encode("utf-8")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise OverlayError(
            f"{source}:{line}: not UTF-8", "save it as UTF-8, or rename it without .j2"
        ) from None
    except jinja2.TemplateSyntaxError as error:
        raise OverlayError(f"{source}:{error.lineno}: {error.message}") from None
    except jinja2.UndefinedError as error:
        hint = "set it in cluster.toml, or write {{ … | default(…) }}"
        raise OverlayError(f"{source}:{_template_line(error)}: {error.message}", hint) from None
    except (ArithmeticError, LookupError, TypeError, ValueError, jinja2.TemplateError) as error:
        raise OverlayError(f"{source}:{_template_line(error)}: {type(error).__name__}: {error}") from None


def _template_line(error: Exception) -> int:
    """The innermost line of a template in the traceback, which Jinja2 has rewritten to template lines."""
    line = 1
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == "<template>":
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
