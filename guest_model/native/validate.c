/* Every invariant of the allocator's structure, checked from scratch. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>

#include "guest_model/native/page.h"

struct report {
    char *why;
    size_t size;
};

__attribute__((format(printf, 2, 3))) static int broken(const struct report *report,
                                                        const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    if (report->size)
        vsnprintf(report->why, report->size, format, arguments);
    va_end(arguments);
    return FPR_INVALID;
}

#define HOST_PAGE ((uintptr_t)4096)
#define TOUCHED_MAX                                                                                \
    64 /* host pages of metadata behind a block of the top order; 13 where it is 12 */

/* Nothing was ever written inside this block of the top order, so all of it is FPR_PAGE_NONE. The
 * host's kernel is asked, since a look would map 12 KiB for each idle block: it would take longer
 * than the whole run of a large guest. What it swapped out counts as untouched, and is not seen. */
static bool untouched(const struct fpr_allocator *a, uint64_t pfn)
{
    uintptr_t start = (uintptr_t)&a->pages[pfn + 1] & ~(HOST_PAGE - 1);
    uintptr_t end = (uintptr_t)&a->pages[pfn + a->top_mask + 1];
    unsigned char in_core[TOUCHED_MAX];
    uintptr_t count = (end - start + HOST_PAGE - 1) / HOST_PAGE;

    if (count > TOUCHED_MAX || mincore((void *)start, end - start, in_core))
        return false;
    for (uintptr_t i = 0; i < count; i++)
        if (in_core[i] & 1)
            return false;
    return true;
}

/* No frame of the block but its head carries a state: blocks do not overlap. */
static int check_inside(const struct fpr_allocator *a, const struct report *report, uint64_t pfn,
                        uint32_t order)
{
    if (order == a->config.top_order && untouched(a, pfn))
        return FPR_OK;
    for (uint64_t at = pfn + 1; at < pfn + ((uint64_t)1 << order); at++)
        if (fpr_page(a, at)->state != FPR_PAGE_NONE)
            return broken(report, "block 0x%" PRIx64 " order %u overlaps the one at 0x%" PRIx64,
                          pfn, order, at);
    return FPR_OK;
}

static int check_mergeable(const struct fpr_allocator *a, const struct fpr_zone *zone,
                           const struct report *report, uint64_t pfn, uint32_t order)
{
    uint64_t buddy = pfn ^ ((uint64_t)1 << order);
    const struct fpr_page *page;

    /* From a page block up, labels may have kept the two apart when they were freed. */
    if (order >= a->config.pageblock_order || buddy < pfn || buddy >= zone->config.end_pfn)
        return FPR_OK;
    page = fpr_page(a, buddy);
    if (page->state != FPR_PAGE_FREE || page->order != order)
        return FPR_OK;
    return broken(report, "free buddies 0x%" PRIx64 " and 0x%" PRIx64 " of order %u not merged",
                  pfn, buddy, order);
}

static int check_list(const struct fpr_allocator *a, const struct fpr_zone *zone,
                      const struct report *report, uint32_t order, uint32_t type, uint64_t *blocks)
{
    const struct fpr_list *list = &zone->areas[order].lists[type];
    uint32_t previous = FPR_NIL;
    int status = FPR_OK;

    for (uint32_t pfn = list->head; pfn != FPR_NIL && !status;) {
        const struct fpr_page *page;

        if (pfn < zone->config.start_pfn || pfn + ((uint64_t)1 << order) > zone->config.end_pfn ||
            pfn & ((1u << order) - 1))
            return broken(report, "list [%u][%u] holds 0x%x: unaligned or outside its zone", order,
                          type, pfn);
        page = fpr_page(a, pfn);
        if (page->state != FPR_PAGE_FREE || page->order != order || page->type != type)
            return broken(report, "list [%u][%u] holds 0x%x with state %u order %u type %u", order,
                          type, pfn, page->state, page->order, page->type);
        if (page->prev != previous)
            return broken(report, "list [%u][%u]: back link of 0x%x is wrong", order, type, pfn);
        status = check_inside(a, report, pfn, order);
        if (!status)
            status = check_mergeable(a, zone, report, pfn, order);
        ++*blocks;
        previous = pfn;
        pfn = page->next;
        if (*blocks > a->config.frames)
            return broken(report, "list [%u][%u] is a loop", order, type);
    }
    if (!status && list->tail != previous)
        return broken(report, "list [%u][%u]: wrong tail 0x%x", order, type, list->tail);
    return status;
}

static int check_areas(const struct fpr_allocator *a, const struct fpr_zone *zone, uint32_t index,
                       const struct report *report)
{
    uint64_t free_pages = 0;

    for (uint32_t order = 0; order <= a->config.top_order; order++) {
        uint64_t all = 0;

        for (uint32_t type = 0; type < FPR_MIGRATETYPES; type++) {
            uint64_t blocks = 0;
            int status = check_list(a, zone, report, order, type, &blocks);

            if (status)
                return status;
            all += blocks;
            free_pages += type == FPR_ISOLATE ? 0 : blocks << order;
        }
        if (all != zone->areas[order].nr_free)
            return broken(report, "zone %u order %u: nr_free %" PRIu64 ", on lists %" PRIu64, index,
                          order, zone->areas[order].nr_free, all);
    }
    if (free_pages != zone->free_pages)
        return broken(report, "zone %u: %" PRIu64 " pages counted free, %" PRIu64 " on lists",
                      index, zone->free_pages, free_pages);
    return FPR_OK;
}

/* Where reported blocks are counted, the counts are those of the lists, and a boundary points at a
 * reported block of its list. */
static int check_boundary(const struct fpr_allocator *a, const struct fpr_zone *zone,
                          uint32_t index, const struct report *report)
{
    for (uint32_t order = 0; zone->boundary.counting && order <= a->config.top_order; order++) {
        uint64_t all = 0;

        for (uint32_t type = 0; type < FPR_MIGRATETYPES; type++) {
            uint32_t at = zone->boundary.at[order][type], reported = 0;

            for (uint32_t pfn = zone->areas[order].lists[type].head; pfn != FPR_NIL;
                 pfn = fpr_page(a, pfn)->next)
                reported += fpr_page(a, pfn)->reported;
            if (zone->boundary.active && at != FPR_NIL &&
                (fpr_page(a, at)->state != FPR_PAGE_FREE || fpr_page(a, at)->order != order ||
                 fpr_page(a, at)->type != type))
                return broken(report, "zone %u: boundary 0x%x is not on list [%u][%u]", index, at,
                              order, type);
            if (reported != zone->boundary.listed[order][type])
                return broken(report, "zone %u list [%u][%u]: %u reported counted, %u are", index,
                              order, type, zone->boundary.listed[order][type], reported);
            all += reported;
        }
        if (all != zone->boundary.reported_blocks[order])
            return broken(report, "zone %u order %u: %" PRIu64 " reported counted, %" PRIu64 " are",
                          index, order, zone->boundary.reported_blocks[order], all);
    }
    return FPR_OK;
}

/* Where reported blocks are kept in a run, it is the tail of its list, from the run's first on. */
static int check_runs(const struct fpr_allocator *a, const struct fpr_zone *zone, uint32_t index,
                      const struct report *report)
{
    for (uint32_t order = 0; order <= a->config.top_order; order++)
        for (uint32_t type = 0; type < FPR_MIGRATETYPES; type++) {
            uint32_t pfn = zone->areas[order].lists[type].head;
            uint32_t run = zone->reported_run[order][type];

            if (a->config.placement == FPR_PLACE_REPORTED_LAST)
                while (pfn != FPR_NIL && !fpr_page(a, pfn)->reported)
                    pfn = fpr_page(a, pfn)->next;
            else
                pfn = FPR_NIL;
            if (pfn != run)
                return broken(report, "zone %u list [%u][%u]: first reported 0x%x, run at 0x%x",
                              index, order, type, pfn, run);
            for (; pfn != FPR_NIL; pfn = fpr_page(a, pfn)->next)
                if (!fpr_page(a, pfn)->reported)
                    return broken(report, "zone %u list [%u][%u]: 0x%x is behind reported ones",
                                  index, order, type, pfn);
        }
    return FPR_OK;
}

static int check_pcp(const struct fpr_allocator *a, const struct fpr_zone *zone, uint32_t cpu,
                     const struct report *report)
{
    const struct fpr_pcp *pcp = &zone->pcps[cpu];
    uint64_t pages = 0;

    for (uint32_t index = 0; index < FPR_PCP_LISTS; index++) {
        uint32_t previous = FPR_NIL;

        for (uint32_t pfn = pcp->lists[index].head; pfn != FPR_NIL;) {
            const struct fpr_page *page = fpr_page(a, pfn);

            if (page->state != FPR_PAGE_PCP || page->reported || page->prev != previous)
                return broken(report, "cpu %u list %u holds 0x%x in state %u", cpu, index, pfn,
                              page->state);
            if (check_inside(a, report, pfn, page->order))
                return FPR_INVALID;
            pages += (uint64_t)1 << page->order;
            if (pages > a->config.frames)
                return broken(report, "cpu %u list %u is a loop", cpu, index);
            previous = pfn;
            pfn = page->next;
        }
        if (pcp->lists[index].tail != previous)
            return broken(report, "cpu %u list %u: wrong tail", cpu, index);
    }
    if (pages != pcp->count)
        return broken(report, "cpu %u: %u pages counted, %" PRIu64 " on lists", cpu, pcp->count,
                      pages);
    return FPR_OK;
}

/* Reported marks are on free blocks only, and every free block of the map is on a list. */
static int check_map(const struct fpr_allocator *a, const struct fpr_zone *zone, uint32_t index,
                     const struct report *report)
{
    uint64_t blocks = 0, listed = 0;

    for (uint64_t pfn = zone->config.start_pfn; pfn < zone->config.end_pfn;) {
        const struct fpr_page *page = fpr_page(a, pfn);

        if (page->state > FPR_PAGE_ISOLATED)
            return broken(report, "0x%" PRIx64 " has unknown state %u", pfn, page->state);
        if (page->reported && page->state != FPR_PAGE_FREE)
            return broken(report, "0x%" PRIx64 " is flagged reported and not free", pfn);
        blocks += page->state == FPR_PAGE_FREE;
        pfn += page->state == FPR_PAGE_NONE ? 1 : (uint64_t)1 << page->order;
    }
    for (uint32_t order = 0; order <= a->config.top_order; order++)
        listed += zone->areas[order].nr_free;
    if (blocks != listed)
        return broken(report, "zone %u: %" PRIu64 " free blocks in the map, %" PRIu64 " on lists",
                      index, blocks, listed);
    return FPR_OK;
}

int fpr_allocator_validate(const struct fpr_allocator *a, char *why, size_t size)
{
    const struct report report = {why, size};
    int status = FPR_OK;

    for (uint32_t z = 0; z < a->config.zones && !status; z++) {
        const struct fpr_zone *zone = &a->zones[z];

        status = check_areas(a, zone, z, &report);
        for (uint32_t cpu = 0; cpu < a->config.cpus && !status; cpu++)
            status = check_pcp(a, zone, cpu, &report);
        if (!status)
            status = check_map(a, zone, z, &report);
        if (!status)
            status = check_boundary(a, zone, z, &report);
        if (!status)
            status = check_runs(a, zone, z, &report);
    }
    return status;
}
