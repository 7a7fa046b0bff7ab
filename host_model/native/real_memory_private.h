/* Private to the host: really mapped memory, as its mapping and its discarding half share it. */
#ifndef FPR_REAL_MEMORY_PRIVATE_H
#define FPR_REAL_MEMORY_PRIVATE_H

#include <time.h>

#include "host_model/native/batch.h"
#include "host_model/native/real_memory.h"

#define FPR_LOOK_PAGES 4096u /* of one mincore() */

/* A region as mapped: [reserved, reserved + reserved_bytes) holds it and its guard pages. */
struct fpr_real_mapping {
    uint8_t *base, *reserved; /* reserved: NULL where it lies in the mapping of the region before */
    uint64_t reserved_bytes, offset;
    bool cannot_free; /* a discard failed in a way that will not change */
};

struct fpr_real_memory {
    struct fpr_map map; /* what our own touches and discards left resident */
    struct fpr_real_memory_config config;
    struct fpr_real_mapping mappings[FPR_HOST_MAX_REGIONS];
    uint32_t page_bytes;
    int fd;
    uint8_t looked[FPR_LOOK_PAGES];
    uint64_t before[FPR_BATCH_MAX_RANGES]; /* resident bytes of each range of a call */
};

/* The mapping that holds all of [gpa, gpa + bytes), or NULL. */
struct fpr_real_mapping *fpr_real_mapping(struct fpr_real_memory *memory, uint64_t gpa,
                                          uint64_t bytes);
/* Where gpa is mapped; it must lie in the region of this mapping. */
uint8_t *fpr_real_address(const struct fpr_real_memory *memory,
                          const struct fpr_real_mapping *mapping, uint64_t gpa);
/* Ask the kernel which of up to FPR_LOOK_PAGES pages are resident: bit 0 of looked[]. */
int fpr_real_look(struct fpr_real_memory *memory, const uint8_t *at, uint64_t pages);
int fpr_real_resident_bytes_in(struct fpr_real_memory *memory, const uint8_t *at, uint64_t bytes,
                               uint64_t *resident);

/* Tell the map which lazily freed pages of [gpa, gpa + bytes), inside one region, are gone. */
int fpr_real_settle(struct fpr_real_memory *memory, uint64_t gpa, uint64_t bytes, uint64_t now_ns);

static inline bool fpr_real_hugetlb(const struct fpr_real_memory *memory)
{
    return memory->config.kind >= FPR_MEMORY_HUGETLB;
}

static inline uint64_t fpr_clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif
