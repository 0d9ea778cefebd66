"""Downloads from a real server on loopback that breaks off, lies, stalls and never ends."""

from __future__ import annotations

import io
import random
import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from fault_server import Fault, FaultServer, running

from amphora_mkimage.console import Console
from amphora_mkimage.errors import MkimageError
from amphora_mkimage.fetch.download import Memory, Transfer, fetch_all
from amphora_mkimage.fetch.publication import Location
from amphora_mkimage.fetch.transport import NotThereError, Policy

CONTENT = random.Random(1).randbytes(200_000)
#: Real delays and time-outs are for real networks. The read time-out is long enough for a busy machine.
QUICK = Policy(first_delay=0.001, longest_delay=0.002, longest_retry_after=0.05, connect_timeout=20, read_timeout=20)
IMPATIENT = Policy(first_delay=0.001, longest_delay=0.002, connect_timeout=20, read_timeout=0.3, progress=1)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running() as made:
        made.files["/file"] = CONTENT
        made.etags["/file"] = '"one"'
        yield made


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def console(log: io.StringIO) -> Console:
    return Console(log)


def fetch(
    server: FaultServer, console: Console, policy: Policy = QUICK, limit: int = 1 << 20, target: Memory | None = None
) -> bytes:
    target = target or Memory()
    fetch_all([Transfer(Location.parse(f"{server.url}/file"), target, limit, policy)], console)
    return bytes(target.content)


def test_a_file(server: FaultServer, console: Console) -> None:
    assert fetch(server, console) == CONTENT
    (seen,) = server.asked("/file")
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.headers["user-agent"].startswith("amphora-mkimage/")
    assert "authorization" not in seen.headers


def test_an_empty_file(server: FaultServer, console: Console) -> None:
    server.files["/file"] = b""
    assert fetch(server, console) == b""


@pytest.mark.parametrize("tenth", range(10))
def test_a_connection_cut_at_every_tenth(tenth: int, server: FaultServer, console: Console, log: io.StringIO) -> None:
    cut = len(CONTENT) * tenth // 10
    server.faults["/file"] = Fault(cut=cut, cuts=1)
    assert fetch(server, console) == CONTENT
    assert server.ranges("/file") == ["", f"bytes={cut}-" if cut else ""]
    assert server.sent == len(CONTENT)
    assert re.search(r"127\.0\.0\.1: \S+: .*; trying again", log.getvalue())


def test_a_connection_that_is_cut_again_and_again_still_gets_there(server: FaultServer, console: Console) -> None:
    server.faults["/file"] = Fault(cut=20_000)
    policy = Policy(attempts=2, progress=1, first_delay=0.001, longest_delay=0.001)
    assert fetch(server, console, policy) == CONTENT
    assert server.sent == len(CONTENT)


def test_a_server_that_ignores_ranges(server: FaultServer, console: Console) -> None:
    server.faults["/file"] = Fault(cut=100_000, cuts=2, ignore_ranges=True)
    assert fetch(server, console) == CONTENT
    assert server.ranges("/file") == ["", "bytes=100000-", "bytes=100000-"]
    assert server.sent == len(CONTENT) + 200_000


def test_a_server_that_ignores_ranges_and_always_breaks_off_is_given_up(server: FaultServer, console: Console) -> None:
    server.faults["/file"] = Fault(cut=100_000, ignore_ranges=True)
    with pytest.raises(MkimageError, match=r"broke off .*tried 5 times|connection broke off"):
        fetch(server, console, Policy(progress=1, first_delay=0.001, longest_delay=0.001))


def test_a_file_that_changes_meanwhile_is_fetched_from_its_beginning(server: FaultServer, console: Console) -> None:
    server.faults["/file"] = Fault(cut=100_000, cuts=1)
    target = Changing(server)
    assert fetch(server, console, target=target) == bytes(reversed(CONTENT))
    assert [seen.headers.get("if-range") for seen in server.asked("/file")] == [None, '"one"']


class Changing(Memory):
    """Replaces the file on the server as soon as half of it has arrived."""

    def __init__(self, server: FaultServer) -> None:
        super().__init__()
        self._server = server

    def write(self, chunk: bytes) -> None:
        super().write(chunk)
        self._server.files["/file"], self._server.etags["/file"] = bytes(reversed(CONTENT)), '"two"'


def test_a_date_is_a_validator_too(server: FaultServer, console: Console) -> None:
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    server.faults["/file"] = Fault(cut=100_000, cuts=1, headers={"Last-Modified": date})
    server.etags["/file"] = 'W/"weak"'
    assert fetch(server, console) == CONTENT
    assert [seen.headers.get("if-range") for seen in server.asked("/file")] == [None, date]
    assert server.ranges("/file") == ["", "bytes=100000-"]


def test_what_has_no_validator_is_not_resumed_blindly(server: FaultServer, console: Console) -> None:
    server.faults["/file"] = Fault(cut=100_000, cuts=1)
    del server.etags["/file"]
    assert fetch(server, console) == CONTENT
    assert server.ranges("/file") == ["", ""]


@pytest.mark.parametrize("lie", ["bytes 0-9/200000", "bytes 1-199999/200000", "items 100000-199999/200000", ""])
def test_another_part_than_was_asked_for(lie: str, server: FaultServer, console: Console) -> None:
    server.faults["/file"] = Fault(cut=100_000, cuts=1, wrong_range=lie or "nonsense")
    assert fetch(server, console) == CONTENT
    assert server.ranges("/file") == ["", "bytes=100000-", ""]


def test_all_of_it_is_here_already(server: FaultServer, console: Console) -> None:
    target = Memory()
    target.restart('"one"')
    target.write(CONTENT)
    assert fetch(server, console, target=target) == CONTENT
    assert server.sent == 0


def test_more_of_it_is_here_than_there(server: FaultServer, console: Console) -> None:
    target = Memory()
    target.restart('"one"')
    target.write(CONTENT + b"more")
    assert fetch(server, console, target=target) == CONTENT


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408])
def test_what_may_go_away_is_tried_again(status: int, server: FaultServer, console: Console) -> None:
    server.faults["/file"] = Fault(statuses=[status, status])
    assert fetch(server, console) == CONTENT
    assert len(server.asked("/file")) == 3


@pytest.mark.parametrize("status", [404, 410, 400, 401, 403, 405, 304, 206])
def test_what_will_not_go_away_is_not(status: int, server: FaultServer, console: Console) -> None:
    server.faults["/file"] = Fault(statuses=[status])
    with pytest.raises(MkimageError, match=str(status)) as raised:
        fetch(server, console)
    assert len(server.asked("/file")) == 1
    assert raised.value.remedy
    assert isinstance(raised.value, NotThereError) == (status in (404, 410))


def test_it_is_given_up_in_the_end(server: FaultServer, console: Console) -> None:
    server.faults["/file"] = Fault(statuses=[503] * 100)
    with pytest.raises(MkimageError, match=r"503 Service Unavailable \(tried 5 times\)"):
        fetch(server, console)
    assert len(server.asked("/file")) == 5


def test_delays_grow_and_differ() -> None:
    transfer = Transfer(Location("http://127.0.0.1/x"), Memory(), 1, Policy(first_delay=1, longest_delay=8))
    for failures, longest in ((1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (50, 8)):
        delays = {transfer._delay(failures) for _ in range(50)}
        assert longest / 2 <= min(delays) < max(delays) <= longest


@pytest.mark.parametrize("known", [True, False])
def test_a_body_without_end(known: bool, server: FaultServer, console: Console) -> None:
    server.faults["/file"] = Fault(endless=True) if not known else Fault(length=1 << 40)
    with pytest.raises(MkimageError, match="larger than 1048576 bytes: refused"):
        fetch(server, console)
    assert len(server.asked("/file")) == 1
    assert server.sent <= (8 << 20)  # what fits into the buffers on the way


def test_a_server_that_claims_too_much(server: FaultServer, console: Console) -> None:
    server.faults["/file"] = Fault(length=len(CONTENT) + 1, ignore_ranges=True)
    with pytest.raises(MkimageError, match="cannot fetch"):
        fetch(server, console)


def test_a_server_that_claims_too_little_gives_too_little(server: FaultServer, console: Console) -> None:
    """Only the checksum can tell; see test_fetch_published."""
    server.faults["/file"] = Fault(length=1000)
    assert fetch(server, console) == CONTENT[:1000]


def test_a_server_that_stalls(server: FaultServer, console: Console) -> None:
    server.faults["/file"] = Fault(stall=150_000, stalls=1)
    assert fetch(server, console, IMPATIENT) == CONTENT
    first, *_, last = server.ranges("/file")
    assert first == "" and 0 < int(last.removeprefix("bytes=").removesuffix("-")) <= 150_000


def test_a_server_that_trickles(server: FaultServer, console: Console, log: io.StringIO) -> None:
    """Each byte comes before the read time-out; all of them would take hours."""
    server.faults["/file"] = Fault(trickle=0.05)
    policy = Policy(first_delay=0.001, longest_delay=0.002, read_timeout=0.4, slowest=1000, attempts=2)
    with pytest.raises(MkimageError, match="too slow"):
        fetch(server, console, policy)
    assert "too slow; trying again" in log.getvalue()


def test_a_server_that_never_answers(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        policy = Policy(attempts=2, first_delay=0.001, read_timeout=0.2)
        with pytest.raises(MkimageError, match=r"no answer in time \(tried 2 times\)"):
            fetch_all([Transfer(Location.parse(url), Memory(), 1, policy)], console)


def test_nobody_there(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(MkimageError, match=r"Connection refused \(tried 5 times\)") as raised:
        fetch_all([Transfer(Location.parse("http://127.0.0.1:9/file"), Memory(), 1, QUICK)], console)
    assert "proxy" in raised.value.remedy


def test_several_at_once(server: FaultServer, console: Console) -> None:
    for number in range(9):
        server.files[f"/{number}"] = CONTENT[number:]
    targets = [Memory() for _ in range(9)]
    fetch_all(
        [Transfer(Location.parse(f"{server.url}/{n}"), target, 1 << 20, QUICK) for n, target in enumerate(targets)],
        console,
    )
    assert [bytes(target.content) for target in targets] == [CONTENT[number:] for number in range(9)]


def test_one_that_fails_ends_the_others(server: FaultServer, console: Console) -> None:
    server.files["/slow"] = CONTENT
    server.faults["/slow"] = Fault(stall=1000)
    transfers = [
        Transfer(Location.parse(f"{server.url}/{name}"), Memory(), 1 << 20, QUICK) for name in ("slow", "slow", "gone")
    ]
    with pytest.raises(NotThereError, match="/gone is not there"):
        fetch_all(transfers, console)
    assert workers_end()  # nobody waits for the time-out of the slow ones, which is longer


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    server.files["/file"] = bytes(30)
    server.faults["/file"] = Fault(trickle=0.02)
    terminal = Terminal()
    fetch(server, Console(terminal))
    assert "file: 0 of 0 MB, 0.0 MB/s" in terminal.getvalue()


def test_an_optional_file_may_be_missing(server: FaultServer, console: Console) -> None:
    there = Transfer(Location.parse(f"{server.url}/file"), Memory(), 1 << 20, QUICK, optional=True)
    gone = Transfer(Location.parse(f"{server.url}/gone"), Memory(), 1 << 20, QUICK, optional=True)
    fetch_all([there, gone], console)
    assert (there.missing, gone.missing) == (False, True)


def test_an_interrupt_ends_all(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.faults["/file"] = Fault(stall=1000)
    console = Console(io.StringIO())

    def interrupt(text: str) -> None:
        if server.sent:
            raise KeyboardInterrupt

    monkeypatch.setattr(console, "activity", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(server, console)
    assert workers_end()


def workers_end() -> bool:
    """Wait for the threads of downloads to end, for half of the read time-out."""
    end = time.monotonic() + QUICK.read_timeout / 2
    while any("(work)" in thread.name for thread in threading.enumerate()):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
