#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "emulator/native/status.h"
#include "host_model/native/real_memory_private.h"

enum fpr_discard_failure fpr_discard_failure_of(int error)
{
    switch (error) {
    case EINTR:
    case EAGAIN:
    case ENOMEM:
        return FPR_DISCARD_RETRY;
    case EPERM:
    case EACCES:
    case EBADF:
    case ENOSYS:
    case EOPNOTSUPP: /* ENOTSUP is the same number */
        return FPR_DISCARD_CANNOT_FREE;
    default:
        return FPR_DISCARD_ERROR;
    }
}

static int discard_once(const struct fpr_real_memory *memory,
                        const struct fpr_real_mapping *mapping, uint8_t *at, uint64_t bytes)
{
    switch (memory->config.method) {
    case FPR_DISCARD_PUNCH_HOLE:
        return fallocate(memory->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                         (off_t)(mapping->offset + (uint64_t)(at - mapping->base)), (off_t)bytes);
    case FPR_DISCARD_REMOVE:
        return madvise(at, bytes, MADV_REMOVE);
    case FPR_DISCARD_FREE:
        return madvise(at, bytes, MADV_FREE);
    default:
        return madvise(at, bytes, MADV_DONTNEED);
    }
}

/* The timed call, tried twice where that may help. Returns an errno, 0 where it worked. */
static int discard_call(const struct fpr_real_memory *memory, struct fpr_real_mapping *mapping,
                        uint8_t *at, uint64_t bytes, struct fpr_discard_outcome *out)
{
    uint64_t start = fpr_clock_ns();
    int error = discard_once(memory, mapping, at, bytes) == 0 ? 0 : errno;

    if (error != 0 && fpr_discard_failure_of(error) == FPR_DISCARD_RETRY)
        error = discard_once(memory, mapping, at, bytes) == 0 ? 0 : errno;
    out->cost_ns += fpr_clock_ns() - start;
    out->calls++;
    if (error != 0 && out->error == 0)
        out->error = error;
    mapping->cannot_free = error != 0 && fpr_discard_failure_of(error) == FPR_DISCARD_CANNOT_FREE;
    return error;
}

/* Tell the map which pages of a discarded piece are gone; a page stays where the kernel has it. */
static int forget(struct fpr_real_memory *memory, const uint8_t *at, uint64_t gpa, uint64_t bytes,
                  uint64_t now_ns)
{
    uint64_t page = gpa >> FPR_PAGE_SHIFT, left = bytes >> FPR_PAGE_SHIFT;

    while (left > 0) {
        struct fpr_chunk_range range = fpr_map_cut(page, left);
        uint64_t gone[FPR_PAGE_WORDS] = {0};
        struct fpr_chunk_mapped found = fpr_map_look(&memory->map, range, NULL);
        int status = fpr_real_look(memory, at, range.count);

        if (status != FPR_OK)
            return status;
        for (uint32_t i = 0; i < range.count; i++)
            if (!(memory->looked[i] & 1))
                gone[(range.first + i) / 64] |= (uint64_t)1 << ((range.first + i) % 64);
        memory->map.counters.huge_splits += found.huge && range.count < FPR_HUGE_PAGES;
        fpr_map_remove(&memory->map, range.chunk, gone, true, now_ns);
        at += (uint64_t)range.count << FPR_PAGE_SHIFT;
        page += range.count;
        left -= range.count;
    }
    return FPR_OK;
}

/* The account of one range of a call that ended with `error`, or that was never made. */
static void account(struct fpr_discard_outcome *out, bool cannot_free, int error, uint64_t bytes,
                    uint64_t before, uint64_t after)
{
    uint64_t gone = before > after ? before - after : 0, kept = before - gone;

    out->freed_bytes += gone;
    out->already_free_bytes += bytes - before;
    if (cannot_free)
        out->cannot_free_bytes += kept;
    else if (error != 0)
        out->error_bytes += kept;
    else
        out->ineffective_bytes += kept;
}

/* Lazily freed pages of a piece, by what we know. */
static uint64_t lazy_bytes_in(const struct fpr_map *map, uint64_t gpa, uint64_t bytes)
{
    uint64_t page = gpa >> FPR_PAGE_SHIFT, left = bytes >> FPR_PAGE_SHIFT, pages = 0;

    while (left > 0 && map->lazy_pages != 0) {
        struct fpr_chunk_range range = fpr_map_cut(page, left);

        pages += fpr_map_look_lazy(map, range, NULL);
        page += range.count;
        left -= range.count;
    }
    return pages << FPR_PAGE_SHIFT;
}

/* Tell the map that a piece was freed lazily. */
static void free_lazily(struct fpr_map *map, uint64_t gpa, uint64_t bytes)
{
    uint64_t page = gpa >> FPR_PAGE_SHIFT, left = bytes >> FPR_PAGE_SHIFT;

    while (left > 0) {
        struct fpr_chunk_range range = fpr_map_cut(page, left);

        fpr_map_free_lazily(map, range);
        page += range.count;
        left -= range.count;
    }
}

/* What of each range of a call is resident, and was not freed before: to memory->before[]. */
static int look_before(struct fpr_real_memory *memory, const struct fpr_batch_call *call,
                       const uint64_t *ranges, uint64_t now_ns, struct fpr_discard_outcome *out)
{
    const struct fpr_real_mapping *mapping = fpr_real_mapping(memory, call->gpa, call->bytes);
    int status = FPR_OK;

    if (call->bytes != 0 && memory->map.lazy_pages != 0)
        status = fpr_real_settle(memory, call->gpa, call->bytes, now_ns);
    for (uint32_t i = call->first; i < call->end && status == FPR_OK; i++) {
        uint64_t *before = &memory->before[i - call->first], gpa, bytes, lazy;

        fpr_batch_trim(&memory->map, ranges, i, memory->page_bytes, out, &gpa, &bytes);
        if (bytes == 0)
            continue;
        status = fpr_real_resident_bytes_in(memory, fpr_real_address(memory, mapping, gpa), bytes,
                                            before);
        lazy = lazy_bytes_in(&memory->map, gpa, bytes);
        *before -= lazy < *before ? lazy : *before;
    }
    return status;
}

static int discard_group(struct fpr_real_memory *memory, const struct fpr_batch_call *call,
                         const uint64_t *ranges, uint64_t now_ns, uint64_t *freed,
                         struct fpr_discard_outcome *out)
{
    struct fpr_real_mapping *mapping = fpr_real_mapping(memory, call->gpa, call->bytes);
    bool lazily = memory->config.method == FPR_DISCARD_FREE;
    int status = look_before(memory, call, ranges, now_ns, out), error = 0;

    if (status != FPR_OK || call->bytes == 0)
        return status;
    if (!mapping->cannot_free)
        error = discard_call(memory, mapping, fpr_real_address(memory, mapping, call->gpa),
                             call->bytes, out);
    lazily = lazily && error == 0 && !mapping->cannot_free;
    for (uint32_t i = call->first; i < call->end; i++) {
        uint64_t before = memory->before[i - call->first], after, gpa, bytes;

        fpr_batch_trim(&memory->map, ranges, i, memory->page_bytes, NULL, &gpa, &bytes);
        if (bytes == 0)
            continue;
        if (lazily) {
            out->lazy_bytes += before;
            out->already_free_bytes += bytes - before;
            continue;
        }
        status = fpr_real_resident_bytes_in(memory, fpr_real_address(memory, mapping, gpa), bytes,
                                            &after);
        if (status != FPR_OK)
            return status;
        account(out, mapping->cannot_free, error, bytes, before, after);
        if (freed != NULL)
            freed[i] = before > after ? before - after : 0;
    }
    if (lazily) {
        free_lazily(&memory->map, call->gpa, call->bytes);
        return FPR_OK;
    }
    return forget(memory, fpr_real_address(memory, mapping, call->gpa), call->gpa, call->bytes,
                  now_ns);
}

int fpr_real_memory_discard(struct fpr_real_memory *memory, const uint64_t *ranges, uint32_t count,
                            uint64_t now_ns, uint64_t *freed, struct fpr_discard_outcome *out)
{
    struct fpr_batch_call call;
    int status = FPR_OK;

    memset(out, 0, sizeof *out);
    if (freed != NULL)
        memset(freed, 0, count * sizeof *freed);
    for (uint32_t first = 0; first < count && status == FPR_OK; first = call.end) {
        call = fpr_batch_next(&memory->map, ranges, count, first, memory->page_bytes,
                              memory->config.calls);
        status = discard_group(memory, &call, ranges, now_ns, freed, out);
    }
    fpr_map_count_discard(&memory->map, count, out);
    return status;
}
