/* Private to the C code: what the device's sides of the split and the packed ring share. */
#ifndef FPR_RING_CHAIN_H
#define FPR_RING_CHAIN_H

#include "emulator/native/guest_memory.h"
#include "emulator/native/ring.h"

#define RING_NEXT 1u
#define RING_WRITE 2u
#define RING_INDIRECT 4u

/* One part: aligned in guest memory and in ours, wholly inside one region. */
enum fpr_ring_fault ring_map_part(const struct fpr_guest_memory *memory, uint64_t gpa,
                                  uint64_t bytes, uint64_t alignment, void **pointer);

/* Whether two spans share a byte. */
int ring_overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes);

void ring_chain_clear(struct fpr_chain *chain);

/* Append one descriptor. FPR_FAULT_TOO_LONG beyond the limit. */
enum fpr_ring_fault ring_append(const struct fpr_ring_layout *layout, struct fpr_chain *chain,
                                uint64_t addr, uint32_t len, uint32_t flags);

/* Check the descriptor that points to an indirect table (VIRTIO 2.7.5.3, 2.8.7) and note the table
 * in the chain. *direct is the table where it is contiguous and aligned in our memory, else NULL:
 * it may lie at any address, over region boundaries. */
enum fpr_ring_fault ring_open_table(const struct fpr_guest_memory *memory,
                                    const struct fpr_ring_layout *layout, uint64_t addr,
                                    uint32_t len, struct fpr_chain *chain, const void **direct);

/* Count a chain that was taken. */
void ring_count(struct fpr_ring_counters *counters, const struct fpr_chain *chain);

#endif
