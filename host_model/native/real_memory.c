#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "emulator/native/histogram_inline.h"
#include "emulator/native/status.h"
#include "host_model/native/real_memory_private.h"

static int open_file(struct fpr_real_memory *memory, uint64_t bytes)
{
    memory->fd = memfd_create("fpr-guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (memory->fd < 0 || ftruncate(memory->fd, (off_t)bytes) < 0)
        return FPR_SYSTEM;
    /* A file that shrinks under a mapping kills whoever touches it. */
    if (fcntl(memory->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
        return FPR_SYSTEM;
    return FPR_OK;
}

static int map_region(struct fpr_real_memory *memory, const struct fpr_memory_region *region,
                      struct fpr_real_mapping *mapping)
{
    int flags = memory->fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED;
    uint64_t start;

    /* Room for the region at the right place in its 2 MiB, and for a guard on both sides. */
    mapping->reserved_bytes = region->bytes + 2 * (uint64_t)FPR_HUGE_BYTES;
    mapping->reserved = mmap(NULL, mapping->reserved_bytes, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping->reserved == MAP_FAILED) {
        mapping->reserved = NULL;
        return FPR_SYSTEM;
    }
    start = (uint64_t)mapping->reserved + FPR_PAGE_BYTES;
    start += (region->gpa - start) % FPR_HUGE_BYTES;
    mapping->base = mmap((void *)start, region->bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED,
                         memory->fd, (off_t)mapping->offset);
    if (mapping->base == MAP_FAILED)
        return FPR_SYSTEM;
    /* EINVAL: a kernel that knows no huge pages gives none, which is fine with both. */
    if (madvise(mapping->base, region->bytes,
                memory->config.thp ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) < 0 &&
        errno != EINVAL)
        return FPR_SYSTEM;
    return FPR_OK;
}

static int map_all(struct fpr_real_memory *memory)
{
    uint64_t end = 0;
    int status = FPR_OK;

    for (uint32_t i = 0; i < memory->map.region_count; i++) {
        const struct fpr_memory_region *region = &memory->map.regions[i];

        memory->mappings[i].offset = end + (region->gpa - end) % FPR_HUGE_BYTES;
        end = memory->mappings[i].offset + region->bytes;
    }
    if (memory->config.memfd)
        status = open_file(memory, end);
    for (uint32_t i = 0; i < memory->map.region_count && status == FPR_OK; i++)
        status = map_region(memory, &memory->map.regions[i], &memory->mappings[i]);
    return status;
}

int fpr_real_memory_create(const struct fpr_real_memory_config *config,
                           const struct fpr_memory_region *regions, uint32_t count,
                           struct fpr_real_memory **out)
{
    struct fpr_real_memory *memory;
    int status, error;

    *out = NULL;
    if (config->method > FPR_DISCARD_PUNCH_HOLE ||
        (!config->memfd && config->method != FPR_DISCARD_DONTNEED))
        return FPR_BAD_ARGUMENT;
    memory = calloc(1, sizeof *memory);
    if (memory == NULL)
        return FPR_HOST_MEMORY;
    memory->fd = -1;
    memory->config = *config;
    status = fpr_map_init(&memory->map, regions, count);
    if (status == FPR_OK)
        status = map_all(memory);
    if (status != FPR_OK) {
        error = errno;
        fpr_real_memory_destroy(memory);
        errno = error;
        return status;
    }
    *out = memory;
    return FPR_OK;
}

void fpr_real_memory_destroy(struct fpr_real_memory *memory)
{
    if (memory == NULL)
        return;
    for (uint32_t i = 0; i < FPR_HOST_MAX_REGIONS; i++)
        if (memory->mappings[i].reserved != NULL)
            munmap(memory->mappings[i].reserved, memory->mappings[i].reserved_bytes);
    if (memory->fd >= 0)
        close(memory->fd);
    fpr_map_release(&memory->map);
    free(memory);
}

/* Write to a page and time it, with what the clock itself takes. */
static uint64_t write_page(uint8_t *at)
{
    uint64_t start = fpr_clock_ns();

    *(volatile uint8_t *)at = 1;
    return fpr_clock_ns() - start;
}

/* Whether the fault that just happened brought in all of an aligned 2 MiB. */
static int came_huge(struct fpr_real_memory *memory, const uint8_t *chunk, bool *huge)
{
    uint64_t resident;
    int status = fpr_real_resident_bytes_in(memory, chunk, FPR_HUGE_BYTES, &resident);

    *huge = status == FPR_OK && resident == FPR_HUGE_BYTES;
    return status;
}

static bool may_come_huge(const struct fpr_real_memory *memory, uint64_t chunk)
{
    return memory->config.thp && !(memory->map.state[chunk] & FPR_MAP_SOME) &&
           fpr_map_whole(&memory->map, chunk);
}

/* Touch the absent pages of a range within 2 MiB: each write is timed by itself. */
static int touch_chunk(struct fpr_real_memory *memory, uint8_t *at, struct fpr_chunk_range range,
                       bool counted, uint64_t now_ns, uint64_t *cost_ns)
{
    struct fpr_map *map = &memory->map;
    bool may_be_huge = may_come_huge(memory, range.chunk);
    uint64_t present[FPR_PAGE_WORDS], sum = 0;
    struct fpr_chunk_faults faults;
    bool huge = false;

    fpr_map_look(map, range, present);
    for (uint32_t i = range.first; i < range.first + range.count; i++, at += FPR_PAGE_BYTES) {
        uint64_t ns;

        if (present[i / 64] >> (i % 64) & 1)
            continue;
        ns = write_page(at);
        if (huge)
            continue; /* the first write brought this page in as well */
        sum += ns;
        if (counted)
            fpr_histogram_record_inline(&map->fault_latency, ns);
        if (may_be_huge) {
            int status = came_huge(memory, at - (uint64_t)i * FPR_PAGE_BYTES, &huge);

            if (status != FPR_OK)
                return status;
            may_be_huge = false;
        }
    }
    faults = fpr_map_populate(map, range, huge, now_ns);
    if (counted && faults.pages != 0)
        fpr_map_count_faults(map, faults, sum);
    *cost_ns += sum;
    return FPR_OK;
}

static int touch(struct fpr_real_memory *memory, uint64_t pfn, uint64_t count, bool counted,
                 uint64_t now_ns, uint64_t *cost_ns)
{
    struct fpr_map *map = &memory->map;
    uint64_t limit = FPR_HOST_MAX_GPA >> FPR_PAGE_SHIFT;
    struct fpr_real_mapping *mapping;

    *cost_ns = 0;
    if (pfn > limit || count > limit)
        return FPR_OUTSIDE;
    mapping = fpr_real_mapping(memory, pfn << FPR_PAGE_SHIFT, count << FPR_PAGE_SHIFT);
    if (mapping == NULL)
        return FPR_OUTSIDE;
    while (count > 0) {
        struct fpr_chunk_range range = fpr_map_cut(pfn, count);
        int status;

        if (!fpr_map_resident(map, range.chunk)) {
            uint64_t more = range.count - fpr_map_look(map, range, NULL).pages;

            if (may_come_huge(memory, range.chunk))
                more = FPR_HUGE_PAGES;
            if ((map->resident_pages + more) << FPR_PAGE_SHIFT > memory->config.touch_limit_bytes)
                return FPR_HOST_MEMORY;
            status = touch_chunk(memory, fpr_real_address(memory, mapping, pfn << FPR_PAGE_SHIFT),
                                 range, counted, now_ns, cost_ns);
            if (status != FPR_OK)
                return status;
        }
        pfn += range.count;
        count -= range.count;
    }
    return FPR_OK;
}

int fpr_real_memory_touch(void *host, uint64_t pfn, uint64_t count, int write, uint64_t now_ns,
                          uint32_t vcpu, uint64_t *cost_ns)
{
    (void)write;
    (void)vcpu;
    return touch(host, pfn, count, true, now_ns, cost_ns);
}

int fpr_real_memory_populate(struct fpr_real_memory *memory, uint64_t pfn, uint64_t count,
                             uint64_t now_ns)
{
    uint64_t cost_ns;

    return touch(memory, pfn, count, false, now_ns, &cost_ns);
}

struct fpr_real_mapping *fpr_real_mapping(struct fpr_real_memory *memory, uint64_t gpa,
                                          uint64_t bytes)
{
    const struct fpr_memory_region *region = fpr_map_region(&memory->map, gpa, bytes);

    return region == NULL ? NULL : &memory->mappings[region - memory->map.regions];
}

/* Where gpa is mapped; it must lie in the region of this mapping. */
uint8_t *fpr_real_address(const struct fpr_real_memory *memory,
                          const struct fpr_real_mapping *mapping, uint64_t gpa)
{
    return mapping->base + (gpa - memory->map.regions[mapping - memory->mappings].gpa);
}

/* Ask the kernel which of up to FPR_LOOK_PAGES pages are resident: bit 0 of looked[]. */
int fpr_real_look(struct fpr_real_memory *memory, const uint8_t *at, uint64_t pages)
{
    while (mincore((void *)at, pages << FPR_PAGE_SHIFT, memory->looked) < 0)
        if (errno != EAGAIN)
            return FPR_SYSTEM;
    return FPR_OK;
}

int fpr_real_resident_bytes_in(struct fpr_real_memory *memory, const uint8_t *at, uint64_t bytes,
                               uint64_t *resident)
{
    uint64_t left = bytes >> FPR_PAGE_SHIFT, pages = 0;

    while (left > 0) {
        uint64_t part = left < FPR_LOOK_PAGES ? left : FPR_LOOK_PAGES;
        int status = fpr_real_look(memory, at, part);

        if (status != FPR_OK)
            return status;
        for (uint64_t i = 0; i < part; i++)
            pages += memory->looked[i] & 1;
        at += part << FPR_PAGE_SHIFT;
        left -= part;
    }
    *resident = pages << FPR_PAGE_SHIFT;
    return FPR_OK;
}

void *fpr_real_memory_pointer(const struct fpr_real_memory *memory, uint32_t region)
{
    return memory->mappings[region].base;
}

uint64_t fpr_real_memory_offset(const struct fpr_real_memory *memory, uint32_t region)
{
    return memory->mappings[region].offset;
}

int fpr_real_memory_fd(const struct fpr_real_memory *memory)
{
    return memory->fd;
}

void fpr_real_memory_counters(const struct fpr_real_memory *memory, uint64_t now_ns,
                              struct fpr_host_counters *out)
{
    fpr_map_counters(&memory->map, now_ns, out);
}

uint64_t fpr_real_memory_resident_bytes(const struct fpr_real_memory *memory)
{
    return memory->map.resident_pages << FPR_PAGE_SHIFT;
}

const struct fpr_histogram *fpr_real_memory_fault_latency(const struct fpr_real_memory *memory)
{
    return &memory->map.fault_latency;
}

int fpr_real_memory_read(struct fpr_real_memory *memory, uint64_t pfn, uint64_t count, uint8_t *out)
{
    int status = fpr_map_read(&memory->map, pfn, count, out);
    const struct fpr_real_mapping *mapping =
        fpr_real_mapping(memory, pfn << FPR_PAGE_SHIFT, count << FPR_PAGE_SHIFT);

    while (status == FPR_OK && count > 0) {
        uint64_t part = count < FPR_LOOK_PAGES ? count : FPR_LOOK_PAGES;

        status =
            fpr_real_look(memory, fpr_real_address(memory, mapping, pfn << FPR_PAGE_SHIFT), part);
        for (uint64_t i = 0; i < part && status == FPR_OK; i++)
            out[i] = memory->looked[i] & 1 ? (out[i] == 2 ? 2 : 1) : 0;
        out += part;
        pfn += part;
        count -= part;
    }
    return status;
}
