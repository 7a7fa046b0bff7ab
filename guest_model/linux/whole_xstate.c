/* A ptrace for a User-mode Linux that runs on a processor with more state than it knows.
 *
 * Up to 6.12, User-mode Linux sets the extended registers of a task by PTRACE_SETREGSET with a
 * buffer of a fixed size. Linux on x86 takes nothing but the whole area (EFAULT; xstateregs_set in
 * arch/x86/kernel/fpu/regset.c), which is larger where the processor has AMX, and the guest panics.
 * Reading is no trouble: what does not fit is left out. Preloaded into the kernel, this ptrace
 * hands over the whole area: the kernel's bytes at its beginning, the task's own behind. */
#include <cpuid.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

/* The standard format (Intel SDM, volume 1, 13.4): x87 and SSE, a header, the other features. */
enum { HEADER_AT = 512, HEADER_BYTES = 64, FIRST_AFTER_HEADER = 2, FEATURES = 63 };
enum { XSTATE_LEAF = 0xd, SUPERVISOR = 1 };
/* Of the area; today's largest has 11,008 bytes. Pages that are not touched cost nothing. */
enum { MOST_BYTES = 1 << 20 };

typedef long (*ptrace_function)(enum __ptrace_request request, ...);

static ptrace_function next_ptrace;
/* These kernels have one CPU and do not change tasks within ptrace, so that one buffer does. */
static uint8_t area[MOST_BYTES] __attribute__((aligned(64)));
static size_t area_bytes;       /* of this machine; 0: no short buffer was refused yet */
static size_t short_bytes;      /* the size of buffer for which the next two hold */
static size_t short_covers;     /* what of it is whole features */
static uint64_t short_features; /* bits of XSTATE_BV for the features that it has */

/* Before the kernel begins: later, memory and stack are its own. */
__attribute__((constructor)) static void find_next(void)
{
    next_ptrace = (ptrace_function)dlsym(RTLD_NEXT, "ptrace");
}

static void learn_short(size_t bytes)
{
    short_bytes = short_covers = bytes;
    short_features = (1 << FIRST_AFTER_HEADER) - 1;
    for (unsigned feature = FIRST_AFTER_HEADER; feature < FEATURES; feature++) {
        unsigned size, offset, flags, unused;
        __cpuid_count(XSTATE_LEAF, feature, size, offset, flags, unused);
        if (!size || flags & SUPERVISOR)
            continue;
        if ((size_t)offset + size <= bytes)
            short_features |= 1ULL << feature;
        else if (offset < short_covers)
            short_covers = offset;
    }
}

/* XSTATE_BV says which features differ from their initial state: the kernel decides for those that
 * its buffer has, and the others stay as they are. */
static void merge(const struct iovec *given)
{
    uint64_t own, wanted;
    memcpy(&own, area + HEADER_AT, sizeof own);
    memcpy(area, given->iov_base, short_covers);
    memcpy(&wanted, area + HEADER_AT, sizeof wanted);
    wanted = (wanted & short_features) | (own & ~short_features);
    memcpy(area + HEADER_AT, &wanted, sizeof wanted);
}

static long set_whole(pid_t pid, void *set, const struct iovec *given)
{
    struct iovec whole = {area, area_bytes};
    if (next_ptrace(PTRACE_GETREGSET, pid, set, &whole) < 0)
        return -1;
    if (given->iov_len != short_bytes)
        learn_short(given->iov_len);
    merge(given);
    return next_ptrace(PTRACE_SETREGSET, pid, set, &whole);
}

/* The machine's area is larger than the buffer that it refused. */
static int is_short(pid_t pid, void *set, const struct iovec *given)
{
    struct iovec whole = {area, sizeof area};
    if (given->iov_len < HEADER_AT + HEADER_BYTES)
        return 0;
    if (next_ptrace(PTRACE_GETREGSET, pid, set, &whole) < 0)
        return 0;
    if (whole.iov_len <= given->iov_len || whole.iov_len == sizeof area)
        return 0;
    area_bytes = whole.iov_len;
    return 1;
}

static long set_xstate(pid_t pid, void *set, struct iovec *given)
{
    if (given->iov_len < area_bytes)
        return set_whole(pid, set, given);
    int before = errno;
    long done = next_ptrace(PTRACE_SETREGSET, pid, set, given);
    if (done >= 0 || errno != EFAULT)
        return done;
    if (!is_short(pid, set, given)) {
        errno = EFAULT;
        return done;
    }
    errno = before;
    return set_whole(pid, set, given);
}

long ptrace(enum __ptrace_request request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);
    if (request == PTRACE_SETREGSET && (uintptr_t)address == NT_X86_XSTATE)
        return set_xstate(pid, address, data);
    return next_ptrace(request, pid, address, data);
}
