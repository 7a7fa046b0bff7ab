#include "emulator/native/shared_map.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>

#include "emulator/native/status.h"

/* A signal handler gets no argument of ours: this table and the disposition it replaced are the one
 * place where the C code keeps state of its own. A slot is in use while `base` is not 0. */
static struct guard {
    _Atomic uintptr_t base;
    _Atomic uint64_t bytes, page_bytes;
    _Atomic int lost;
} guards[FPR_SHARED_MAPS_MAX];
static pthread_mutex_t guards_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t handler_once = PTHREAD_ONCE_INIT;
static struct sigaction before_ours;
static int install_error;

static int replace_page(struct guard *guard, uintptr_t at)
{
    uint64_t page_bytes = atomic_load(&guard->page_bytes);
    void *page = (void *)(at & ~(uintptr_t)(page_bytes - 1));

    if (mmap(page, page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
             0) == MAP_FAILED)
        return 0;
    atomic_store(&guard->lost, 1);
    return 1;
}

/* Only system calls and atomics: it runs in the middle of anything. */
static void on_sigbus(int number, siginfo_t *info, void *context)
{
    uintptr_t at = (uintptr_t)info->si_addr;
    int saved = errno;

    (void)context;
    if (info->si_code > 0) /* from a memory access, not from kill() */
        for (uint32_t i = 0; i < FPR_SHARED_MAPS_MAX; i++) {
            uintptr_t base = atomic_load(&guards[i].base);

            if (base != 0 && at >= base && at - base < atomic_load(&guards[i].bytes)) {
                if (!replace_page(&guards[i], at))
                    break;
                errno = saved;
                return;
            }
        }
    /* Not ours: whoever was here before sees it, when the access is tried again. */
    sigaction(number, &before_ours, NULL);
    if (info->si_code <= 0)
        raise(number);
    errno = saved;
}

static void install(void)
{
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    sigemptyset(&action.sa_mask);
    install_error = sigaction(SIGBUS, &action, &before_ours) < 0 ? errno : 0;
}

static int guard_mapping(struct fpr_shared_map *map, uint64_t page_bytes)
{
    int status = FPR_FULL;

    pthread_mutex_lock(&guards_lock);
    for (uint32_t i = 0; i < FPR_SHARED_MAPS_MAX && status != FPR_OK; i++) {
        if (atomic_load(&guards[i].base) != 0)
            continue;
        atomic_store(&guards[i].bytes, map->mapped_bytes);
        atomic_store(&guards[i].page_bytes, page_bytes);
        atomic_store(&guards[i].lost, 0);
        atomic_store(&guards[i].base, (uintptr_t)map->base); /* last: the handler looks here */
        map->slot = i;
        status = FPR_OK;
    }
    pthread_mutex_unlock(&guards_lock);
    return status;
}

int fpr_shared_map(int fd, uint64_t offset, uint64_t bytes, uint64_t page_bytes,
                   struct fpr_shared_map *out)
{
    uint64_t start = offset & ~(page_bytes - 1), end;
    void *base;
    int status;

    out->base = out->pointer = NULL;
    if (bytes == 0 || bytes > INT64_MAX - page_bytes || offset > INT64_MAX - page_bytes - bytes)
        return FPR_BAD_ARGUMENT;
    pthread_once(&handler_once, install);
    errno = install_error;
    if (install_error != 0)
        return FPR_SYSTEM;
    end = (offset + bytes + page_bytes - 1) & ~(page_bytes - 1);
    base = mmap(NULL, end - start, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
                (off_t)start);
    if (base == MAP_FAILED)
        return FPR_SYSTEM;
    out->base = base;
    out->pointer = out->base + (offset - start);
    out->mapped_bytes = end - start;
    status = guard_mapping(out, page_bytes);
    if (status != FPR_OK) {
        munmap(base, end - start);
        out->base = out->pointer = NULL;
    }
    return status;
}

void fpr_shared_unmap(struct fpr_shared_map *map)
{
    if (map->base == NULL)
        return;
    pthread_mutex_lock(&guards_lock);
    atomic_store(&guards[map->slot].base, 0);
    pthread_mutex_unlock(&guards_lock);
    munmap(map->base, map->mapped_bytes);
    map->base = map->pointer = NULL;
}

int fpr_shared_map_lost(const struct fpr_shared_map *map)
{
    return map->base != NULL && atomic_load(&guards[map->slot].lost);
}
