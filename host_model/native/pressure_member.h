/* A VM on a host with limited memory: what its residency tells the host. Private to host_model. */
#ifndef FPR_PRESSURE_MEMBER_H
#define FPR_PRESSURE_MEMBER_H

#include "emulator/native/memory_port.h"
#include "host_model/native/pressure.h"
#include "host_model/native/residency_map.h"
#include "host_model/native/swap_device.h"

/* An entry of the list of what was used last; ids are 1 + VM << 32 | chunk, and 0 is the list's
 * own. */
struct fpr_lru_entry {
    uint64_t before, after;
    bool listed;
};

struct fpr_member {
    struct fpr_pressure *pressure;
    struct fpr_map *map; /* NULL: left */
    struct fpr_lru_entry *entries;
    uint32_t *slots; /* of swap: of each page that is there */
    uint64_t id;     /* of its first entry */
    uint64_t killed_ns;
    bool killed;
};

struct fpr_pressure {
    struct fpr_pressure_config config;
    struct fpr_pressure_counters counters;
    struct fpr_random random_in, random_out;
    struct fpr_lru_entry list; /* after: the newest; before: the oldest */
    uint64_t listed;
    uint64_t free_huge, free_small; /* 2 MiB in one piece; single pages */
    uint64_t most_pages;            /* that were ever in use at once */
    struct fpr_swap_device swap;
    uint32_t moving[FPR_HUGE_PAGES]; /* slots of pages that are being written or read now */
    uint64_t reclaimed_until_ns;     /* the thread in the background has come so far */
    bool awake;
    uint32_t members;
    struct fpr_member *member[FPR_PRESSURE_MAX_VMS]; /* NULL: left */
};

/* Nothing of the map is resident yet. FPR_FULL: as many as said have joined. */
int fpr_pressure_join(struct fpr_pressure *pressure, struct fpr_map *map, struct fpr_member *out);
/* All of its memory is free again; harmless for who has not joined. */
void fpr_pressure_leave(struct fpr_member *member);

/* The thread in the background, up to now. Whatever else happens to the host's memory at an instant
 * comes after it. */
void fpr_pressure_catch_up(struct fpr_pressure *pressure, uint64_t now_ns);
/* Make room for so many pages; what the vCPU has to wait is added to *wait. May kill anyone: look
 * at member->killed. FPR_FULL: there is not so much memory. */
int fpr_pressure_room(struct fpr_member *member, uint64_t pages, uint64_t now_ns,
                      struct fpr_touch_cost *wait);
/* Pages came, for which there was room. */
void fpr_pressure_came(struct fpr_member *member, uint64_t chunk, struct fpr_chunk_faults faults);
/* Pages of `gone` were freed lazily: they are the next that go, without swap. */
void fpr_pressure_lazily(struct fpr_member *member, uint64_t chunk, const uint64_t *gone);
/* Pages went, or were dropped from swap. */
void fpr_pressure_went(struct fpr_member *member, uint64_t chunk, uint32_t pages, uint32_t dropped);
/* Pages of a chunk that are in swap leave it, to be read or because nobody wants them any more: so
 * many, whose slots are in pressure->moving. */
uint32_t fpr_pressure_unswap(struct fpr_member *member, uint64_t chunk, const uint64_t *pages);
/* What reading those costs; each page is recorded. */
uint64_t fpr_pressure_swap_in(struct fpr_member *member, uint32_t pages, uint64_t now_ns,
                              struct fpr_histogram *latency);

/* The list, and taking from it: reclaim.c. */
struct fpr_lru_entry *fpr_lru_entry(struct fpr_pressure *pressure, uint64_t id);
void fpr_lru_add(struct fpr_pressure *pressure, uint64_t id);
void fpr_lru_remove(struct fpr_pressure *pressure, uint64_t id);
/* Take up to `want` pages (2 MiB more where a huge page goes whole); how many. They are gone at
 * now_ns; writing them begins when *cost has passed, to which its time is added. */
uint64_t fpr_reclaim(struct fpr_pressure *pressure, uint64_t want, uint64_t now_ns,
                     struct fpr_touch_cost *cost);
static inline uint64_t fpr_pressure_free(const struct fpr_pressure *pressure)
{
    return pressure->free_huge * FPR_HUGE_PAGES + pressure->free_small;
}

/* Whether memory may be taken before a VM that is ahead has been caught up with: then it matters
 * who uses what when. */
static inline bool fpr_pressure_may_take(const struct fpr_pressure *pressure)
{
    return pressure->awake ||
           fpr_pressure_free(pressure) < pressure->config.high_pages + pressure->config.ahead_pages;
}

#endif
