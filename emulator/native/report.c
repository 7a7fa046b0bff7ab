/* Judging the descriptors of a free page report. */
#include "emulator/native/report.h"

#include "emulator/native/status.h"

static void skip(struct fpr_report_account *account, int reason, uint64_t bytes)
{
    if (bytes > 0 || reason == FPR_SKIP_ZERO_LENGTH) {
        account->skipped_bytes[reason] += bytes;
        account->skipped_pieces[reason]++;
    }
}

/* Positions in the backing of a region, because that is where pages are counted. */
struct span {
    uint64_t start, end;
};

/* Replace *best where this guard, widened to whole pages, begins earlier in [start, end). */
static void nearest(const struct fpr_region *region, const struct fpr_range *guard, uint64_t start,
                    uint64_t end, struct span *best)
{
    uint64_t mask = region->page_bytes - 1;
    uint64_t first, last; /* inclusive, in the region */

    if (guard->bytes == 0 || guard->gpa > region->gpa + (region->size - 1))
        return;
    last = guard->bytes - 1 > UINT64_MAX - guard->gpa ? UINT64_MAX : guard->gpa + guard->bytes - 1;
    if (last < region->gpa)
        return;
    first = guard->gpa < region->gpa ? 0 : guard->gpa - region->gpa;
    last -= region->gpa;
    if (last > region->size - 1)
        last = region->size - 1;
    first = (region->offset + first) & ~mask;
    last = (region->offset + last) | mask;
    if (last < start || first >= end)
        return;
    first = first < start ? start : first;
    if (first < best->start || (first == best->start && last >= best->end)) {
        best->start = first;
        best->end = last >= end - 1 ? end : last + 1;
    }
}

/* The first stretch of [start, end) that must stay; start UINT64_MAX where there is none. */
static struct span nearest_guard(const struct fpr_region *region, const struct fpr_chain *chain,
                                 const struct fpr_report_rules *rules, uint64_t start, uint64_t end)
{
    struct span best = {UINT64_MAX, UINT64_MAX};
    struct fpr_range table = {chain->table_gpa, chain->table_bytes};

    nearest(region, &table, start, end, &best);
    for (uint32_t i = 0; i < rules->guard_count; i++)
        nearest(region, &rules->guards[i], start, end, &best);
    return best;
}

/* Judge `bytes` from gpa on, all in one region: at most one range comes out. Returns how many bytes
 * were dealt with. */
static uint64_t judge_piece(const struct fpr_region *region, const struct fpr_chain *chain,
                            const struct fpr_report_rules *rules, uint64_t gpa, uint64_t bytes,
                            struct fpr_range *range, uint32_t *count,
                            struct fpr_report_account *account)
{
    uint64_t mask = region->page_bytes - 1;
    uint64_t start = region->offset + (gpa - region->gpa);
    uint64_t head = -start & mask; /* up to the first page boundary */
    uint64_t whole;
    struct span guard;

    if (head >= bytes || ((bytes - head) & ~mask) == 0) {
        skip(account, FPR_SKIP_UNALIGNED, bytes);
        return bytes;
    }
    whole = (bytes - head) & ~mask;
    start += head;
    skip(account, FPR_SKIP_UNALIGNED, head);
    guard = nearest_guard(region, chain, rules, start, start + whole);
    if (guard.start == start) {
        skip(account, FPR_SKIP_RING, guard.end - start);
        return head + (guard.end - start);
    }
    if (guard.start != UINT64_MAX)
        whole = guard.start - start;
    range->gpa = gpa + head;
    range->bytes = whole;
    account->passed_bytes += whole;
    ++*count;
    return head + whole;
}

/* Whether a segment is settled without looking at memory. */
static int settled(const struct fpr_segment *segment, const struct fpr_report_rules *rules,
                   struct fpr_report_account *account)
{
    account->descriptors++;
    account->reported_bytes += segment->bytes;
    if (segment->bytes == 0) {
        skip(account, FPR_SKIP_ZERO_LENGTH, 0);
        return 1;
    }
    account->sizes[31 - __builtin_clz(segment->bytes)]++;
    if (!segment->writable)
        skip(account, FPR_SKIP_READABLE, segment->bytes);
    else if (rules->refuse < FPR_SKIP_REASONS)
        skip(account, (int)rules->refuse, segment->bytes);
    else if (segment->bytes - 1 > UINT64_MAX - segment->gpa)
        skip(account, FPR_SKIP_OUTSIDE, segment->bytes);
    else
        return 0;
    return 1;
}

int fpr_report_judge(const struct fpr_guest_memory *memory, const struct fpr_chain *chain,
                     const struct fpr_report_rules *rules, struct fpr_report_cursor *cursor,
                     struct fpr_range *ranges, uint32_t capacity, uint32_t *count,
                     uint32_t *finished, struct fpr_report_account *account)
{
    *count = 0;
    *finished = 0;
    if (capacity == 0)
        return FPR_BAD_ARGUMENT;
    while (cursor->segment < chain->count) {
        const struct fpr_segment *segment = &chain->segments[cursor->segment];

        if (cursor->done_bytes == 0) {
            if (*count == capacity) /* the next call begins with this segment */
                return FPR_OK;
            if (settled(segment, rules, account))
                cursor->done_bytes = segment->bytes;
        }
        while (cursor->done_bytes < segment->bytes) {
            uint64_t gpa = segment->gpa + cursor->done_bytes;
            uint64_t left = segment->bytes - cursor->done_bytes, here;
            uint32_t index;

            if (*count == capacity)
                return FPR_OK;
            if (fpr_region_find(memory, gpa, &index, &here) == FPR_OK) {
                here = here < left ? here : left;
                here = judge_piece(&memory->regions[index], chain, rules, gpa, here,
                                   &ranges[*count], count, account);
            } else {
                here = here && here < left ? here : left;
                skip(account, FPR_SKIP_OUTSIDE, here);
            }
            cursor->done_bytes += here;
        }
        cursor->segment++;
        cursor->done_bytes = 0;
    }
    *finished = 1;
    return FPR_OK;
}
