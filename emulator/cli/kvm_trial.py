"""Whether KVM runs what an ordinary kernel consists of: a virtual machine of a few instructions.

That /dev/kvm opens says little. Where the host's KVM has no processor for such guests, it emulates
them, instruction by instruction, until it meets one that it does not know, and no ordinary kernel
boots. So this guest uses what emulators leave out: an SSE addition, a page fault that its own
handler mends, a change to user mode and a system call out of it, and a loop that takes an emulator
seconds. Structures and numbers are those of linux/kvm.h.

Run as a program, it prints how that went as JSON; its caller ends it where it hangs.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import struct
from fcntl import ioctl

DEVICE = "/dev/kvm"
_CREATE_VM, _VCPU_MMAP_SIZE, _CREATE_VCPU, _SET_TSS = 0xAE01, 0xAE04, 0xAE41, 0xAE47
_SUPPORTED_CPUID, _SET_CPUID, _SET_MEMORY = 0xC008AE05, 0x4008AE90, 0x4020AE46
_GET_SREGS, _SET_SREGS, _SET_REGS, _RUN = 0x8138AE83, 0x4138AE84, 0x4090AE82, 0xAE80
_TSS = 0xFFFBD000
"""Three pages that KVM on Intel needs for itself; below 4 GiB, and in nobody's way."""
_CPUID_ENTRIES, _CPUID_BYTES = 100, 40
_SREGS_BYTES, _SEGMENTS, _TABLES_AT, _CONTROL_AT = 312, 6, 192, 224
_REASON_AT, _UNION_AT = 8, 32
_IO, _SHUTDOWN, _FAIL_ENTRY, _INTERNAL = 2, 8, 9, 17
_EMULATION = 1
_REASONS = {
    _SHUTDOWN: "a guest that handles its page fault died of it",
    _FAIL_ENTRY: "the hardware refused to enter a guest, reason {:#x}",
    _INTERNAL: "its processor failed with internal error {:#x}",
}

_MEMORY_BYTES = 4 << 20
_GDT, _IDT, _PML4, _PDPT, _PD, _STACK, _CODE = (
    0x1000,
    0x2000,
    0x3000,
    0x4000,
    0x5000,
    0x7F00,
    0x8000,
)
_PAGE_FAULT = 14
_ANSWER = 42
_PROGRAM = """
b9 81 00 00 c0                       mov   ecx, 0xc0000081     ; STAR: segments of a system call
ba 08 00 10 00                       mov   edx, 0x00100008
0f 30                                wrmsr
ff c1                                inc   ecx                 ; LSTAR: where it goes
b8 48 80 00 00                       mov   eax, from_user
31 d2                                xor   edx, edx
0f 30                                wrmsr
b8 15 00 00 00                       mov   eax, 21
66 0f 6e c0                          movd  xmm0, eax
66 0f fe c0                          paddd xmm0, xmm0
66 0f 7e 04 25 00 00 20 00           movd  [0x200000], xmm0    ; not mapped yet
6a 23                                push  0x23                ; to user mode
68 00 70 00 00                       push  0x7000
6a 02                                push  2
6a 2b                                push  0x2b
68 3f 80 00 00                       push  user
48 cf                                iretq
8b 1c 25 00 00 20 00           user: mov   ebx, [0x200000]
0f 05                                syscall
b9 80 96 98 00            from_user: mov   ecx, 10000000
ff c9                                dec   ecx
75 fc                                jnz   -2
89 d8                                mov   eax, ebx
e6 f1                                out   0xf1, al
f4                                   hlt
48 c7 04 25 08 50 00 00 87 00 20 00  mov   qword [0x5008], 0x200087 ; the page fault's: map it
48 83 c4 08                          add   rsp, 8
48 cf                                iretq
"""
_HANDLER = _CODE + 0x56
_BYTES_COLUMNS = 36
_DESCRIPTORS = (
    0,
    0x00AF9B000000FFFF,
    0x00CF93000000FFFF,
    0,
    0x00CFF3000000FFFF,
    0x00AFFB000000FFFF,
)
"""Code and data of the kernel (0x08, 0x10), data and code of user mode (0x20, 0x28)."""


class Machine:
    """A virtual machine with one processor, about to run the program in 64-bit mode."""

    def __init__(self, device: int) -> None:
        self._vm = ioctl(device, _CREATE_VM, 0)
        self._memory = mmap.mmap(-1, _MEMORY_BYTES)
        self._fill()
        place = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        ioctl(self._vm, _SET_MEMORY, struct.pack("<IIQQQ", 0, 0, 0, _MEMORY_BYTES, place))
        # The argument has 32 bits, of which fcntl takes 31.
        ctypes.CDLL(None).ioctl(self._vm, ctypes.c_ulong(_SET_TSS), ctypes.c_ulong(_TSS))
        self._vcpu = ioctl(self._vm, _CREATE_VCPU, 0)
        self._state = mmap.mmap(self._vcpu, ioctl(device, _VCPU_MMAP_SIZE, 0))
        cpuid = bytearray(struct.pack("<II", _CPUID_ENTRIES, 0)) + bytearray(
            _CPUID_ENTRIES * _CPUID_BYTES
        )
        ioctl(device, _SUPPORTED_CPUID, cpuid)
        ioctl(self._vcpu, _SET_CPUID, cpuid)
        self._set_registers()

    def _fill(self) -> None:
        program = b"".join(
            bytes.fromhex(line[:_BYTES_COLUMNS].partition("  ")[0])
            for line in _PROGRAM.strip().splitlines()
        )
        self._memory[_CODE : _CODE + len(program)] = program
        # One table of each level; of 2 MiB pages, the first is there.
        for at, entry in ((_PML4, _PDPT | 7), (_PDPT, _PD | 7), (_PD, 0x87)):
            struct.pack_into("<Q", self._memory, at, entry)
        struct.pack_into(f"<{len(_DESCRIPTORS)}Q", self._memory, _GDT, *_DESCRIPTORS)
        gate = struct.pack("<HHBBHII", _HANDLER & 0xFFFF, 0x08, 0, 0x8E, _HANDLER >> 16, 0, 0)
        self._memory[_IDT + 16 * _PAGE_FAULT : _IDT + 16 * (_PAGE_FAULT + 1)] = gate

    def _set_registers(self) -> None:
        system = bytearray(_SREGS_BYTES)
        ioctl(self._vcpu, _GET_SREGS, system)
        code, data = _segment(0x08, 11, long=True), _segment(0x10, 3, long=False)
        system[: len(code) * _SEGMENTS] = code + data * (_SEGMENTS - 1)
        struct.pack_into("<QH6xQH6x", system, _TABLES_AT, _GDT, 0x2F, _IDT, 0xFFF)
        cr0, cr4, efer = 0x8005_0033, 0x620, 0x501  # paging, SSE, 64 bits, system calls
        struct.pack_into("<6Q", system, _CONTROL_AT, cr0, 0, _PML4, cr4, 0, efer)
        ioctl(self._vcpu, _SET_SREGS, bytes(system))
        general = [0] * 16
        general[6] = _STACK
        ioctl(self._vcpu, _SET_REGS, struct.pack("<18Q", *general, _CODE, 2))

    def run(self) -> str:
        """Until the guest answers; why it did not, or an empty text."""
        try:
            ioctl(self._vcpu, _RUN, 0)
        except OSError as error:
            return f"its processor does not run: {error.strerror}"
        (reason,) = struct.unpack_from("<I", self._state, _REASON_AT)
        if reason == _IO:
            *_, offset = struct.unpack_from("<BBHIQ", self._state, _UNION_AT)
            answer = self._state[offset]
            return "" if answer == _ANSWER else f"a guest computed {answer} for {_ANSWER}"
        (why,) = struct.unpack_from("<Q", self._state, _UNION_AT)
        if reason == _INTERNAL and why & 0xFFFF_FFFF == _EMULATION:
            return "it emulates guests, and does not know an instruction that ordinary kernels use"
        told = _REASONS.get(reason, f"a guest stopped for the reason {reason} of linux/kvm.h")
        return told.format(why)


def _segment(selector: int, kind: int, *, long: bool) -> bytes:
    """struct kvm_segment of a flat one."""
    return struct.pack(
        "<QIH10B", 0, 0xFFFF_FFFF, selector, kind, 1, 0, not long, 1, long, 1, 0, 0, 0
    )


def trial() -> str:
    """What is wrong with KVM here; an empty text where it runs the guest."""
    try:
        device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return f"{DEVICE}: {error.strerror}"
    try:
        machine = Machine(device)
    except OSError as error:
        return f"{DEVICE} opens, and makes no virtual machine: {error.strerror}"
    found = machine.run()
    return f"{DEVICE} opens, but no ordinary kernel would boot: {found}" if found else ""


if __name__ == "__main__":
    print(json.dumps(trial()))
