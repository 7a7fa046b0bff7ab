/* Translation of guest-physical addresses. Addresses and lengths here come from a guest: every
 * comparison is written so that no sum can overflow. */
#include "emulator/native/guest_memory.h"

#include <stddef.h>
#include <string.h>

#include "emulator/native/status.h"

int fpr_guest_memory_check(const struct fpr_guest_memory *memory, uint32_t *bad)
{
    for (uint32_t i = 0; i < memory->count; i++) {
        const struct fpr_region *region = &memory->regions[i];
        uint64_t page = region->page_bytes;

        *bad = i;
        if (region->size == 0 || region->pointer == NULL || page == 0 || (page & (page - 1)))
            return FPR_BAD_ARGUMENT;
        if (region->size > UINT64_MAX - region->gpa || region->size > UINT64_MAX - region->offset)
            return FPR_BAD_ARGUMENT; /* both ends are numbers */
        if (i > 0) {
            const struct fpr_region *before = region - 1;
            if (region->gpa <= before->gpa || region->gpa - before->gpa < before->size)
                return FPR_BAD_ARGUMENT;
        }
    }
    *bad = memory->count;
    return FPR_OK;
}

int fpr_region_find(const struct fpr_guest_memory *memory, uint64_t gpa, uint32_t *index,
                    uint64_t *contiguous)
{
    uint32_t low = 0, high = memory->count;

    while (low < high) { /* the first region that begins above gpa */
        uint32_t middle = low + (high - low) / 2;
        if (memory->regions[middle].gpa <= gpa)
            low = middle + 1;
        else
            high = middle;
    }
    if (low > 0) {
        const struct fpr_region *region = &memory->regions[low - 1];
        if (gpa - region->gpa < region->size) {
            *index = low - 1;
            *contiguous = region->size - (gpa - region->gpa);
            return FPR_OK;
        }
    }
    *index = low;
    *contiguous = low < memory->count ? memory->regions[low].gpa - gpa : 0;
    return FPR_OUTSIDE;
}

int fpr_translate(const struct fpr_guest_memory *memory, uint64_t gpa, uint64_t bytes,
                  uint8_t **pointer, uint64_t *contiguous)
{
    uint32_t index;
    uint64_t room;

    if (fpr_region_find(memory, gpa, &index, &room) != FPR_OK)
        return FPR_OUTSIDE;
    *pointer = memory->regions[index].pointer + (gpa - memory->regions[index].gpa);
    *contiguous = room < bytes ? room : bytes;
    return FPR_OK;
}

int fpr_guest_inside(const struct fpr_guest_memory *memory, uint64_t gpa, uint64_t bytes)
{
    uint8_t *pointer;
    uint64_t contiguous;

    while (bytes > 0) {
        if (fpr_translate(memory, gpa, bytes, &pointer, &contiguous) != FPR_OK)
            return 0;
        bytes -= contiguous;
        if (bytes > 0 && gpa > UINT64_MAX - contiguous)
            return 0;
        gpa += contiguous;
    }
    return 1;
}

/* A guest may write while we read. The barrier keeps the compiler from reading the source again
 * after the private copy was checked. */
static void copy_once(void *to, const void *from, uint64_t bytes)
{
    memcpy(to, from, bytes);
    __asm__ volatile("" ::: "memory");
}

int fpr_guest_read(const struct fpr_guest_memory *memory, uint64_t gpa, void *out, uint64_t bytes)
{
    uint8_t *pointer, *to = out;
    uint64_t contiguous;

    if (!fpr_guest_inside(memory, gpa, bytes))
        return FPR_OUTSIDE;
    for (; bytes > 0; bytes -= contiguous, gpa += contiguous, to += contiguous) {
        if (fpr_translate(memory, gpa, bytes, &pointer, &contiguous) != FPR_OK)
            return FPR_OUTSIDE;
        copy_once(to, pointer, contiguous);
    }
    return FPR_OK;
}

int fpr_guest_write(const struct fpr_guest_memory *memory, uint64_t gpa, const void *data,
                    uint64_t bytes)
{
    const uint8_t *from = data;
    uint8_t *pointer;
    uint64_t contiguous;

    if (!fpr_guest_inside(memory, gpa, bytes))
        return FPR_OUTSIDE;
    for (; bytes > 0; bytes -= contiguous, gpa += contiguous, from += contiguous) {
        if (fpr_translate(memory, gpa, bytes, &pointer, &contiguous) != FPR_OK)
            return FPR_OUTSIDE;
        copy_once(pointer, from, contiguous);
    }
    return FPR_OK;
}
