/* What pages of a guest are, seen from both sides, counted by row of guest memory: the data of a
 * map. The guest's side comes as bits, so that neither side knows the other. */
#ifndef FPR_PAGE_STATES_H
#define FPR_PAGE_STATES_H

#include "host_model/native/oracle.h"
#include "host_model/native/real_memory.h"
#include "host_model/native/residency.h"

#define FPR_PAGE_STATES 6
/* In this order, in `counts`. */
enum fpr_page_state_of_both {
    FPR_STATE_USED = 0,            /* used by the guest, resident */
    FPR_STATE_USED_ABSENT = 1,     /* used by the guest: not touched since, or swapped out */
    FPR_STATE_FREE_HELD = 2,       /* free, and the host still holds it */
    FPR_STATE_REPORTED_HELD = 3,   /* free and reported, and the host still holds it */
    FPR_STATE_FREE_GIVEN_BACK = 4, /* free, was resident at some time, and is not any more */
    FPR_STATE_FREE_UNTOUCHED = 5   /* free, and never was resident */
};

/* Bit pfn of `free_bits` and `reported`, of `words` 64-bit words each, says what the guest says of
 * a page. Row r has pages [r * row_pages, (r + 1) * row_pages), a multiple of 512; its counts are
 * counts[r * FPR_PAGE_STATES + state], pages that are no guest memory in none of them.
 * FPR_BAD_ARGUMENT: too few words or rows for the memory, or a row of no such size. */
int fpr_residency_count_states(const struct fpr_residency *host, const uint64_t *free_bits,
                               const uint64_t *reported, uint64_t words, uint64_t row_pages,
                               uint64_t *counts, uint64_t rows);
int fpr_oracle_count_states(const struct fpr_oracle *host, const uint64_t *free_bits,
                            const uint64_t *reported, uint64_t words, uint64_t row_pages,
                            uint64_t *counts, uint64_t rows);
int fpr_real_memory_count_states(const struct fpr_real_memory *host, const uint64_t *free_bits,
                                 const uint64_t *reported, uint64_t words, uint64_t row_pages,
                                 uint64_t *counts, uint64_t rows);

#endif
