#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "emulator/native/histogram_inline.h"
#include "emulator/native/status.h"
#include "host_model/native/measure_private.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define CLOCK_READS 1001
#define LONG_NS 20000 /* a step that took longer may have waited for a CPU: worth a look */

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

uint64_t fpr_measure_clock_ns(void)
{
    uint64_t taken[CLOCK_READS];

    for (uint32_t i = 0; i < CLOCK_READS; i++) {
        uint64_t start = fpr_measure_now();

        taken[i] = fpr_measure_now() - start;
    }
    qsort(taken, CLOCK_READS, sizeof *taken, compare);
    return taken[CLOCK_READS / 2];
}

static int open_file(struct fpr_measure *m)
{
    unsigned flags = MFD_CLOEXEC | (m->config.kind == FPR_MEASURE_HUGETLB ? MFD_HUGETLB : 0);

    m->fd = memfd_create("fpr-measure", flags);
    return m->fd < 0 || ftruncate(m->fd, (off_t)m->bytes) < 0 ? FPR_SYSTEM : FPR_OK;
}

static int map(struct fpr_measure *m)
{
    int flags = m->fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED;
    int advice = m->config.thp ? MADV_HUGEPAGE : MADV_NOHUGEPAGE;

    if (mmap(m->base, m->bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED, m->fd, 0) == MAP_FAILED)
        return FPR_SYSTEM;
    /* EINVAL: a kernel that knows no huge pages gives none. */
    if (m->config.kind != FPR_MEASURE_HUGETLB && madvise(m->base, m->bytes, advice) < 0 &&
        errno != EINVAL)
        return FPR_SYSTEM;
    return FPR_OK;
}

static int start_server(struct fpr_measure *m)
{
    uint64_t page = m->config.kind == FPR_MEASURE_HUGETLB ? FPR_MEASURE_HUGE : FPR_MEASURE_PAGE;

    if (m->config.server == FPR_MEASURE_KERNEL)
        return FPR_OK;
    return fpr_fault_server_start(&m->server, m->config.server, page, m->base, m->bytes);
}

static int set_up(struct fpr_measure *m)
{
    uint64_t start;
    int status = FPR_OK;

    if (m->config.kind != FPR_MEASURE_ANONYMOUS)
        status = open_file(m);
    if (status != FPR_OK)
        return status;
    m->reserved_bytes = m->bytes + FPR_MEASURE_HUGE;
    m->reserved = mmap(NULL, m->reserved_bytes, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m->reserved == MAP_FAILED) {
        m->reserved = NULL;
        return FPR_SYSTEM;
    }
    start = (uint64_t)m->reserved;
    m->base = m->reserved + (FPR_MEASURE_HUGE - start % FPR_MEASURE_HUGE) % FPR_MEASURE_HUGE;
    status = map(m);
    return status == FPR_OK ? start_server(m) : status;
}

int fpr_measure_create(const struct fpr_measure_config *config, struct fpr_measure **out)
{
    struct fpr_measure *m;
    int status, error;

    *out = NULL;
    if (config->kind > FPR_MEASURE_HUGETLB || config->server > FPR_MEASURE_MINOR ||
        config->threads == 0 || config->threads > FPR_MEASURE_MAX_THREADS ||
        config->area_bytes == 0 || config->area_bytes % FPR_MEASURE_HUGE ||
        config->area_bytes > FPR_MEASURE_MAX_BYTES / config->threads ||
        (config->server == FPR_MEASURE_MINOR && config->kind == FPR_MEASURE_ANONYMOUS))
        return FPR_BAD_ARGUMENT;
    m = calloc(1, sizeof *m);
    if (m == NULL)
        return FPR_HOST_MEMORY;
    m->config = *config;
    m->bytes = config->area_bytes * config->threads;
    m->fd = m->server.fd = m->server.stop = -1;
    m->clock_ns = fpr_measure_clock_ns();
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->opened, NULL);
    m->workers = calloc(config->threads, sizeof *m->workers);
    status = m->workers == NULL ? FPR_HOST_MEMORY : set_up(m);
    if (status != FPR_OK) {
        error = errno;
        fpr_measure_destroy(m);
        errno = error;
        return status;
    }
    for (uint32_t i = 0; i < config->threads; i++) {
        m->workers[i].measure = m;
        m->workers[i].area = m->base + i * config->area_bytes;
    }
    *out = m;
    return FPR_OK;
}

void fpr_measure_destroy(struct fpr_measure *m)
{
    if (m == NULL)
        return;
    fpr_fault_server_stop(&m->server);
    if (m->reserved != NULL)
        munmap(m->reserved, m->reserved_bytes);
    if (m->fd >= 0)
        close(m->fd);
    pthread_cond_destroy(&m->opened);
    pthread_mutex_destroy(&m->lock);
    free(m->workers);
    free(m);
}

int fpr_measure_fresh(struct fpr_measure *m)
{
    int status;

    fpr_fault_server_stop(&m->server);
    if (m->fd >= 0 && (ftruncate(m->fd, 0) < 0 || ftruncate(m->fd, (off_t)m->bytes) < 0))
        return FPR_SYSTEM;
    if (munmap(m->base, m->bytes) < 0)
        return FPR_SYSTEM;
    status = map(m);
    return status == FPR_OK ? start_server(m) : status;
}

static bool act(const struct fpr_measure *m, uint32_t action, uint8_t *at, uint64_t bytes)
{
    switch (action) {
    case FPR_MEASURE_READ:
        (void)*(volatile uint8_t *)at;
        return true;
    case FPR_MEASURE_WRITE:
        *(volatile uint8_t *)at = 1;
        return true;
    case FPR_MEASURE_POPULATE:
        return madvise(at, bytes, MADV_POPULATE_WRITE) == 0;
    case FPR_MEASURE_DONTNEED:
        return madvise(at, bytes, MADV_DONTNEED) == 0;
    case FPR_MEASURE_FREE:
        return madvise(at, bytes, MADV_FREE) == 0;
    default: /* FPR_MEASURE_PUNCH_HOLE; fpr_measure_run has let no other through */
        return fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(at - m->base),
                         (off_t)bytes) == 0;
    }
}

/* ns that this thread has waited for a CPU since this was last asked. */
static uint64_t waited(struct fpr_measure_worker *worker)
{
    uint64_t before = worker->wait_ns;
    char text[96], *end;
    ssize_t length = pread(worker->schedstat, text, sizeof text - 1, 0);

    if (length <= 0)
        return 0;
    text[length] = 0;
    strtoull(text, &end, 10); /* time on a CPU; then time in the queue, both in ns */
    worker->wait_ns = strtoull(end, NULL, 10);
    return worker->wait_ns - before;
}

/* What a step took, without its wait for a CPU. */
static uint64_t without_wait(struct fpr_measure_worker *worker, uint64_t ns, bool counts)
{
    uint64_t wait;

    if (ns < LONG_NS || worker->schedstat < 0)
        return ns;
    wait = waited(worker);
    if (wait == 0 || wait >= ns) /* some of it was before this step */
        return ns;
    if (counts)
        fpr_histogram_record_inline(&worker->waits, wait);
    return ns - wait;
}

/* Write to all of the own area again and again, until those that are measured are done. */
static bool keep_company(struct fpr_measure_worker *worker)
{
    struct fpr_measure *m = worker->measure;
    uint64_t bytes = m->config.area_bytes, step = m->order.company_bytes;

    while (!atomic_load_explicit(&m->ended, memory_order_relaxed)) {
        for (uint64_t at = 0; at < bytes; at += step) {
            act(m, FPR_MEASURE_WRITE, worker->area + at, step);
            if (atomic_load_explicit(&m->ended, memory_order_relaxed))
                break;
        }
        if (!act(m, m->order.reset, worker->area, bytes))
            return false;
    }
    return true;
}

static bool measure_round(struct fpr_measure_worker *worker)
{
    struct fpr_measure *m = worker->measure;
    const struct fpr_measure_order *order = &m->order;
    uint32_t all = order->threads + order->company;
    uint64_t group = 0;
    bool whole = true; /* all of the group was measured */

    for (uint64_t at = 0; at < order->bytes; at += order->step_bytes) {
        bool together = atomic_load_explicit(&m->begun, memory_order_relaxed) == all &&
                        !atomic_load_explicit(&m->ended, memory_order_relaxed);
        uint64_t ns = fpr_measure_now();

        if (!act(m, order->action, worker->area + at, order->call_bytes))
            return false;
        ns = fpr_measure_now() - ns;
        ns -= ns < m->clock_ns ? ns : m->clock_ns;
        ns = without_wait(worker, ns, together);
        if (together)
            fpr_histogram_record_inline(&worker->each, ns);
        group += ns;
        whole &= together;
        if ((at + order->step_bytes) % order->group_bytes)
            continue;
        if (whole)
            fpr_histogram_record_inline(&worker->groups, group);
        group = 0;
        whole = true;
    }
    return true;
}

static bool pass_gate(struct fpr_measure *m)
{
    bool open;

    pthread_mutex_lock(&m->lock);
    while (m->gate == FPR_GATE_SHUT)
        pthread_cond_wait(&m->opened, &m->lock);
    open = m->gate == FPR_GATE_OPEN;
    pthread_mutex_unlock(&m->lock);
    return open;
}

static void set_gate(struct fpr_measure *m, bool open)
{
    pthread_mutex_lock(&m->lock);
    m->gate = open ? FPR_GATE_OPEN : FPR_GATE_CALLED_OFF;
    pthread_cond_broadcast(&m->opened);
    pthread_mutex_unlock(&m->lock);
}

static void *work(void *argument)
{
    struct fpr_measure_worker *worker = argument;
    struct fpr_measure *m = worker->measure;
    bool ok = true;

    if (!pass_gate(m))
        return NULL;
    worker->schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    waited(worker);
    atomic_fetch_add(&m->begun, 1);
    if (worker->company) {
        ok = keep_company(worker);
    } else {
        for (uint32_t round = 0; ok && round < m->order.rounds; round++) {
            ok = measure_round(worker);
            if (ok && round + 1 < m->order.rounds)
                ok = act(m, m->order.reset, worker->area, m->order.bytes);
        }
    }
    if (!ok)
        worker->error = errno;
    if (worker->schedstat >= 0)
        close(worker->schedstat);
    /* Company goes on until the last of the measured is done; the measured count until the first
     * of them is, since from then on fewer are at work. */
    if (!worker->company)
        atomic_store(&m->ended, true);
    return NULL;
}

static bool possible(const struct fpr_measure *m, const struct fpr_measure_order *order)
{
    bool alone = order->threads == 1 && order->company == 0;
    uint64_t most = alone ? m->bytes : m->config.area_bytes;

    return order->action < FPR_MEASURE_ACTIONS && order->reset < FPR_MEASURE_ACTIONS &&
           (m->fd >= 0 ||
            (order->action != FPR_MEASURE_PUNCH_HOLE && order->reset != FPR_MEASURE_PUNCH_HOLE)) &&
           order->threads > 0 && order->threads <= m->config.threads &&
           order->company <= m->config.threads - order->threads && order->rounds > 0 &&
           order->bytes > 0 && order->bytes <= most && order->step_bytes > 0 &&
           order->bytes % order->step_bytes == 0 && order->group_bytes > 0 &&
           order->group_bytes % order->step_bytes == 0 && order->call_bytes > 0 &&
           order->call_bytes <= order->step_bytes &&
           (order->step_bytes | order->call_bytes) % FPR_MEASURE_PAGE == 0 &&
           (order->company == 0 ||
            (order->company_bytes > 0 && order->company_bytes % FPR_MEASURE_PAGE == 0));
}

int fpr_measure_run(struct fpr_measure *m, const struct fpr_measure_order *order,
                    struct fpr_histogram *each, struct fpr_histogram *groups,
                    struct fpr_histogram *waits)
{
    uint32_t all = order->threads + order->company, started = 1;
    int error = 0;

    if (!possible(m, order))
        return FPR_BAD_ARGUMENT;
    m->order = *order;
    m->gate = FPR_GATE_SHUT;
    atomic_store(&m->begun, 0);
    atomic_store(&m->ended, false);
    for (uint32_t i = 0; i < all; i++) {
        struct fpr_measure_worker *worker = &m->workers[i];

        memset(&worker->each, 0, sizeof worker->each);
        memset(&worker->groups, 0, sizeof worker->groups);
        memset(&worker->waits, 0, sizeof worker->waits);
        worker->company = i >= order->threads;
        worker->error = 0;
    }
    /* The caller's thread is the first worker. */
    while (started < all && error == 0) {
        error = pthread_create(&m->workers[started].thread, NULL, work, &m->workers[started]);
        started += error == 0;
    }
    set_gate(m, error == 0);
    if (error == 0)
        work(&m->workers[0]);
    for (uint32_t i = 1; i < started; i++)
        pthread_join(m->workers[i].thread, NULL);
    for (uint32_t i = 0; i < all; i++) {
        if (error == 0)
            error = m->workers[i].error;
        if (i >= order->threads)
            continue;
        fpr_histogram_merge(each, &m->workers[i].each);
        fpr_histogram_merge(groups, &m->workers[i].groups);
        fpr_histogram_merge(waits, &m->workers[i].waits);
    }
    errno = error;
    return error == 0 ? FPR_OK : FPR_SYSTEM;
}

int fpr_measure_resident(struct fpr_measure *m, uint64_t *bytes)
{
    uint8_t looked[512];

    *bytes = 0;
    for (uint64_t at = 0; at < m->bytes; at += FPR_MEASURE_HUGE) {
        if (mincore(m->base + at, FPR_MEASURE_HUGE, looked) < 0)
            return FPR_SYSTEM;
        for (uint32_t i = 0; i < sizeof looked; i++)
            *bytes += looked[i] & 1 ? FPR_MEASURE_PAGE : 0;
    }
    return FPR_OK;
}
