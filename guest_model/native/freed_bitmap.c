#include "guest_model/native/freed_bitmap.h"

#include <string.h>

#include "guest_model/native/page.h"

#define WORD_BITS 64

int fpr_freed_bitmap_begin(struct fpr_allocator *a, uint32_t order, uint64_t threshold,
                           uint64_t *words, uint64_t length)
{
    if (order > a->config.top_order || !threshold || !words || length > UINT64_MAX / WORD_BITS ||
        length * WORD_BITS <= (a->config.frames - 1) >> order)
        return FPR_BAD_ARGUMENT;
    a->freed = (struct fpr_freed_bitmap){.words = words, .threshold = threshold, .order = order};
    a->notify.order = order;
    return FPR_OK;
}

int fpr_freed_bitmap_end(struct fpr_allocator *a)
{
    a->freed = (struct fpr_freed_bitmap){0};
    return FPR_OK;
}

int fpr_freed_bitmap_count(const struct fpr_allocator *a, uint32_t zone, uint64_t *count)
{
    if (zone >= a->config.zones)
        return FPR_BAD_ARGUMENT;
    *count = a->freed.set[zone];
    return FPR_OK;
}

/* The first set bit from `bit` on and below `end`, or `end`; counts the words that it looks at. */
static uint64_t next_bit(const struct fpr_freed_bitmap *map, uint64_t bit, uint64_t end,
                         uint64_t *words)
{
    while (bit < end) {
        uint64_t word = map->words[bit / WORD_BITS] >> bit % WORD_BITS;

        if (word) {
            bit += (uint64_t)__builtin_ctzll(word);
            return bit < end ? bit : end;
        }
        bit = (bit / WORD_BITS + 1) * WORD_BITS;
        *words += bit < end;
    }
    return end;
}

int fpr_freed_bitmap_take(struct fpr_allocator *a, uint32_t index, uint32_t max,
                          struct fpr_block *blocks, uint64_t *pfn, uint32_t *taken, uint64_t *words)
{
    struct fpr_freed_bitmap *map = &a->freed;
    struct fpr_zone *zone;
    uint64_t bit, end;
    uint32_t n = 0;

    if (index >= a->config.zones || !map->words || *pfn > a->config.frames)
        return FPR_BAD_ARGUMENT;
    zone = &a->zones[index];
    bit = (*pfn > zone->config.start_pfn ? *pfn : zone->config.start_pfn) >> map->order;
    end = zone->config.end_pfn > zone->config.start_pfn
              ? ((zone->config.end_pfn - 1) >> map->order) + 1
              : bit;
    *words = bit < end; /* the one that it begins in */
    while (n < max && (bit = next_bit(map, bit, end, words)) < end) {
        struct fpr_block block;
        int status = fpr_buddy_find(a, bit << map->order, &block);

        if (!status && block.order >= map->order && !fpr_page(a, block.pfn)->reported) {
            if (!fpr_isolate(a, zone, block.pfn)) {
                bit = end;
                break;
            }
            blocks[n++] = block;
        }
        map->words[bit / WORD_BITS] &= ~((uint64_t)1 << bit % WORD_BITS);
        map->set[index]--;
        bit++;
    }
    *pfn = bit << map->order < zone->config.end_pfn ? bit << map->order : zone->config.end_pfn;
    *taken = n;
    return FPR_OK;
}
