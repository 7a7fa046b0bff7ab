/* The memory of a guest as its device sees it: a table of regions, and the one function through
 * which every guest-physical address becomes a host pointer. */
#ifndef FPR_GUEST_MEMORY_H
#define FPR_GUEST_MEMORY_H

#include <stdint.h>

struct fpr_region {
    uint64_t gpa;        /* guest-physical address of its first byte */
    uint64_t size;       /* bytes, not 0 */
    uint8_t *pointer;    /* where its first byte is in this process */
    uint64_t offset;     /* position of its first byte in its backing, where discards are aligned */
    uint64_t page_bytes; /* the unit in which its backing can give memory back; a power of two */
};

/* Regions ascend by gpa and do not overlap. */
struct fpr_guest_memory {
    struct fpr_region *regions;
    uint32_t count;
};

/* FPR_BAD_ARGUMENT where the table breaks its rules: empty or overlapping regions, a sum beyond
 * 2^64, a page size that is no power of two; *bad is the index of the first such region. */
int fpr_guest_memory_check(const struct fpr_guest_memory *memory, uint32_t *bad);

/* The region that holds gpa: its index, and how many bytes from gpa on lie in it. Where none does,
 * FPR_OUTSIDE, and *contiguous is the distance to the next region above (0: there is none). */
int fpr_region_find(const struct fpr_guest_memory *memory, uint64_t gpa, uint32_t *index,
                    uint64_t *contiguous);

/* The host pointer of gpa, and how many bytes from there on are contiguous, at most `bytes`.
 * FPR_OUTSIDE where no region holds gpa. No sum here can overflow. */
int fpr_translate(const struct fpr_guest_memory *memory, uint64_t gpa, uint64_t bytes,
                  uint8_t **pointer, uint64_t *contiguous);

/* Whether all `bytes` from gpa on lie in regions; not a status. */
int fpr_guest_inside(const struct fpr_guest_memory *memory, uint64_t gpa, uint64_t bytes);

/* Copy over region boundaries, every byte read or written once. FPR_OUTSIDE where some byte lies in
 * no region; then nothing is copied. */
int fpr_guest_read(const struct fpr_guest_memory *memory, uint64_t gpa, void *out, uint64_t bytes);
int fpr_guest_write(const struct fpr_guest_memory *memory, uint64_t gpa, const void *data,
                    uint64_t bytes);

#endif
