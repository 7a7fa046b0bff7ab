#include "host_model/native/footprint.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "emulator/native/status.h"

#define PAGE_BYTES 4096u
#define NS_PER_SECOND 1000000000u

/* The footprint up to T is resident_pages * T - moment. */
struct fpr_footprint {
    uint64_t resident_pages, peak_pages;
    __int128 moment; /* sum of (pages that came or went) * ns */
    uint64_t step_ns, count;
    uint64_t marks[FPR_FOOTPRINT_MARKS]; /* of them, `count` are known */
};

int fpr_footprint_create(uint64_t step_ns, struct fpr_footprint **out)
{
    *out = NULL;
    if (step_ns == 0)
        return FPR_BAD_ARGUMENT;
    *out = calloc(1, sizeof **out);
    if (*out == NULL)
        return FPR_HOST_MEMORY;
    (*out)->step_ns = step_ns;
    return FPR_OK;
}

void fpr_footprint_destroy(struct fpr_footprint *footprint)
{
    free(footprint);
}

uint64_t fpr_footprint_byte_seconds(const struct fpr_footprint *footprint, uint64_t now_ns)
{
    __int128 page_ns = (__int128)footprint->resident_pages * now_ns - footprint->moment;

    if (page_ns < 0)
        page_ns = 0; /* asked for a time before some change */
    return (uint64_t)((unsigned __int128)page_ns * PAGE_BYTES / NS_PER_SECOND);
}

/* Nothing changes any more before `until_ns`: set the marks up to there, and at it if it counts. */
static void mark(struct fpr_footprint *footprint, uint64_t until_ns, bool at_it)
{
    for (;;) {
        uint64_t at_ns = footprint->count * footprint->step_ns;

        if (at_ns > until_ns || (at_ns == until_ns && !at_it))
            return;
        if (footprint->count == FPR_FOOTPRINT_MARKS) {
            footprint->count /= 2;
            footprint->step_ns *= 2;
            for (uint64_t i = 0; i < footprint->count; i++)
                footprint->marks[i] = footprint->marks[2 * i];
            continue;
        }
        footprint->marks[footprint->count++] = fpr_footprint_byte_seconds(footprint, at_ns);
    }
}

void fpr_footprint_change(struct fpr_footprint *footprint, int64_t pages, uint64_t now_ns)
{
    if (footprint->count * footprint->step_ns < now_ns)
        mark(footprint, now_ns, false);
    footprint->resident_pages += (uint64_t)pages;
    footprint->moment += (__int128)pages * now_ns;
    if (footprint->resident_pages > footprint->peak_pages)
        footprint->peak_pages = footprint->resident_pages;
}

uint64_t fpr_footprint_resident_pages(const struct fpr_footprint *footprint)
{
    return footprint->resident_pages;
}

uint64_t fpr_footprint_peak_pages(const struct fpr_footprint *footprint)
{
    return footprint->peak_pages;
}

void fpr_footprint_read(struct fpr_footprint *footprint, uint64_t now_ns, uint64_t *marks,
                        uint64_t *count, uint64_t *step_ns)
{
    mark(footprint, now_ns, true);
    *count = footprint->count;
    *step_ns = footprint->step_ns;
    memcpy(marks, footprint->marks, footprint->count * sizeof *marks);
}
