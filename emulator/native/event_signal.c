#include "emulator/native/event_signal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "emulator/native/status.h"

#define EVENTS 64 /* completions that nobody collected: the kernel takes at least so many */

int fpr_signaller_open(struct fpr_signaller *out)
{
    aio_context_t context = 0;

    out->context = 0;
    out->source = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (out->source < 0)
        return FPR_SYSTEM;
    if (syscall(SYS_io_setup, EVENTS, &context) == 0)
        out->context = context;
    return FPR_OK;
}

void fpr_signaller_close(struct fpr_signaller *signaller)
{
    if (signaller->context)
        syscall(SYS_io_destroy, (aio_context_t)signaller->context);
    close(signaller->source);
    signaller->context = 0;
    signaller->source = -1;
}

static int submit(const struct fpr_signaller *signaller, int fd)
{
    char nothing;
    struct iocb request = {
        .aio_lio_opcode = IOCB_CMD_PREAD,
        .aio_fildes = (uint32_t)signaller->source,
        .aio_buf = (uintptr_t)&nothing,
        .aio_nbytes = sizeof nothing,
        .aio_flags = IOCB_FLAG_RESFD,
        .aio_resfd = (uint32_t)fd,
    };
    struct iocb *requests[] = {&request};

    return syscall(SYS_io_submit, (aio_context_t)signaller->context, 1L, requests) == 1;
}

static void collect(const struct fpr_signaller *signaller)
{
    struct io_event events[EVENTS];
    struct timespec now = {0, 0};

    syscall(SYS_io_getevents, (aio_context_t)signaller->context, 0L, (long)EVENTS, events, &now);
}

int fpr_signaller_send(const struct fpr_signaller *signaller, int fd, uint32_t *sent)
{
    static const uint64_t one = 1;
    struct pollfd wanted = {.fd = fd, .events = POLLOUT};

    if (signaller->context) {
        *sent = (uint32_t)submit(signaller, fd);
        if (!*sent && errno == EAGAIN) {
            collect(signaller);
            *sent = (uint32_t)submit(signaller, fd);
        }
        return FPR_OK;
    }
    *sent = poll(&wanted, 1, 0) == 1 && wanted.revents == POLLOUT &&
            write(fd, &one, sizeof one) == (ssize_t)sizeof one;
    return FPR_OK;
}
