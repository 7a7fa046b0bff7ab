#include "guest_model/native/known_zero.h"

#include "guest_model/native/page.h"

#define WORD_PAGES 64u

int fpr_known_zero_begin(struct fpr_allocator *a, uint64_t *words, uint64_t length)
{
    if (length < (a->config.frames + WORD_PAGES - 1) / WORD_PAGES)
        return FPR_BAD_ARGUMENT;
    a->known_zero = words;
    return FPR_OK;
}

int fpr_known_zero_taken(const struct fpr_allocator *a)
{
    return a->took_zero;
}

/* The bits of a block in its first word; a block of more than 64 pages has whole words. */
static uint64_t mask(uint64_t pfn, uint32_t order)
{
    uint64_t pages = (uint64_t)1 << order;

    return pages >= WORD_PAGES ? ~(uint64_t)0 : ((1ull << pages) - 1) << pfn % WORD_PAGES;
}

static uint64_t words_of(uint32_t order)
{
    return order < 6 ? 1 : (uint64_t)1 << (order - 6);
}

void fpr_known_zero_add(struct fpr_allocator *a, uint64_t pfn, uint32_t order)
{
    for (uint64_t i = 0; i < words_of(order); i++)
        a->known_zero[pfn / WORD_PAGES + i] |= mask(pfn, order);
}

void fpr_known_zero_take(struct fpr_allocator *a, uint64_t pfn, uint32_t order)
{
    uint64_t bits = mask(pfn, order);

    a->took_zero = true;
    for (uint64_t i = 0; i < words_of(order); i++) {
        uint64_t *word = &a->known_zero[pfn / WORD_PAGES + i];

        a->took_zero &= (*word & bits) == bits;
        *word &= ~bits;
    }
}
