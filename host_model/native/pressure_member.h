/* A VM on a host with limited memory: what its residency tells the host. Private to host_model. */
#ifndef FPR_PRESSURE_MEMBER_H
#define FPR_PRESSURE_MEMBER_H

#include "host_model/native/pressure.h"
#include "host_model/native/residency_map.h"

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
    uint64_t id; /* of its first entry */
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
    uint64_t device_until_ns;       /* the swap device is busy */
    uint64_t reclaimed_until_ns;    /* the thread in the background has come so far */
    bool awake;
    uint32_t members;
    struct fpr_member *member[FPR_PRESSURE_MAX_VMS]; /* NULL: left */
};

/* Nothing of the map is resident yet. FPR_FULL: as many as said have joined. */
int fpr_pressure_join(struct fpr_pressure *pressure, struct fpr_map *map, struct fpr_member *out);
/* All of its memory is free again; harmless for who has not joined. */
void fpr_pressure_leave(struct fpr_member *member);

/* Make room for so many pages; what the vCPU has to wait goes to *wait_ns. May kill anyone: look at
 * member->killed. FPR_FULL: there is not so much memory. */
int fpr_pressure_room(struct fpr_member *member, uint64_t pages, uint64_t now_ns,
                      uint64_t *wait_ns);
/* Pages came, for which there was room. */
void fpr_pressure_came(struct fpr_member *member, uint64_t chunk, struct fpr_chunk_faults faults);
/* Pages of `gone` were freed lazily: they are the next that go, without swap. */
void fpr_pressure_lazily(struct fpr_member *member, uint64_t chunk, const uint64_t *gone);
/* Pages went, or were dropped from swap. */
void fpr_pressure_went(struct fpr_member *member, uint64_t chunk, uint32_t pages, uint32_t dropped);
/* What swapping in costs; each page is recorded. */
uint64_t fpr_pressure_swap_in(struct fpr_member *member, uint32_t pages, uint64_t now_ns,
                              struct fpr_histogram *latency);

/* The list, and taking from it: reclaim.c. */
struct fpr_lru_entry *fpr_lru_entry(struct fpr_pressure *pressure, uint64_t id);
void fpr_lru_add(struct fpr_pressure *pressure, uint64_t id);
void fpr_lru_remove(struct fpr_pressure *pressure, uint64_t id);
/* Take up to `want` pages (2 MiB more where a huge page goes whole); how many, and the time. */
uint64_t fpr_reclaim(struct fpr_pressure *pressure, uint64_t want, uint64_t now_ns,
                     uint64_t *cost_ns);
static inline uint64_t fpr_pressure_free(const struct fpr_pressure *pressure)
{
    return pressure->free_huge * FPR_HUGE_PAGES + pressure->free_small;
}

#endif
