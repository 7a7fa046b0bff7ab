/* What the device's sides of the split and the packed ring share. */
#include "emulator/native/ring_chain.h"

#include <stddef.h>

#include "emulator/native/status.h"

enum fpr_ring_fault ring_map_part(const struct fpr_guest_memory *memory, uint64_t gpa,
                                  uint64_t bytes, uint64_t alignment, void **pointer)
{
    uint8_t *bytes_at;
    uint64_t contiguous;

    if (gpa % alignment)
        return FPR_FAULT_ALIGNMENT;
    if (fpr_translate(memory, gpa, bytes, &bytes_at, &contiguous) != FPR_OK || contiguous < bytes)
        return FPR_FAULT_PART_OUTSIDE;
    if ((uintptr_t)bytes_at % (alignment < 8 ? alignment : 8))
        return FPR_FAULT_ALIGNMENT;
    *pointer = bytes_at;
    return FPR_FAULT_NONE;
}

int ring_overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a <= b ? b - a < a_bytes : a - b < b_bytes;
}

void ring_chain_clear(struct fpr_chain *chain)
{
    chain->count = 0;
    chain->bytes = 0;
    chain->table_gpa = 0;
    chain->table_bytes = 0;
}

enum fpr_ring_fault ring_append(const struct fpr_ring_layout *layout, struct fpr_chain *chain,
                                uint64_t addr, uint32_t len, uint32_t flags)
{
    uint32_t limit = layout->size > FPR_CHAIN_MAX ? layout->size : FPR_CHAIN_MAX;

    if (chain->count >= limit || chain->count >= chain->capacity)
        return FPR_FAULT_TOO_LONG;
    chain->segments[chain->count++] = (struct fpr_segment){addr, len, (flags & RING_WRITE) != 0};
    chain->bytes += len;
    return FPR_FAULT_NONE;
}

enum fpr_ring_fault ring_open_table(const struct fpr_guest_memory *memory,
                                    const struct fpr_ring_layout *layout, uint64_t addr,
                                    uint32_t len, struct fpr_chain *chain, const void **direct)
{
    uint8_t *pointer;
    uint64_t contiguous;

    if (!(layout->flags & FPR_RING_INDIRECT))
        return FPR_FAULT_NOT_NEGOTIATED;
    if (len == 0 || len % 16)
        return FPR_FAULT_TABLE_BYTES;
    if (!fpr_guest_inside(memory, addr, len))
        return FPR_FAULT_TABLE_OUTSIDE;
    fpr_translate(memory, addr, len, &pointer, &contiguous);
    *direct = contiguous == len && (uintptr_t)pointer % 8 == 0 ? pointer : NULL;
    chain->table_gpa = addr;
    chain->table_bytes = len;
    return FPR_FAULT_NONE;
}

void ring_count(struct fpr_ring_counters *counters, const struct fpr_chain *chain)
{
    counters->chains++;
    counters->descriptors += chain->count;
    if (chain->bytes > UINT32_MAX)
        counters->oversized_chains++;
    for (uint32_t i = 1; i < chain->count; i++) {
        if (chain->segments[i - 1].writable && !chain->segments[i].writable) {
            counters->readable_after_writable++;
            return;
        }
    }
}
