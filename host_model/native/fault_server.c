#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "emulator/native/status.h"
#include "host_model/native/measure_private.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFDIO_REGISTER_MODE_MINOR
#error "Linux 5.13 headers or newer are needed"
#endif

/* Put a page where one is missing. */
static int resolve(const struct fpr_fault_server *server, uint64_t address)
{
    uint64_t page = address & ~(server->page_bytes - 1);
    struct uffdio_zeropage zero = {.range = {page, server->page_bytes}};
    struct uffdio_continue present = {.range = {page, server->page_bytes}};
    int result = server->kind == FPR_MEASURE_MINOR ? ioctl(server->fd, UFFDIO_CONTINUE, &present)
                                                   : ioctl(server->fd, UFFDIO_ZEROPAGE, &zero);

    return result < 0 && errno != EEXIST ? -1 : 0;
}

static void *serve(void *argument)
{
    struct fpr_fault_server *server = argument;
    struct pollfd wait[] = {{server->fd, POLLIN, 0}, {server->stop, POLLIN, 0}};
    struct uffd_msg message;

    while (poll(wait, 2, -1) > 0 && !(wait[1].revents & POLLIN)) {
        if (read(server->fd, &message, sizeof message) != sizeof message)
            continue; /* another message may have gone with its thread */
        if (message.event == UFFD_EVENT_PAGEFAULT)
            resolve(server, message.arg.pagefault.address);
    }
    return NULL;
}

static int open_userfaultfd(void)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

    return fd >= 0 ? fd : (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
}

int fpr_fault_server_start(struct fpr_fault_server *server, uint32_t kind, uint64_t page_bytes,
                           uint8_t *base, uint64_t bytes)
{
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {.range = {(uint64_t)base, bytes}};

    server->kind = kind;
    server->page_bytes = page_bytes;
    if (kind == FPR_MEASURE_MINOR)
        api.features = page_bytes == FPR_MEASURE_PAGE ? UFFD_FEATURE_MINOR_SHMEM
                                                      : UFFD_FEATURE_MINOR_HUGETLBFS;
    range.mode =
        kind == FPR_MEASURE_MINOR ? UFFDIO_REGISTER_MODE_MINOR : UFFDIO_REGISTER_MODE_MISSING;
    server->fd = open_userfaultfd();
    server->stop = eventfd(0, EFD_CLOEXEC);
    if (server->fd < 0 || server->stop < 0 || ioctl(server->fd, UFFDIO_API, &api) < 0 ||
        ioctl(server->fd, UFFDIO_REGISTER, &range) < 0)
        goto failed;
    errno = pthread_create(&server->thread, NULL, serve, server);
    if (errno == 0)
        return FPR_OK;
failed:
    if (server->fd >= 0)
        close(server->fd);
    if (server->stop >= 0)
        close(server->stop);
    server->fd = server->stop = -1;
    return FPR_SYSTEM;
}

void fpr_fault_server_stop(struct fpr_fault_server *server)
{
    uint64_t one = 1;

    if (server->fd < 0)
        return;
    if (write(server->stop, &one, sizeof one) == sizeof one)
        pthread_join(server->thread, NULL);
    close(server->fd);
    close(server->stop);
    server->fd = server->stop = -1;
}
