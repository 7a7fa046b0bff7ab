/* Page numbers of the balloon. Everything here was written by a guest. */
#include "emulator/native/balloon.h"

#include <stddef.h>

#include "emulator/native/status.h"

#define SEGMENT_BYTES_MAX 0x80000000u /* a multiple of every page size up to 2 GiB */

int fpr_message_read(const struct fpr_guest_memory *memory, const struct fpr_chain *chain,
                     struct fpr_report_cursor *cursor, uint8_t *out, uint64_t capacity,
                     uint64_t *count, struct fpr_message_account *account)
{
    *count = 0;
    for (; cursor->segment < chain->count; cursor->segment++, cursor->done_bytes = 0) {
        const struct fpr_segment *segment = &chain->segments[cursor->segment];

        if (segment->writable) {
            account->writable_segments++;
            continue;
        }
        while (cursor->done_bytes < segment->bytes) {
            uint64_t left = segment->bytes - cursor->done_bytes, room = capacity - *count, here;
            uint8_t *pointer;

            if (room == 0)
                return FPR_OK;
            if (cursor->done_bytes > UINT64_MAX - segment->gpa ||
                fpr_translate(memory, segment->gpa + cursor->done_bytes, left < room ? left : room,
                              &pointer, &here) != FPR_OK) {
                account->outside_bytes += left;
                break;
            }
            fpr_guest_read(memory, segment->gpa + cursor->done_bytes, out + *count, here);
            *count += here;
            cursor->done_bytes += here;
        }
    }
    return FPR_OK;
}

static int has(const struct fpr_page_set *set, uint64_t page)
{
    return page < set->pages && (set->words[page / 64] >> page % 64 & 1);
}

static int has_all(const struct fpr_page_set *set, uint64_t first, uint64_t pages)
{
    uint64_t page = first, end = first + pages;

    if (end > set->pages)
        return 0;
    while (page < end) {
        if (page % 64 == 0 && end - page >= 64) {
            if (set->words[page / 64] != UINT64_MAX)
                return 0;
            page += 64;
        } else if (!has(set, page++)) {
            return 0;
        }
    }
    return 1;
}

/* The region that holds the whole page, or NULL. */
static const struct fpr_region *region_of(const struct fpr_guest_memory *memory,
                                          const struct fpr_page_set *set, uint64_t page)
{
    uint64_t here;
    uint32_t index;

    if (page >= set->pages ||
        fpr_region_find(memory, page * FPR_BALLOON_PAGE_BYTES, &index, &here) != FPR_OK ||
        here < FPR_BALLOON_PAGE_BYTES)
        return NULL;
    return &memory->regions[index];
}

/* The pages of the guest that share a backing page with this one: FPR_OK where the balloon holds
 * them all, so that *gpa and *bytes can be given back. */
static int gather(const struct fpr_region *region, const struct fpr_page_set *set, uint64_t page,
                  uint64_t *gpa, uint64_t *bytes)
{
    uint64_t own = page * FPR_BALLOON_PAGE_BYTES, mask = region->page_bytes - 1;
    uint64_t position = region->offset + (own - region->gpa);
    uint64_t start = position & ~mask;

    *gpa = own;
    *bytes = FPR_BALLOON_PAGE_BYTES;
    if (region->page_bytes <= FPR_BALLOON_PAGE_BYTES)
        return FPR_OK;
    if (start < region->offset || region->offset + region->size - start < region->page_bytes)
        return FPR_EMPTY; /* the backing page is only in part this region's */
    *gpa = own - (position - start);
    *bytes = region->page_bytes;
    if (*gpa % FPR_BALLOON_PAGE_BYTES || *bytes > SEGMENT_BYTES_MAX)
        return FPR_EMPTY;
    return has_all(set, *gpa / FPR_BALLOON_PAGE_BYTES, *bytes / FPR_BALLOON_PAGE_BYTES) ? FPR_OK
                                                                                        : FPR_EMPTY;
}

int fpr_balloon_inflate(const struct fpr_guest_memory *memory, struct fpr_page_set *set,
                        const uint32_t *numbers, uint32_t count, struct fpr_segment *segments,
                        uint32_t *segment_count, struct fpr_balloon_account *account)
{
    uint32_t made = 0;

    account->numbers += count;
    for (uint32_t i = 0; i < count; i++) {
        if (!region_of(memory, set, numbers[i])) {
            account->outside++;
        } else if (has(set, numbers[i])) {
            account->repeats++;
        } else {
            set->words[numbers[i] / 64] |= (uint64_t)1 << numbers[i] % 64;
            set->count++;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct fpr_region *region = region_of(memory, set, numbers[i]);
        struct fpr_segment *last = made ? &segments[made - 1] : NULL;
        uint64_t gpa, bytes;

        if (!region || gather(region, set, numbers[i], &gpa, &bytes) != FPR_OK)
            continue;
        if (last && gpa < last->gpa + last->bytes)
            continue; /* the same backing page as the number before */
        segments[made++] = (struct fpr_segment){gpa, (uint32_t)bytes, 1};
    }
    *segment_count = made;
    return FPR_OK;
}

int fpr_balloon_deflate(const struct fpr_guest_memory *memory, struct fpr_page_set *set,
                        const uint32_t *numbers, uint32_t count,
                        struct fpr_balloon_account *account)
{
    account->numbers += count;
    for (uint32_t i = 0; i < count; i++) {
        if (!region_of(memory, set, numbers[i])) {
            account->outside++;
        } else if (!has(set, numbers[i])) {
            account->repeats++;
        } else {
            set->words[numbers[i] / 64] &= ~((uint64_t)1 << numbers[i] % 64);
            set->count--;
        }
    }
    return FPR_OK;
}
