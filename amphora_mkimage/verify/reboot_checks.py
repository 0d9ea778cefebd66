"""After a reboot the agent's unit finds the cards of the load balancers again.

The agent writes amphora-netns.service from a template of its own, whose shell commands read what ``ip link`` prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from amphora_mkimage.verify import agent_python
from amphora_mkimage.verify.result import Check, Finding, fail, info, not_applicable, passed
from amphora_mkimage.verify.subject import Subject

_TEMPLATE = "amphorae/backends/agent/api_server/templates/amphora-netns.systemd.j2"
_DEFAULT = "99-default.link"
#: In the order in which systemd looks for a file, and the other way round reads drop-ins of one name (systemd.link(5)).
_DIRECTORIES = ("/etc/systemd/network", "/usr/lib/systemd/network")


def interfaces(subject: Subject) -> Iterator[Finding]:
    """Compare what the agent's unit reads with the names that systemd gives to cards."""
    octavia = agent_python.octavia(subject)
    if not octavia:
        yield not_applicable("no agent in this image")
        return
    unit = subject.tree.text(f"{octavia}/{_TEMPLATE}")
    names = alternative_names(subject)
    if not unit:
        yield info(f"{octavia}/{_TEMPLATE} was not found: what the agent does after a reboot is not known")
    elif re.search(r"\bip\s+link\s*\|", unit) and names:
        yield fail(
            f"the agent's unit amphora-netns reads two lines of `ip link` a card, and alternative names ({names}) are a"
            " third: after a reboot the virtual address is gone",
            f"empty AlternativeNamesPolicy= in {_DIRECTORIES[0]}/{_DEFAULT}.d/*.conf, or the agent of octavia 19",
        )
    else:
        yield passed(f"alternative names: {names or 'none'}")


def alternative_names(subject: Subject) -> str:
    """Return the policy of systemd's default for all cards, "" when it gives none."""
    found = next((f"{d}/{_DEFAULT}" for d in _DIRECTORIES if subject.tree.entry(f"{d}/{_DEFAULT}", follow=False)), "")
    drop_ins = {
        path.rpartition("/")[2]: path
        for directory in reversed(_DIRECTORIES)
        for path in subject.drop_ins(f"{directory}/{_DEFAULT}.d", "*.conf")
    }
    names: list[str] = []
    for path in [*([found] if found else []), *(drop_ins[name] for name in sorted(drop_ins))]:
        for line in subject.tree.text(path).splitlines():
            key, equals, value = line.partition("=")
            if equals and key.strip() == "AlternativeNamesPolicy":
                names = [*names, *value.split()] if value.strip() else []
    return " ".join(names)


GROUP = "agent"
CHECKS = (Check("agent.reboot", GROUP, "the agent's cards after a reboot", interfaces),)
