#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "emulator/native/status.h"
#include "host_model/native/page_states.h"
#include "host_model/native/real_memory_private.h"

/* What the region lies in is mapped from here to there: whole pages of its kind. */
static uint64_t map_from(const struct fpr_real_memory *memory, uint32_t i)
{
    return memory->map.regions[i].gpa / memory->page_bytes * memory->page_bytes;
}

static uint64_t map_to(const struct fpr_real_memory *memory, uint32_t i)
{
    uint64_t end = memory->map.regions[i].gpa + memory->map.regions[i].bytes;

    return (end + memory->page_bytes - 1) / memory->page_bytes * memory->page_bytes;
}

static int open_file(struct fpr_real_memory *memory, uint64_t bytes)
{
    unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;

    if (memory->config.kind == FPR_MEMORY_HUGETLB)
        flags |= MFD_HUGETLB | FPR_HUGE_SHIFT << MFD_HUGE_SHIFT;
    memory->fd = memfd_create("fpr-guest", flags);
    if (memory->fd < 0 || ftruncate(memory->fd, (off_t)bytes) < 0)
        return FPR_SYSTEM;
    /* A file that shrinks under a mapping kills whoever touches it. */
    if (fcntl(memory->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
        return FPR_SYSTEM;
    return FPR_OK;
}

static int map_flags(const struct fpr_real_memory *memory)
{
    switch (memory->config.kind) {
    case FPR_MEMORY_ANONYMOUS:
        return MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    case FPR_MEMORY_HUGETLB_PRIVATE:
        return MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | FPR_HUGE_SHIFT << MAP_HUGE_SHIFT;
    default:
        return MAP_SHARED;
    }
}

/* Map [from, to) of guest memory, whose first region is this one, from mapping->offset on. */
static int map_span(struct fpr_real_memory *memory, struct fpr_real_mapping *mapping, uint64_t from,
                    uint64_t to)
{
    uint64_t start, bytes = to - from;

    /* Room for the span at the right place in its 2 MiB, and for a guard on both sides. */
    mapping->reserved_bytes = bytes + 2 * (uint64_t)FPR_HUGE_BYTES;
    mapping->reserved = mmap(NULL, mapping->reserved_bytes, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping->reserved == MAP_FAILED) {
        mapping->reserved = NULL;
        return FPR_SYSTEM;
    }
    start = (uint64_t)mapping->reserved + FPR_PAGE_BYTES;
    start += (from - start) % FPR_HUGE_BYTES;
    mapping->base = mmap((void *)start, bytes, PROT_READ | PROT_WRITE,
                         map_flags(memory) | MAP_FIXED, memory->fd, (off_t)mapping->offset);
    if (mapping->base == MAP_FAILED)
        return FPR_SYSTEM;
    /* EINVAL: a kernel that knows no huge pages gives none, which is fine with both. */
    if (!fpr_real_hugetlb(memory) &&
        madvise(mapping->base, bytes, memory->config.thp ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) < 0 &&
        errno != EINVAL)
        return FPR_SYSTEM;
    return FPR_OK;
}

/* The first region from `first` on that shares no page with the one before it. */
static uint32_t span_end(const struct fpr_real_memory *memory, uint32_t first)
{
    uint32_t end = first + 1;

    while (end < memory->map.region_count && map_from(memory, end) < map_to(memory, end - 1))
        end++;
    return end;
}

static int map_all(struct fpr_real_memory *memory)
{
    uint64_t file_end = 0;
    uint32_t first, end;
    int status = FPR_OK;

    for (first = 0; first < memory->map.region_count; first = end) {
        uint64_t from = map_from(memory, first), offset;

        end = span_end(memory, first);
        offset = file_end + (from - file_end) % FPR_HUGE_BYTES;
        for (uint32_t i = first; i < end; i++)
            memory->mappings[i].offset = offset + (memory->map.regions[i].gpa - from);
        file_end = offset + (map_to(memory, end - 1) - from);
    }
    if (memory->config.kind == FPR_MEMORY_MEMFD || memory->config.kind == FPR_MEMORY_HUGETLB)
        status = open_file(memory, file_end);
    for (first = 0; first < memory->map.region_count && status == FPR_OK; first = end) {
        struct fpr_real_mapping *mapping = &memory->mappings[first];
        uint64_t from = map_from(memory, first), edge = memory->map.regions[first].gpa - from;

        end = span_end(memory, first);
        mapping->offset -= edge;
        status = map_span(memory, mapping, from, map_to(memory, end - 1));
        mapping->offset += edge;
        if (status != FPR_OK)
            break;
        mapping->base += edge;
        for (uint32_t i = first + 1; i < end; i++)
            memory->mappings[i].base =
                mapping->base + (memory->map.regions[i].gpa - memory->map.regions[first].gpa);
    }
    return status;
}

/* Whether the method can be tried on memory of this kind. */
static bool suits(uint32_t kind, uint32_t method)
{
    switch (kind) {
    case FPR_MEMORY_ANONYMOUS:
        return method == FPR_DISCARD_DONTNEED || method == FPR_DISCARD_FREE;
    case FPR_MEMORY_MEMFD:
        return method <= FPR_DISCARD_PUNCH_HOLE;
    case FPR_MEMORY_HUGETLB:
        /* MADV_DONTNEED only hides them from mincore(), and frees none. */
        return method == FPR_DISCARD_REMOVE || method == FPR_DISCARD_PUNCH_HOLE;
    case FPR_MEMORY_HUGETLB_PRIVATE:
        return method == FPR_DISCARD_DONTNEED;
    default:
        return false;
    }
}

int fpr_real_memory_create(const struct fpr_real_memory_config *config,
                           const struct fpr_memory_region *regions, uint32_t count,
                           struct fpr_real_memory **out)
{
    struct fpr_real_memory *memory;
    int status, error;

    *out = NULL;
    if (!suits(config->kind, config->method))
        return FPR_BAD_ARGUMENT;
    memory = calloc(1, sizeof *memory);
    if (memory == NULL)
        return FPR_HOST_MEMORY;
    memory->fd = -1;
    memory->config = *config;
    memory->page_bytes = fpr_real_hugetlb(memory) ? FPR_HUGE_BYTES : FPR_PAGE_BYTES;
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

int fpr_real_settle(struct fpr_real_memory *memory, uint64_t gpa, uint64_t bytes, uint64_t now_ns)
{
    const struct fpr_real_mapping *mapping = fpr_real_mapping(memory, gpa, bytes);
    const uint8_t *at = fpr_real_address(memory, mapping, gpa);
    uint64_t page = gpa >> FPR_PAGE_SHIFT, left = bytes >> FPR_PAGE_SHIFT;

    while (left > 0) {
        struct fpr_chunk_range range = fpr_map_cut(page, left);
        uint64_t gone[FPR_PAGE_WORDS] = {0};

        if (memory->map.state[range.chunk] & FPR_MAP_LAZY) {
            int status = fpr_real_look(memory, at, range.count);

            if (status != FPR_OK)
                return status;
            for (uint32_t i = 0; i < range.count; i++)
                if (!(memory->looked[i] & 1))
                    gone[(range.first + i) / 64] |= (uint64_t)1 << ((range.first + i) % 64);
            fpr_map_drop_lazy_in(&memory->map, range.chunk, gone, now_ns);
        }
        at += (uint64_t)range.count << FPR_PAGE_SHIFT;
        page += range.count;
        left -= range.count;
    }
    return FPR_OK;
}

int fpr_real_memory_settle(struct fpr_real_memory *memory, uint64_t now_ns)
{
    int status = FPR_OK;

    for (uint32_t i = 0; i < memory->map.region_count && status == FPR_OK; i++)
        status = fpr_real_settle(memory, memory->map.regions[i].gpa, memory->map.regions[i].bytes,
                                 now_ns);
    return status;
}

int fpr_real_memory_press(struct fpr_real_memory *memory, uint64_t pfn, uint64_t count)
{
    uint64_t limit = FPR_HOST_MAX_GPA >> FPR_PAGE_SHIFT;
    const struct fpr_real_mapping *mapping;

    if (pfn > limit || count > limit)
        return FPR_OUTSIDE;
    mapping = fpr_real_mapping(memory, pfn << FPR_PAGE_SHIFT, count << FPR_PAGE_SHIFT);
    if (mapping == NULL)
        return FPR_OUTSIDE;
    return madvise(fpr_real_address(memory, mapping, pfn << FPR_PAGE_SHIFT),
                   count << FPR_PAGE_SHIFT, MADV_PAGEOUT) < 0
               ? FPR_SYSTEM
               : FPR_OK;
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

void fpr_real_memory_report_to(struct fpr_real_memory *memory, struct fpr_footprint *footprint)
{
    memory->map.footprint = footprint;
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

int fpr_real_memory_count_states(const struct fpr_real_memory *memory, const uint64_t *free_bits,
                                 const uint64_t *reported, uint64_t words, uint64_t row_pages,
                                 uint64_t *counts, uint64_t rows)
{
    return fpr_map_count_states(&memory->map, free_bits, reported, words, row_pages, counts, rows);
}
