/* Life of an allocator: creation, boot-time hand-over of memory, labels, zones. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "guest_model/native/page.h"

#define SHUFFLE_STREAM 1

static void *map_lazily(uint64_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (at == MAP_FAILED)
        return NULL;
    /* Metadata is touched here and there: a huge page would back 170,000 pages at once. */
    madvise(at, bytes, MADV_NOHUGEPAGE);
    return at;
}

static int config_ok(const struct fpr_allocator_config *c, const struct fpr_zone_config *zones)
{
    uint64_t at = 0;

    if (!c->cpus || !c->zones || c->zones > FPR_MAX_ZONES || c->top_order >= FPR_MAX_ORDERS ||
        c->placement >= FPR_PLACEMENTS || !c->top_order || c->pageblock_order > c->top_order ||
        c->thp_order > c->top_order || !c->frames || c->frames >= FPR_NIL)
        return 0;
    for (uint32_t z = 0; z < c->zones; z++) {
        if (zones[z].start_pfn < at || zones[z].end_pfn < zones[z].start_pfn ||
            zones[z].end_pfn > c->frames || zones[z].zone_class >= FPR_MAX_ZONES ||
            (z && zones[z].zone_class <= zones[z - 1].zone_class))
            return 0;
        at = zones[z].end_pfn;
    }
    return 1;
}

static void init_zone(struct fpr_allocator *a, struct fpr_zone *zone)
{
    for (uint32_t order = 0; order < FPR_MAX_ORDERS; order++)
        for (uint32_t type = 0; type < FPR_MIGRATETYPES; type++)
            fpr_list_init(&zone->areas[order].lists[type]);
    for (uint32_t order = 0; order < FPR_MAX_ORDERS; order++)
        for (uint32_t type = 0; type < FPR_MIGRATETYPES; type++)
            zone->boundary.at[order][type] = zone->reported_run[order][type] = FPR_NIL;
    for (uint32_t cpu = 0; cpu < a->config.cpus; cpu++)
        for (uint32_t i = 0; i < FPR_PCP_LISTS; i++)
            fpr_list_init(&zone->pcps[cpu].lists[i]);
}

int fpr_allocator_create(const struct fpr_allocator_config *config,
                         const struct fpr_zone_config *zones, struct fpr_allocator **out)
{
    struct fpr_allocator *a;
    uint64_t blocks;

    if (!config_ok(config, zones))
        return FPR_BAD_ARGUMENT;
    a = calloc(1, sizeof *a);
    if (!a)
        return FPR_HOST_MEMORY;
    a->config = *config;
    a->top_mask = (1u << config->top_order) - 1;
    a->notify.order = 255;
    fpr_random_seed(&a->random, config->seed, SHUFFLE_STREAM);
    blocks = (config->frames >> config->top_order) + 1;
    a->tops_bytes = blocks * sizeof *a->tops;
    a->pages_bytes = (blocks << config->top_order) * sizeof *a->pages;
    a->labels_bytes = ((config->frames >> config->pageblock_order) + 1);
    a->tops = map_lazily(a->tops_bytes);
    a->pages = map_lazily(a->pages_bytes);
    a->labels = malloc(a->labels_bytes);
    for (uint32_t z = 0; z < config->zones; z++) {
        a->zones[z].config = zones[z];
        a->zones[z].pcps = calloc(config->cpus, sizeof *a->zones[z].pcps);
    }
    *out = a;
    for (uint32_t z = 0; z < config->zones; z++)
        if (!a->zones[z].pcps || !a->tops || !a->pages || !a->labels) {
            fpr_allocator_destroy(a);
            *out = NULL;
            return FPR_HOST_MEMORY;
        }
    memset(a->labels, FPR_MOVABLE, a->labels_bytes);
    for (uint32_t z = 0; z < config->zones; z++)
        init_zone(a, &a->zones[z]);
    fpr_prefer_zones(a);
    return FPR_OK;
}

void fpr_allocator_destroy(struct fpr_allocator *a)
{
    if (!a)
        return;
    for (uint32_t z = 0; z < a->config.zones; z++)
        free(a->zones[z].pcps);
    if (a->tops)
        munmap(a->tops, a->tops_bytes);
    if (a->pages)
        munmap(a->pages, a->pages_bytes);
    free(a->labels);
    free(a);
}

struct fpr_notify *fpr_allocator_notify(struct fpr_allocator *a)
{
    return &a->notify;
}

const struct fpr_counters *fpr_allocator_counters(const struct fpr_allocator *a)
{
    return &a->counters;
}

static uint64_t resident_bytes(const void *at, uint64_t bytes)
{
    unsigned char in_core[4096];
    uint64_t pages = 0;

    for (uint64_t offset = 0; offset < bytes; offset += sizeof in_core * 4096) {
        uint64_t size =
            bytes - offset < sizeof in_core * 4096 ? bytes - offset : sizeof in_core * 4096;

        if (mincore((char *)at + offset, size, in_core))
            return bytes; /* cannot tell: the bound is true all the same */
        for (uint64_t i = 0; i < (size + 4095) / 4096; i++)
            pages += in_core[i] & 1;
    }
    return pages * 4096;
}

uint64_t fpr_allocator_metadata_bytes(const struct fpr_allocator *a)
{
    return sizeof *a + a->labels_bytes + resident_bytes(a->tops, a->tops_bytes) +
           resident_bytes(a->pages, a->pages_bytes);
}

int fpr_allocator_add_range(struct fpr_allocator *a, uint64_t pfn, uint64_t count)
{
    uint64_t end = pfn + count;
    struct fpr_zone *zone = fpr_zone_of(a, pfn);

    if (end < pfn || (count && (!zone || end > zone->config.end_pfn)))
        return FPR_BAD_ARGUMENT;
    while (pfn < end) {
        uint32_t order = pfn ? (uint32_t)__builtin_ctzll(pfn) : a->config.top_order;

        if (order > a->config.top_order)
            order = a->config.top_order;
        while (pfn + ((uint64_t)1 << order) > end)
            order--;
        if (fpr_page(a, pfn)->state != FPR_PAGE_NONE)
            return FPR_BAD_ARGUMENT;
        fpr_free_one(a, zone, pfn, order, fpr_label(a, pfn), FPR_FREE_TO_TAIL);
        pfn += (uint64_t)1 << order;
    }
    return FPR_OK;
}

struct fpr_zone *fpr_empty_place(struct fpr_allocator *a, uint64_t pfn, uint32_t order,
                                 uint32_t type)
{
    struct fpr_zone *zone = fpr_zone_of(a, pfn);

    if (!zone || order > a->config.top_order || type >= FPR_MIGRATETYPES ||
        pfn & (((uint64_t)1 << order) - 1) || pfn + ((uint64_t)1 << order) > zone->config.end_pfn ||
        fpr_page(a, pfn)->state != FPR_PAGE_NONE)
        return NULL;
    return zone;
}

int fpr_allocator_add_block(struct fpr_allocator *a, uint64_t pfn, uint32_t order, uint32_t type)
{
    struct fpr_zone *zone = fpr_empty_place(a, pfn, order, type);

    if (!zone)
        return FPR_BAD_ARGUMENT;
    fpr_area_add(a, zone, pfn, order, type, true);
    if (type != FPR_ISOLATE)
        zone->free_pages += (uint64_t)1 << order;
    return FPR_OK;
}

int fpr_allocator_add_allocated(struct fpr_allocator *a, uint64_t pfn, uint32_t order,
                                uint32_t type)
{
    if (!fpr_empty_place(a, pfn, order, type))
        return FPR_BAD_ARGUMENT;
    fpr_mark_allocated(a, pfn, order, type);
    return FPR_OK;
}

uint32_t fpr_allocator_label(const struct fpr_allocator *a, uint64_t pfn)
{
    return pfn < a->config.frames ? fpr_label(a, pfn) : FPR_MIGRATETYPES;
}

int fpr_allocator_set_label(struct fpr_allocator *a, uint64_t pfn, uint32_t type)
{
    if (pfn >= a->config.frames || type >= FPR_MIGRATETYPES)
        return FPR_BAD_ARGUMENT;
    a->labels[pfn >> a->config.pageblock_order] = (uint8_t)type;
    return FPR_OK;
}

int fpr_allocator_zone(const struct fpr_allocator *a, uint32_t index, struct fpr_zone_state *out)
{
    const struct fpr_zone *zone;

    if (index >= a->config.zones)
        return FPR_BAD_ARGUMENT;
    zone = &a->zones[index];
    memset(out, 0, sizeof *out);
    out->config = zone->config;
    out->free_pages = zone->free_pages;
    out->boost_pages = zone->boost_pages;
    out->highatomic_pages = zone->highatomic_pages;
    for (uint32_t cpu = 0; cpu < a->config.cpus; cpu++)
        out->pcp_pages += zone->pcps[cpu].count;
    for (uint32_t order = 0; order < FPR_MAX_ORDERS; order++)
        out->nr_free[order] = zone->areas[order].nr_free;
    return FPR_OK;
}

int fpr_allocator_set_zone(struct fpr_allocator *a, uint32_t index,
                           const struct fpr_zone_config *config)
{
    struct fpr_zone *zone;

    if (index >= a->config.zones)
        return FPR_BAD_ARGUMENT;
    zone = &a->zones[index];
    if (config->start_pfn != zone->config.start_pfn || config->end_pfn != zone->config.end_pfn ||
        config->zone_class != zone->config.zone_class)
        return FPR_BAD_ARGUMENT;
    zone->config = *config;
    zone->boost_pages = 0;
    fpr_prefer_zones(a);
    return FPR_OK;
}
