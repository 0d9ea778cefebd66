"""One boot, observed from power-on to the last answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from amphora_mkimage.boot import agent, death, haproxy, vip
from amphora_mkimage.boot.api import AgentError, Client, request_seconds
from amphora_mkimage.boot.controller import Controller, Step
from amphora_mkimage.boot.death import Death
from amphora_mkimage.boot.heartbeat import Capture, Received
from amphora_mkimage.boot.machine import Machine
from amphora_mkimage.boot.management import Management
from amphora_mkimage.boot.report import GuestReport
from amphora_mkimage.boot.restart import Power, restart
from amphora_mkimage.boot.text import Follower
from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError

#: How long the guest may say nothing at all before cloud-init has reported. An image may have no serial console; then
#: this is the time for all that comes before the network is up, of which an emulated guest needs about a third.
SILENCE_SECONDS = 300.0
#: A getty starts after the stage in which cloud-init runs the boothook, so the report is already overdue when it shows.
LOGIN_SECONDS = 120.0
#: The first boot may restart the guest: shim's fallback.efi, SELinux' relabelling. More often than this is a loop.
RESETS = 2
#: How long haproxy may need, once its service says that it is ready.
ANSWER_SECONDS = 120.0
#: How long the reporter may need to look for failed units after the deletion of the load balancer.
UNITS_SECONDS = 120.0

_TICK = 0.2
#: What follows the sign of an early end, a call trace for instance, belongs to the evidence.
_LAST_WORDS_SECONDS = 0.5
_ASK_SECONDS = 20.0
_TAIL_LINES = 20
#: Between two questions whether the agent is up yet, and how long each may take.
_POLL_SECONDS = 1.0

T = TypeVar("T")


@dataclass
class Outcome:
    """What was observed."""

    report: GuestReport = field(default_factory=GuestReport)
    death: Death | None = None  #: why the boot ended early
    timed_out: bool = False  #: it was not running in time
    boot_seconds: float | None = None  #: power-on to running, by the host's clock
    answer: haproxy.Answer | None = None  #: haproxy's
    answer_error: str = ""
    agent_version: str | None = None  #: of the amphora agent's API
    agent_seconds: float | None = None  #: power-on to the agent's first answer, by the host's clock
    agent_error: str = ""
    unreachable: tuple[str, ...] = ()  #: why no controller can reach the guest; nothing is asked of it then
    steps: list[Step] = field(default_factory=list)  #: of the controller
    restarts: list[GuestReport] = field(default_factory=list)  #: what the guest reported of each boot but the first
    tail: tuple[str, ...] = ()  #: last lines of the serial console

    @property
    def latest(self) -> GuestReport:
        """The report of the last boot."""
        return self.restarts[-1] if self.restarts else self.report


class Session:
    """Observes a machine.

    :param machine: just started
    :param network: its management network
    :param timeout: seconds from power-on within which all must be done
    :param stream: show the serial console
    :param reboot: restart the guest while its agent is driven
    """

    def __init__(
        self,
        machine: Machine,
        network: Management,
        timeout: float,
        console: Console,
        *,
        stream: bool,
        reboot: bool = False,
    ) -> None:
        self.machine, self.network, self.timeout, self._end_of_boot = machine, network, timeout, timeout
        self.console, self.stream, self.reboot = console, stream, reboot
        self.outcome = Outcome()
        self._screen = Follower(machine.drawing.console)
        self._reports = Follower(machine.drawing.reports)
        self._tail: list[str] = []
        self._heard = self._login = 0.0
        self._resets = 0
        self._off = False

    def observe(self, identity: agent.Identity, control: Control) -> Outcome:
        """Follow the boot to its end; then ask haproxy, or drive the agent where the image has one."""
        outcome, report = self.outcome, self.outcome.report
        version = self.network.subnets[0].version
        seconds = request_seconds(self.machine.drawing.memory)
        client = Client(identity, self.machine.ports[version, agent.PORT], seconds)
        with self.console.step("booting"):
            up = self._follow(lambda: report.started, self.timeout)
            if up and report.agent:
                self._background(lambda: self._poll_agent(Client(identity, client.port, _ASK_SECONDS)))
            up = up and self._follow(lambda: bool(report.state), self.timeout)
        if up:
            with self.console.step("waiting for the guest's report"):
                self._follow(lambda: report.complete, self.timeout)
        if report.network:
            outcome.unreachable = tuple(report.network.unreachable(self.network))
        lost = bool(outcome.death or outcome.unreachable)
        if report.haproxy and report.haproxy.started and not lost:
            with self.console.step("asking haproxy"):
                self._ask_haproxy(self.machine.ports[version, self.machine.drawing.http_port])
        if report.complete and report.agent and not lost:
            with self.console.step("waiting for the amphora agent"):
                answered = self._follow(lambda: outcome.agent_version is not None, self.timeout)
            if answered:
                control(self, client)
        if outcome.death:
            time.sleep(_LAST_WORDS_SECONDS)
            self._listen()
        outcome.timed_out = not outcome.death and not report.complete
        outcome.tail = tuple(self.last_lines())
        return outcome

    def last_lines(self) -> list[str]:
        """Return the last lines of the serial console, with an unfinished one."""
        return self._tail + ([self._screen.pending] if self._screen.pending.strip() else [])

    def _ask_haproxy(self, port: int) -> None:
        def ask() -> bool:
            try:
                self.outcome.answer = haproxy.ask(port, _ASK_SECONDS)
            except (OSError, ValueError) as error:
                self.outcome.answer_error = str(error)
            return self.outcome.answer is not None

        self._follow(ask, min(self.timeout, self.machine.seconds() + ANSWER_SECONDS), pause=1.0)

    def _poll_agent(self, client: Client) -> None:
        """Ask until it answers or the guest has ended; the moment of the first answer is what operators wait for."""
        while not self.machine.ended():
            try:
                version = client.version()
            except (OSError, AgentError) as error:
                self.outcome.agent_error = str(error)
            else:
                self.outcome.agent_seconds = round(self.machine.seconds(), 1)
                self.outcome.agent_version = version
                return
            time.sleep(_POLL_SECONDS)

    def plug(self, network: vip.Network) -> dict[int, int]:
        """Plug the VIP's port (see :class:`amphora_mkimage.boot.controller.Host`)."""
        return self.machine.plug(network)

    def restart(self, power: Power, client: Client, mac: str) -> str:
        """Start the guest anew (see :class:`amphora_mkimage.boot.controller.Host`)."""
        return restart(power, self.machine.monitor, self, client, mac)

    def begin_again(self) -> GuestReport:
        """Forget the boot so far; the next one may take as long, and has a report of its own, which is returned."""
        self._pump()
        self._heard = now = self.machine.seconds()
        self._end_of_boot = now + self.timeout
        self._login, self._resets, self._off = 0.0, 0, False
        self._screen.forget()
        self._reports.forget()
        self.outcome.restarts.append(GuestReport())
        return self.outcome.latest

    def switched_off(self) -> bool:
        """Whether the guest has switched itself off."""
        return self._off

    def follow(self, done: Callable[[], bool], seconds: float | None = None) -> bool:
        """Observe the machine until something is done; False when the guest died, or the time is over."""
        wanted = self._end_of_boot if seconds is None else self.machine.seconds() + seconds
        return self._follow(done, min(self._end_of_boot, wanted))

    def in_background(self, work: Callable[[], T]) -> T:
        """Do something that takes long while the machine is being observed.

        :raises MkimageError: the guest died, or the time is over; the work is then left to itself
        """
        future = self._background(work)
        if not self._follow(future.done, self._end_of_boot):
            death_ = self.outcome.death
            raise MkimageError(death_.what if death_ else f"not done {self.timeout:.0f} s after power-on")
        return future.result()

    def _background(self, work: Callable[[], T]) -> Future[T]:
        """Start a thread that does not keep this program alive, whose end may be a request that is never answered."""
        future: Future[T] = Future()

        def target() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # raised again where the result is asked for
                future.set_exception(error)

        threading.Thread(target=target, daemon=True).start()
        return future

    def _follow(self, done: Callable[[], bool], end: float, *, pause: float = _TICK) -> bool:
        """Go on until something is done; False when the guest died, or the time (seconds since power-on) is over."""
        while True:
            self._pump()
            if self.outcome.death:
                return False
            if done():
                return True
            if self.machine.seconds() >= end:
                return False
            time.sleep(pause)

    def _pump(self) -> None:
        """Take in all that is new."""
        outcome, now = self.outcome, self.machine.seconds()
        ended = self.machine.ended()  # asked first: what it printed before its end is then read below
        before = self._screen.received + self._reports.received
        for line in self._reports.lines():
            outcome.latest.take(line)
            self.console.output(f"reporter: {line}", keep=False)
        if outcome.report.state and outcome.boot_seconds is None:
            outcome.boot_seconds = round(now, 1)
        lines = self._listen()
        if self._screen.received + self._reports.received > before:
            self._heard = now
        for event in self.machine.monitor.events():
            from_guest = event.get("data", {}).get("guest") is True
            self._resets += from_guest and event["event"] == "RESET"
            self._off = self._off or (from_guest and event["event"] == "SHUTDOWN")
        # The console first: it says more than qemu's end does.
        outcome.death = death.find(lines, self._screen.pending) or self._end(ended, now)

    def _listen(self) -> list[str]:
        """Take in what is new on the serial console."""
        lines = self._screen.lines()
        self._tail = [*self._tail, *lines][-_TAIL_LINES:]  # first: an interrupt may come while they are shown
        for line in lines:
            if self.stream:
                self.console.note(line)
            else:
                self.console.output(line, keep=False)
                self.console.activity(line)
        return lines

    def _end(self, ended: bool, now: float) -> Death | None:
        """Ways to die that are not read from the console."""
        report = self.outcome.latest
        if ended and self._off:
            return Death("the guest switched itself off")
        if ended:
            return Death(self.machine.ending())
        # After a reset from outside SeaBIOS resets the machine by itself, up to four times; that is not a loop.
        if self._resets > RESETS and not self.outcome.restarts:
            return Death(f"the guest restarts in a loop ({self._resets} times so far)")
        if report.error:
            return Death(f"the reporter could not be started in the guest: {report.error}")
        return None if report.started else self._mute(now)

    def _mute(self, now: float) -> Death | None:
        """Decide whether cloud-init should have run the user data by now."""
        if not self._login and death.is_login(self._screen.pending):
            self._login = now
        if self._login and now - self._login > LOGIN_SECONDS:
            return Death(
                "the guest is up, but cloud-init did not run the user data of the config drive",
                "cloud-init must be installed and enabled, with ConfigDrive in its datasource_list",
            )
        if now - self._heard > SILENCE_SECONDS:
            return Death(
                f"the guest said nothing for {SILENCE_SECONDS:.0f} s",
                "a console= for the serial port on the kernel's command line would show where it stopped",
            )
        return None


#: What is done with an agent that answers.
Control = Callable[[Session, Client], None]


def be_the_controller(session: Session, client: Client) -> None:
    """Drive the agent as Octavia's controller does, and hear what fails in the guest meanwhile."""
    outcome, machine = session.outcome, session.machine
    link, (first, *others) = machine.drawing.link, session.network.subnets
    heartbeats = Received(link.heartbeats) if link else Capture(machine.drawing.wire, first.controller)
    also = [Client(client.identity, machine.ports[subnet.version, agent.PORT], client.timeout) for subnet in others]
    controller = Controller(
        client,
        heartbeats,
        session,
        lambda name: session.console.note(f"agent: {name}"),
        also=also,
        reboot=session.reboot,
    )
    outcome.steps = controller.steps
    with session.console.step("driving the amphora agent"):
        controller.run()
    if not outcome.death and not controller.steps[-1].error:
        with session.console.step("waiting for the guest's last report"):
            session.follow(lambda: outcome.latest.deleted, UNITS_SECONDS)
