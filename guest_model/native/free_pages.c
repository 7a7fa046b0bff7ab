#include "guest_model/native/free_pages.h"

#include <string.h>

#include "guest_model/native/page.h"

static void set_bits(uint64_t *words, uint64_t first, uint64_t count)
{
    uint64_t last = first + count - 1;
    uint64_t from = ~(uint64_t)0 << first % 64, to = ~(uint64_t)0 >> (63 - last % 64);

    if (first / 64 == last / 64) {
        words[first / 64] |= from & to;
        return;
    }
    words[first / 64] |= from;
    memset(&words[first / 64 + 1], 0xff, (last / 64 - first / 64 - 1) * sizeof *words);
    words[last / 64] |= to;
}

static void set_list(const struct fpr_allocator *a, const struct fpr_list *list,
                     uint64_t *free_bits, uint64_t *reported)
{
    for (uint32_t pfn = list->head; pfn != FPR_NIL;) {
        const struct fpr_page *page = fpr_page(a, pfn);

        set_bits(free_bits, pfn, (uint64_t)1 << page->order);
        if (page->reported)
            set_bits(reported, pfn, (uint64_t)1 << page->order);
        pfn = page->next;
    }
}

int fpr_free_pages(const struct fpr_allocator *a, uint64_t *free_bits, uint64_t *reported,
                   uint64_t words)
{
    if (words < (a->config.frames + 63) / 64)
        return FPR_BAD_ARGUMENT;
    memset(free_bits, 0, words * sizeof *free_bits);
    memset(reported, 0, words * sizeof *reported);
    for (uint32_t z = 0; z < a->config.zones; z++) {
        const struct fpr_zone *zone = &a->zones[z];

        for (uint32_t order = 0; order <= a->config.top_order; order++)
            for (uint32_t type = 0; type < FPR_MIGRATETYPES; type++)
                set_list(a, &zone->areas[order].lists[type], free_bits, reported);
        for (uint32_t cpu = 0; cpu < a->config.cpus; cpu++)
            for (uint32_t i = 0; i < FPR_PCP_LISTS; i++)
                set_list(a, &zone->pcps[cpu].lists[i], free_bits, reported);
    }
    return FPR_OK;
}
