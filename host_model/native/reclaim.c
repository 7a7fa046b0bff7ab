/* The list of what was used last, over all VMs, and taking pages from its oldest end. */
#include <string.h>

#include "host_model/native/pressure_member.h"

#define CHUNK_MASK 0xffffffffu

static struct fpr_member *member_of(struct fpr_pressure *pressure, uint64_t id)
{
    return pressure->member[(id >> 32) - 1];
}

struct fpr_lru_entry *fpr_lru_entry(struct fpr_pressure *pressure, uint64_t id)
{
    return id ? &member_of(pressure, id)->entries[id & CHUNK_MASK] : &pressure->list;
}

void fpr_lru_add(struct fpr_pressure *pressure, uint64_t id)
{
    struct fpr_lru_entry *entry = fpr_lru_entry(pressure, id);

    if (entry->listed)
        return;
    entry->listed = true;
    entry->before = 0;
    entry->after = pressure->list.after;
    fpr_lru_entry(pressure, entry->after)->before = id;
    pressure->list.after = id;
    pressure->listed++;
}

void fpr_lru_remove(struct fpr_pressure *pressure, uint64_t id)
{
    struct fpr_lru_entry *entry = fpr_lru_entry(pressure, id);

    if (!entry->listed)
        return;
    fpr_lru_entry(pressure, entry->before)->after = entry->after;
    fpr_lru_entry(pressure, entry->after)->before = entry->before;
    entry->listed = false;
    pressure->listed--;
}

void fpr_pressure_lazily(struct fpr_member *member, uint64_t chunk, const uint64_t *gone)
{
    struct fpr_pressure *pressure = member->pressure;
    struct fpr_lru_entry *entry = &member->entries[chunk];
    uint64_t id = member->id | chunk;

    for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++)
        member->map->marks[chunk].young[w] &= ~gone[w];
    fpr_lru_remove(pressure, id);
    entry->listed = true;
    entry->after = 0;
    entry->before = pressure->list.before;
    fpr_lru_entry(pressure, entry->before)->after = id;
    pressure->list.before = id;
    pressure->listed++;
}

static bool any_lazy(const struct fpr_pressure *pressure)
{
    for (uint32_t i = 0; i < pressure->members; i++)
        if (pressure->member[i] != NULL && pressure->member[i]->map->lazy_pages)
            return true;
    return false;
}

/* Slots for pages that go out, whose writing is begun by write_out(). */
static void take_slots(struct fpr_member *member, uint64_t chunk, const uint64_t *gone)
{
    struct fpr_pressure *pressure = member->pressure;
    uint32_t count = 0;

    for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++)
        for (uint64_t left = gone[w]; left; left &= left - 1) {
            uint64_t page = chunk * FPR_HUGE_PAGES + w * 64 + (uint64_t)__builtin_ctzll(left);

            member->slots[page] = pressure->moving[count++] = fpr_swap_take(&pressure->swap);
        }
}

/* What the reclaimer takes for a number of pages: it goes no faster than the device, for which it
 * waits like anybody. */
static void write_out(struct fpr_pressure *pressure, uint32_t pages, uint64_t now_ns,
                      struct fpr_touch_cost *cost)
{
    uint64_t cpu_ns = 0, device_ns;
    bool next;

    if (pages == 0)
        return;
    for (uint32_t i = 0; i < pages; i++) {
        cpu_ns += fpr_cost_draw(&pressure->config.swap.out_4k, &pressure->random_out);
        fpr_swap_request(&pressure->swap, pressure->moving[i], true, now_ns, &next);
    }
    device_ns = pressure->swap.until_ns - now_ns;
    cost->ns += cpu_ns > device_ns ? cpu_ns : device_ns;
    cost->asleep_ns += cpu_ns > device_ns ? 0 : device_ns - cpu_ns;
}

/* Pages of an entry that were not used since it was last looked at, at most `want`; a huge page
 * goes whole if swap has room for it. True: others of them remain. */
static bool choose(const struct fpr_map *map, uint64_t chunk, uint64_t want, uint64_t *gone)
{
    const struct fpr_map_marks *marks = &map->marks[chunk];
    bool huge = map->state[chunk] & FPR_MAP_HUGE;
    uint64_t used = 0;

    for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++)
        used |= marks->young[w];
    memset(gone, 0, FPR_PAGE_WORDS * sizeof *gone);
    if (huge && used)
        return false;
    for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++) {
        uint64_t old = huge ? ~(uint64_t)0 : map->pages[chunk].resident[w] & ~marks->young[w];

        while (old) {
            if (!want)
                return true;
            gone[w] |= old & -old;
            old &= old - 1;
            want--;
        }
    }
    return false;
}

/* The oldest entry gives up what it can; then, unless more of it is to go, it is the newest. Pages
 * that were freed lazily go first, without swap: how many goes to *dropped. */
static uint32_t shrink(struct fpr_pressure *pressure, uint64_t want, uint64_t now_ns,
                       uint32_t *dropped)
{
    uint64_t id = pressure->list.before, chunk = id & CHUNK_MASK, gone[FPR_PAGE_WORDS];
    uint64_t room = pressure->config.swap_pages - pressure->counters.swapped_pages;
    struct fpr_map *map = member_of(pressure, id)->map;
    uint32_t before, taken = 0;
    bool more;

    *dropped = fpr_map_drop_lazy_in(map, chunk, NULL, now_ns);
    if (*dropped != 0) {
        fpr_pressure_went(member_of(pressure, id), chunk, *dropped, 0);
        return 0;
    }
    before = fpr_map_resident_pages(map, chunk);

    if (map->state[chunk] & FPR_MAP_HUGE && want < FPR_HUGE_PAGES)
        want = FPR_HUGE_PAGES;
    more = choose(map, chunk, want < room ? want : room, gone);
    for (uint32_t w = 0; w < FPR_PAGE_WORDS; w++)
        taken += (uint32_t)__builtin_popcountll(gone[w]);
    if (taken) {
        take_slots(member_of(pressure, id), chunk, gone);
        fpr_map_swap_out(map, chunk, gone, now_ns);
        fpr_pressure_went(member_of(pressure, id), chunk, taken, 0);
        pressure->counters.swapped_pages += taken;
        pressure->counters.swap_out_pages += taken;
        if (pressure->counters.swapped_pages > pressure->counters.swapped_peak_pages)
            pressure->counters.swapped_peak_pages = pressure->counters.swapped_pages;
    }
    if (!more) {
        memset(map->marks[chunk].young, 0, sizeof map->marks[chunk].young);
        fpr_lru_remove(pressure, id);
        if (taken < before)
            fpr_lru_add(pressure, id);
    }
    return taken;
}

uint64_t fpr_reclaim(struct fpr_pressure *pressure, uint64_t want, uint64_t now_ns,
                     struct fpr_touch_cost *cost)
{
    /* Twice through the list: the first time may only take marks of use away. */
    uint64_t looks = 2 * pressure->listed, taken = 0;

    while (taken < want && pressure->listed && looks-- &&
           (pressure->counters.swapped_pages < pressure->config.swap_pages || any_lazy(pressure))) {
        uint32_t dropped, pages = shrink(pressure, want - taken, now_ns, &dropped);

        taken += pages + dropped;
        write_out(pressure, pages, now_ns + cost->ns, cost);
    }
    return taken;
}
