#include "host_model/native/shared_discard.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host_model/native/real_memory_private.h"

/* Consecutive ranges that are one piece of one region. */
struct piece {
    struct fpr_shared_region *region;
    uint64_t gpa, bytes;
};

static struct fpr_shared_region *find(struct fpr_shared_region *regions, uint32_t count,
                                      uint64_t gpa, uint64_t bytes)
{
    uint32_t low = 0, high = count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (regions[middle].gpa <= gpa)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0 || bytes > regions[low - 1].bytes ||
        gpa - regions[low - 1].gpa > regions[low - 1].bytes - bytes)
        return NULL;
    return &regions[low - 1];
}

/* What a file held when it was looked at last: after one piece is before the next one. */
struct seen {
    int fd;
    int64_t bytes;
};

static int64_t allocated_bytes(int fd)
{
    struct stat status;

    return fstat(fd, &status) < 0 ? -1 : (int64_t)status.st_blocks * 512;
}

/* Whether something is left in [from, to) of the file. */
static bool holds_data(int look_fd, uint64_t from, uint64_t to)
{
    off_t data = look_fd < 0 ? -1 : lseek(look_fd, (off_t)from, SEEK_DATA);

    return data >= 0 && (uint64_t)data < to; /* ENXIO: nothing up to the end of the file */
}

static int punch(const struct fpr_shared_region *region, uint64_t from, uint64_t bytes)
{
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

    return fallocate(region->fd, mode, (off_t)from, (off_t)bytes) == 0 ? 0 : errno;
}

static int timed_punch(struct fpr_shared_region *region, uint64_t from, uint64_t bytes,
                       struct fpr_discard_outcome *out)
{
    uint64_t start = fpr_clock_ns();
    int error = punch(region, from, bytes);

    if (error != 0 && fpr_discard_failure_of(error) == FPR_DISCARD_RETRY)
        error = punch(region, from, bytes);
    out->cost_ns += fpr_clock_ns() - start;
    out->calls++;
    if (error != 0 && out->error == 0)
        out->error = error;
    region->cannot_free = error != 0 && fpr_discard_failure_of(error) == FPR_DISCARD_CANNOT_FREE;
    return error;
}

static void discard_piece(const struct piece *piece, struct seen *seen,
                          struct fpr_discard_outcome *out)
{
    struct fpr_shared_region *region = piece->region;
    uint64_t from, freed = 0, rest;
    int64_t before, after;
    int error;

    if (region == NULL || piece->bytes == 0)
        return;
    if (region->cannot_free) {
        out->cannot_free_bytes += piece->bytes;
        return;
    }
    from = region->offset + (piece->gpa - region->gpa);
    before = seen->fd == region->fd ? seen->bytes : allocated_bytes(region->fd);
    error = timed_punch(region, from, piece->bytes, out);
    after = allocated_bytes(region->fd);
    *seen = (struct seen){region->fd, after};
    /* The guest runs on: what it touches elsewhere meanwhile makes this too small, never too big
     * by more than another thread of the front-end punches. */
    if (before > after && after >= 0)
        freed = (uint64_t)(before - after);
    if (freed > piece->bytes)
        freed = piece->bytes;
    rest = piece->bytes - freed;
    out->freed_bytes += freed;
    if (region->cannot_free)
        out->cannot_free_bytes += rest;
    else if (error != 0)
        out->error_bytes += rest;
    else if (rest != 0 && holds_data(region->look_fd, from, from + piece->bytes))
        out->ineffective_bytes += rest;
    else
        out->already_free_bytes += rest;
}

static bool joins(const struct piece *piece, const struct fpr_shared_region *region, uint64_t gpa,
                  uint64_t bytes)
{
    return piece->region == region && region != NULL &&
           (gpa + bytes == piece->gpa || gpa == piece->gpa + piece->bytes);
}

void fpr_shared_discard(struct fpr_shared_region *regions, uint32_t region_count,
                        const uint64_t *ranges, uint32_t count, uint32_t calls,
                        struct fpr_discard_outcome *out)
{
    struct piece piece = {NULL, 0, 0};
    struct seen seen = {-1, 0};

    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t gpa = ranges[2 * i], bytes = ranges[2 * i + 1];
        struct fpr_shared_region *region = find(regions, region_count, gpa, bytes);

        if (region == NULL) {
            out->outside_bytes += bytes;
            continue;
        }
        if (calls == FPR_CALLS_MERGED && joins(&piece, region, gpa, bytes)) {
            piece.gpa = gpa < piece.gpa ? gpa : piece.gpa;
            piece.bytes += bytes;
            continue;
        }
        discard_piece(&piece, &seen, out);
        piece = (struct piece){region, gpa, bytes};
    }
    discard_piece(&piece, &seen, out);
}
