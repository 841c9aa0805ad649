"""Hosts and addresses, as certificates, sockets and Flower take them."""

from __future__ import annotations

import ipaddress
import re
from typing import final

from xbackend_fl.errors import ConfigError
from xbackend_fl.text import line

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_MAX_HOST = 253
_SHOWN = 80
_HINT = "a name such as fl.example.org, or an address such as 192.0.2.7 or 2001:db8::7"


def host_name(text: str, *, wildcard: bool = False) -> str:
    """A host as certificates have it: small letters, other scripts in ASCII (``xn--…``), addresses in their shortest form.

    Args:
        text: A name, or an IPv4 or IPv6 address, which may stand in brackets.
        wildcard: Whether ``*.example.org`` is one.

    Raises:
        ConfigError: It is neither.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        pass
    else:
        if getattr(address, "scope_id", None):
            raise _no_host(text, "an address with a zone is one of a single machine's")
        return str(address)
    name = _ascii(text).removesuffix(".")
    labels = name.split(".")
    if wildcard and labels[0] == "*" and len(labels) > 2:
        labels = labels[1:]
    if len(name) > _MAX_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise _no_host(text, _HINT)
    if labels[-1].isdigit():
        raise _no_host(text, "a name does not end in a number, and this is no IPv4 address")
    return name


def _ascii(text: str) -> str:
    """Names in other scripts as Python's own sockets and TLS ask for them."""
    if text.isascii():
        return text.lower()
    try:
        found = text.encode("idna").decode("ascii").lower()
        same = found.encode("ascii").decode("idna") == text.lower()
    except UnicodeError as error:
        raise _no_host(text, _HINT) from error
    if not same:
        # ß, for one, was ss in the rules of 2003 and is a letter in those of 2008.
        raise _no_host(
            text, "programs do not agree how this name is written in ASCII; give it in the form xn--…"
        )
    return found


def _no_host(text: str, hint: str) -> ConfigError:
    return ConfigError(f"{line(text, _SHOWN)!r} is no host", hint=hint)


@final
class Address:
    """``HOST:PORT``; an IPv6 address stands in brackets.

    Raises:
        ConfigError: It is something else.

    Attributes:
        host: The host, without brackets.
        port: 1 to 65,535.
        text: Both, as Flower and URLs take them.
    """

    def __init__(self, text: str) -> None:
        host, _, port = text.rpartition(":")
        # 2001:db8::7:8000 may be an address without a port, and only an address with colons needs brackets.
        brackets = host.startswith("[") and host.endswith("]")
        numbered = re.fullmatch(r"[1-9][0-9]{0,4}", port) and int(port) < 1 << 16
        if not host or not numbered or brackets != (":" in host):
            raise ConfigError(
                f"{line(text, _SHOWN)!r} is no address",
                hint="HOST:PORT, for example 127.0.0.1:8000 or [2001:db8::7]:8000",
            )
        self.host, self.port = host_name(host), int(port)
        self.text = f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"

    @property
    def here(self) -> str:
        """How this machine reaches itself, if it listens at all of its addresses."""
        return f"127.0.0.1:{self.port}" if self.host in {"0.0.0.0", "::"} else self.text  # noqa: S104

    @property
    def reached(self) -> str | None:
        """The address, if other machines can reach it."""
        return None if self.host in {"127.0.0.1", "::1", "localhost"} else self.text
