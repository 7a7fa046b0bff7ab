/* Plays Linux on a processor with AMX to a program into which it is preloaded.
 *
 * There the area of a task's extended registers has 11,008 bytes: tile configuration from 2,752 on,
 * tile data from 2,816 on (bits 17 and 18 of XSTATE_BV). Linux reads as much as fits, and sets the
 * whole area or nothing (EFAULT). Each task's tiles hold a pattern of its own here, and half of the
 * tasks have tile data. Whoever sets what is no task's, or has mixed the two, gets EINVAL. */
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { WHOLE_BYTES = 11008, TILES_AT = 2752, BV_AT = 512 };
#define TILE_BITS (3ULL << 17)

typedef long (*ptrace_function)(enum __ptrace_request request, ...);

static ptrace_function real;
static uint8_t area[WHOLE_BYTES];

__attribute__((constructor)) static void find_real(void)
{
    real = (ptrace_function)dlsym(RTLD_NEXT, "ptrace");
}

static uint64_t tile_bits(uint8_t task)
{
    return task % 2 ? 1ULL << 17 : TILE_BITS;
}

static uint8_t tile_byte(uint8_t task, size_t at)
{
    return task ^ (uint8_t)((at - TILES_AT) * 7);
}

static long get(pid_t pid, struct iovec *iov)
{
    struct iovec all = {area, WHOLE_BYTES};
    memset(area, 0, sizeof area);
    long done = real(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &all);
    if (done < 0)
        return done;
    uint64_t bits;
    memcpy(&bits, area + BV_AT, sizeof bits);
    uint8_t task = (uint8_t)pid;
    bits |= tile_bits(task);
    memcpy(area + BV_AT, &bits, sizeof bits);
    for (size_t at = TILES_AT; at < WHOLE_BYTES; at++)
        area[at] = tile_byte(task, at);
    if (iov->iov_len > WHOLE_BYTES)
        iov->iov_len = WHOLE_BYTES;
    memcpy(iov->iov_base, area, iov->iov_len);
    return done;
}

static long set(pid_t pid, const struct iovec *iov)
{
    if (iov->iov_len < WHOLE_BYTES) {
        errno = EFAULT;
        return -1;
    }
    memcpy(area, iov->iov_base, WHOLE_BYTES);
    uint64_t bits;
    memcpy(&bits, area + BV_AT, sizeof bits);
    uint8_t task = area[TILES_AT];
    int whole = (bits & TILE_BITS) == tile_bits(task);
    for (size_t at = TILES_AT; at < WHOLE_BYTES; at++)
        whole &= area[at] == tile_byte(task, at);
    if (!whole) {
        errno = EINVAL;
        return -1;
    }
    bits &= ~TILE_BITS;
    memcpy(area + BV_AT, &bits, sizeof bits);
    struct iovec all = {area, WHOLE_BYTES};
    return real(PTRACE_SETREGSET, pid, NT_X86_XSTATE, &all);
}

long ptrace(enum __ptrace_request request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);
    if ((uintptr_t)address == NT_X86_XSTATE && request == PTRACE_GETREGSET)
        return get(pid, data);
    if ((uintptr_t)address == NT_X86_XSTATE && request == PTRACE_SETREGSET)
        return set(pid, data);
    return real(request, pid, address, data);
}
