"""Can this host run programs of another architecture inside a tree?

The kernel does it itself (a 32-bit program on its 64-bit brother), or hands the program to qemu-user, which somebody
registered with binfmt_misc. Whether that works is not to be seen in /proc/sys/fs/binfmt_misc: in a container the
registration may be the host's and the directory empty. So a program is run, one that ends at once, in an otherwise
empty root directory: qemu-user is found from there only when it was registered with the flag F, as it must be for a
chroot (kernel documentation, "Kernel Support for miscellaneous Binary Formats").
"""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from amphora_mkimage.errors import HostError
from amphora_mkimage.guest import id_maps, userns

_LOAD = 0x400000
_ALIGNMENT = 0x10000  # the largest page of any of them
_NO_CHROOT = "chroot(2) is refused"
_INSTALL = (
    "as root on the host: apt install qemu-user-static binfmt-support (Debian 13: qemu-user-binfmt), or register"
    " qemu-user with the flag F otherwise"
)


@dataclass(frozen=True)
class _Program:
    """What exit(0) is made of.

    :param bits: 32 or 64
    :param machine: e_machine in the ELF header (elf(5))
    :param flags: e_flags, the version of the ABI
    :param code: machine code
    """

    bits: int
    machine: int
    flags: int
    code: str

    def elf(self) -> bytes:
        """Make an executable file of one segment: headers and code."""
        code = bytes.fromhex(self.code)
        wide = self.bits == 64
        header, segment = ("<HHIQQQIHHHHHH", "<IIQQQQQQ") if wide else ("<HHIIIIIHHHHHH", "<IIIIIIII")
        header_size, segment_size = 16 + struct.calcsize(header), struct.calcsize(segment)
        entry = _LOAD + header_size + segment_size
        size = header_size + segment_size + len(code)
        ident = b"\x7fELF" + bytes((2 if wide else 1, 1, 1)) + bytes(9)  # little endian, version 1
        sizes = (header_size, segment_size, 1, 0, 0, 0)
        head = struct.pack(header, 2, self.machine, 1, entry, header_size, 0, self.flags, *sizes)
        place = (0, _LOAD, _LOAD, size, size)
        # PT_LOAD, readable and executable; 32 and 64 bits have the flags in different places.
        load = (1, 5, *place, _ALIGNMENT) if wide else (1, *place, 5, _ALIGNMENT)
        return ident + head + struct.pack(segment, *load) + code


_PROGRAMS = {
    "amd64": _Program(64, 62, 0, "b83c000000 31ff 0f05"),  # mov eax,60; xor edi,edi; syscall
    "i386": _Program(32, 3, 0, "b801000000 31db cd80"),  # mov eax,1; xor ebx,ebx; int 0x80
    "arm64": _Program(64, 183, 0, "a80b80d2 000080d2 010000d4"),  # mov x8,#93; mov x0,#0; svc #0
    "armhf": _Program(32, 40, 0x05000400, "0170a0e3 0000a0e3 000000ef"),  # mov r7,#1; mov r0,#0; svc #0
    "ppc64el": _Program(64, 21, 2, "01000038 00006038 02000044"),  # li r0,1; li r3,0; sc
}


def require(arch: str, id_map: id_maps.IdMap | None = None) -> None:
    """Make sure that programs of an architecture run here.

    :param arch: dpkg's name
    :raises HostError: they do not
    """
    with tempfile.TemporaryDirectory(prefix="amphora-mkimage-") as directory:
        refused = userns.run(lambda: _try(_PROGRAMS[arch], Path(directory)), id_map=id_map)
    if refused:
        if refused == _NO_CHROOT:
            raise HostError("this host lets nobody change the root directory", userns.SEE_CHECK)
        raise HostError(f"this host cannot run programs for {arch}: {refused}", _remedy(arch))


def _try(program: _Program, root: Path) -> str:
    """Run the program with a root directory that has nothing else; why it does not run, or "". Inside a namespace."""
    userns.mount("tmpfs", root, "tmpfs", 0, "mode=755")  # not noexec, whatever /tmp is
    file = root / "program"
    file.write_bytes(program.elf())
    file.chmod(0o755)
    try:
        # Not the program chroot: execvp(3), which it calls, turns "no such format" into "no such shell".
        done = subprocess.run(["/program"], preexec_fn=lambda: os.chroot(root), env={}, check=False)
    except subprocess.SubprocessError:  # preexec_fn raised, and its error is lost
        return _NO_CHROOT
    except OSError as error:
        if error.errno == errno.ENOEXEC:
            return "the kernel does not know them"
        if error.errno == errno.ENOENT:
            return "qemu-user is registered without the flag F, so it is not found from inside a tree"
        return error.strerror or str(error)
    return "" if done.returncode == 0 else f"a trial ended with status {done.returncode}"


def _remedy(arch: str) -> str:
    if arch == "i386" and os.uname().machine == "x86_64":
        return "boot the host's kernel with ia32_emulation=1 (it needs CONFIG_IA32_EMULATION)"
    return _INSTALL
