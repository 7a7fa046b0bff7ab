#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "emulator/native/histogram_inline.h"
#include "emulator/native/status.h"
#include "host_model/native/measure_private.h"

/* One side of the wire: what it waits on, what it answers on, and when the other wrote. */
struct wire {
    int kick, interrupt; /* eventfds */
    uint64_t count;
    uint64_t written_ns[2]; /* kick, interrupt: published by the eventfd's own write */
    uint64_t clock_ns;
    struct fpr_histogram *there;
    int error;
};

static bool signal_other(int fd, uint64_t *written_ns)
{
    uint64_t one = 1;

    *written_ns = fpr_measure_now();
    return write(fd, &one, sizeof one) == sizeof one;
}

static bool await(int fd, const struct wire *wire, const uint64_t *written_ns,
                  struct fpr_histogram *latency)
{
    uint64_t value, ns;

    if (read(fd, &value, sizeof value) != sizeof value)
        return false;
    ns = fpr_measure_now() - *written_ns;
    fpr_histogram_record_inline(latency, ns - (ns < wire->clock_ns ? ns : wire->clock_ns));
    return true;
}

/* The device: woken by a kick, it interrupts at once. */
static void *answer(void *argument)
{
    struct wire *wire = argument;

    for (uint64_t i = 0; i < wire->count && wire->error == 0; i++)
        if (!await(wire->kick, wire, &wire->written_ns[0], wire->there) ||
            !signal_other(wire->interrupt, &wire->written_ns[1]))
            wire->error = errno;
    return NULL;
}

int fpr_measure_signals(uint64_t count, struct fpr_histogram *there, struct fpr_histogram *back)
{
    struct wire wire = {.count = count, .there = there, .clock_ns = fpr_measure_clock_ns()};
    pthread_t thread;
    int error = 0;

    wire.kick = eventfd(0, EFD_CLOEXEC);
    wire.interrupt = eventfd(0, EFD_CLOEXEC);
    if (wire.kick < 0 || wire.interrupt < 0)
        error = errno;
    if (error == 0)
        error = pthread_create(&thread, NULL, answer, &wire);
    if (error == 0) {
        for (uint64_t i = 0; i < count && error == 0; i++)
            if (!signal_other(wire.kick, &wire.written_ns[0]) ||
                !await(wire.interrupt, &wire, &wire.written_ns[1], back))
                error = errno;
        pthread_join(thread, NULL);
        error = error == 0 ? wire.error : error;
    }
    if (wire.kick >= 0)
        close(wire.kick);
    if (wire.interrupt >= 0)
        close(wire.interrupt);
    errno = error;
    return error == 0 ? FPR_OK : FPR_SYSTEM;
}
