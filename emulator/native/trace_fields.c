#include "emulator/native/trace_fields.h"

#define NO_FRAME UINT64_MAX
#define ORDER_LIMIT 64                 /* larger than any order of any configuration */
#define TYPE_LIMIT 16                  /* larger than any migrate type */
#define FRAME_LIMIT (UINT64_MAX >> 12) /* an address has 64 bits, a frame at least 2^12 bytes */

/* Fields that were seen. */
#define SEEN_PFN 1u
#define SEEN_ORDER 2u
#define SEEN_TYPE 4u
#define SEEN_FALLBACK_ORDER 8u
#define SEEN_FALLBACK_TYPE 16u
#define SEEN_REFILL 32u
#define SEEN_GFP 64u

int fpr_read_number(struct fpr_span *span, uint64_t *value)
{
    const uint8_t *at = span->at;
    uint64_t sum = 0;
    int digits = 0;

    if (span->end - at < 3 || at[0] != '0' || (at[1] | 32) != 'x')
        return fpr_read_decimal(span, value);
    for (at += 2; at < span->end; at++, digits++) {
        uint8_t byte = *at, letter = byte | 32;
        if (fpr_is_digit(byte))
            sum = sum << 4 | (uint64_t)(byte - '0');
        else if (letter >= 'a' && letter <= 'f')
            sum = sum << 4 | (uint64_t)(letter - 'a' + 10);
        else
            break;
        if (digits == 16)
            return 0;
    }
    if (!digits)
        return 0;
    span->at = at;
    *value = sum;
    return 1;
}

static int whole_number(struct fpr_span value, uint64_t limit, uint64_t *out)
{
    return fpr_read_number(&value, out) && value.at == value.end && *out < limit;
}

static int small_number(struct fpr_span value, uint64_t limit, uint8_t *out)
{
    uint64_t number;
    if (!whole_number(value, limit, &number))
        return 0;
    *out = (uint8_t)number;
    return 1;
}

static int type_number(struct fpr_span value, int8_t *out)
{
    uint64_t number;
    if (fpr_span_is(&value, "-1")) {
        *out = -1;
        return 1;
    }
    if (!whole_number(value, TYPE_LIMIT, &number))
        return 0;
    *out = (int8_t)number;
    return 1;
}

static int flag(struct fpr_span value, uint8_t bit, uint8_t *flags)
{
    uint64_t number;
    if (!whole_number(value, 2, &number))
        return 0;
    *flags = (uint8_t)(number ? *flags | bit : *flags & ~bit);
    return 1;
}

/* What the names in the kernel's tables mean here (include/trace/events/mmflags.h and
 * include/linux/gfp_types.h of Linux 6.1; without underscores before 4.6). Names without effect on
 * placement are not listed. */
static uint16_t gfp_name(const struct fpr_span *name)
{
    static const struct {
        const char *name;
        uint16_t bits;
    } names[] = {
        {"GFP_HIGHUSER_MOVABLE", FPR_GFP_HIGHMEM | FPR_GFP_MOVABLE | FPR_GFP_DIRECT_RECLAIM},
        {"GFP_KERNEL", FPR_GFP_DIRECT_RECLAIM},
        {"__GFP_ZERO", FPR_GFP_ZERO},
        {"__GFP_RECLAIMABLE", FPR_GFP_RECLAIMABLE},
        {"__GFP_NOMEMALLOC", FPR_GFP_NOMEMALLOC},
        {"GFP_KERNEL_ACCOUNT", FPR_GFP_DIRECT_RECLAIM},
        {"GFP_NOFS", FPR_GFP_DIRECT_RECLAIM},
        {"GFP_NOIO", FPR_GFP_DIRECT_RECLAIM},
        {"GFP_USER", FPR_GFP_DIRECT_RECLAIM},
        {"GFP_HIGHUSER", FPR_GFP_HIGHMEM | FPR_GFP_DIRECT_RECLAIM},
        {"GFP_ATOMIC", FPR_GFP_HIGH | FPR_GFP_ATOMIC},
        {"GFP_TRANSHUGE",
         FPR_GFP_HIGHMEM | FPR_GFP_MOVABLE | FPR_GFP_NOMEMALLOC | FPR_GFP_DIRECT_RECLAIM},
        {"GFP_TRANSHUGE_LIGHT", FPR_GFP_HIGHMEM | FPR_GFP_MOVABLE | FPR_GFP_NOMEMALLOC},
        {"GFP_DMA", FPR_GFP_DMA},
        {"GFP_DMA32", FPR_GFP_DMA32},
        {"__GFP_DMA", FPR_GFP_DMA},
        {"__GFP_DMA32", FPR_GFP_DMA32},
        {"__GFP_HIGHMEM", FPR_GFP_HIGHMEM},
        {"__GFP_MOVABLE", FPR_GFP_MOVABLE},
        {"__GFP_HIGH", FPR_GFP_HIGH},
        {"__GFP_ATOMIC", FPR_GFP_ATOMIC},
        {"__GFP_MEMALLOC", FPR_GFP_MEMALLOC},
        {"__GFP_RECLAIM", FPR_GFP_DIRECT_RECLAIM},
        {"__GFP_DIRECT_RECLAIM", FPR_GFP_DIRECT_RECLAIM},
        {"GFP_TEMPORARY", FPR_GFP_RECLAIMABLE | FPR_GFP_DIRECT_RECLAIM},
        {"GFP_ZERO", FPR_GFP_ZERO},
        {"GFP_RECLAIMABLE", FPR_GFP_RECLAIMABLE},
        {"GFP_MOVABLE", FPR_GFP_MOVABLE},
        {"GFP_HIGH", FPR_GFP_HIGH},
        {"GFP_WAIT", FPR_GFP_DIRECT_RECLAIM},
        {"GFP_MEMALLOC", FPR_GFP_MEMALLOC},
        {"GFP_NOMEMALLOC", FPR_GFP_NOMEMALLOC},
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (fpr_span_is(name, names[i].name))
            return names[i].bits;
    return 0;
}

/* Bits as in include/linux/gfp_types.h of Linux 6.1; the lowest six never moved. */
static uint16_t gfp_bits(uint64_t number)
{
    uint16_t bits = (uint16_t)(number & 0x3f);

    if (number & 0x100)
        bits |= FPR_GFP_ZERO;
    if (number & 0x200)
        bits |= FPR_GFP_ATOMIC;
    if (number & 0x400)
        bits |= FPR_GFP_DIRECT_RECLAIM;
    if (number & 0x20000)
        bits |= FPR_GFP_MEMALLOC;
    if (number & 0x80000)
        bits |= FPR_GFP_NOMEMALLOC;
    return bits;
}

/* "GFP_KERNEL|__GFP_ZERO|0x1000000", "0xdc0", "none". An unknown name says nothing of placement. */
static int read_gfp(struct fpr_span value, struct fpr_trace_event *event)
{
    event->gfp = 0;
    while (value.at < value.end) {
        struct fpr_span part = {value.at, value.at};
        uint64_t number;

        while (part.end < value.end && *part.end != '|')
            part.end++;
        value.at = part.end < value.end ? part.end + 1 : part.end;
        if (part.at == part.end || !fpr_is_digit(*part.at)) {
            event->gfp |= gfp_name(&part);
            continue;
        }
        if (!whole_number(part, UINT64_MAX, &number))
            return 0;
        event->gfp |= gfp_bits(number);
        event->flags |= FPR_TRACE_GFP_NUMERIC;
    }
    return 1;
}

static int read_pfn(struct fpr_span value, struct fpr_trace_event *event)
{
    if (!fpr_read_number(&value, &event->pfn) || value.at != value.end)
        return 0;
    return event->pfn == NO_FRAME || event->pfn <= FRAME_LIMIT;
}

/* One field. 0 where its value is bad; an unknown key passes. */
static int read_field(const struct fpr_span *key, struct fpr_span value,
                      struct fpr_trace_event *event, unsigned *seen)
{
    switch (key->end - key->at) {
    case 3:
        if (!fpr_span_is(key, "pfn"))
            return 1;
        *seen |= SEEN_PFN;
        return read_pfn(value, event);
    case 5:
        if (!fpr_span_is(key, "order"))
            return 1;
        *seen |= SEEN_ORDER;
        return small_number(value, ORDER_LIMIT, &event->order);
    case 9:
        if (!fpr_span_is(key, "gfp_flags"))
            return 1;
        *seen |= SEEN_GFP;
        return read_gfp(value, event);
    case 11:
        if (fpr_span_is(key, "fragmenting"))
            return flag(value, FPR_TRACE_FRAGMENTING, &event->flags);
        if (fpr_span_is(key, "alloc_order")) {
            *seen |= SEEN_ORDER;
            return small_number(value, ORDER_LIMIT, &event->order);
        }
        if (!fpr_span_is(key, "migratetype"))
            return 1;
        *seen |= SEEN_TYPE;
        return type_number(value, &event->migratetype);
    case 13:
        if (!fpr_span_is(key, "percpu_refill"))
            return 1;
        *seen |= SEEN_REFILL;
        return flag(value, FPR_TRACE_REFILL, &event->flags);
    case 14:
        if (!fpr_span_is(key, "fallback_order"))
            return 1;
        *seen |= SEEN_FALLBACK_ORDER;
        return small_number(value, ORDER_LIMIT, &event->fallback_order);
    case 15:
        if (!fpr_span_is(key, "pageblock_order"))
            return 1;
        return small_number(value, ORDER_LIMIT, &event->pageblock_order);
    case 16:
        if (!fpr_span_is(key, "change_ownership"))
            return 1;
        return flag(value, FPR_TRACE_CHANGE_OWNERSHIP, &event->flags);
    case 17:
        if (!fpr_span_is(key, "alloc_migratetype"))
            return 1;
        *seen |= SEEN_TYPE;
        return type_number(value, &event->migratetype);
    case 20:
        if (!fpr_span_is(key, "fallback_migratetype"))
            return 1;
        *seen |= SEEN_FALLBACK_TYPE;
        return type_number(value, &event->fallback_migratetype);
    default:
        return 1;
    }
}

/* Fields that the event cannot do without. */
static unsigned needed(uint8_t kind)
{
    switch (kind) {
    case FPR_TRACE_FREE_BATCHED:
        return SEEN_PFN;
    case FPR_TRACE_FREE:
        return SEEN_PFN | SEEN_ORDER;
    case FPR_TRACE_EXTFRAG:
        return SEEN_PFN | SEEN_ORDER | SEEN_TYPE | SEEN_FALLBACK_ORDER | SEEN_FALLBACK_TYPE;
    default:
        return SEEN_PFN | SEEN_ORDER | SEEN_TYPE;
    }
}

int fpr_trace_fields(const struct fpr_span *body, struct fpr_trace_event *event)
{
    const uint8_t *at = body->at, *end = body->end;
    unsigned seen = 0;

    event->pfn = 0;
    event->gfp = 0;
    event->order = event->flags = event->fallback_order = event->pageblock_order = 0;
    event->migratetype = event->fallback_migratetype = -1;
    memset(event->reserved, 0, sizeof(event->reserved));
    while (at < end) {
        struct fpr_span key, value;

        while (at < end && (*at == ' ' || *at == '\t'))
            at++;
        key.at = at;
        while (at < end && *at != ' ' && *at != '=')
            at++;
        if (at == end || *at == ' ')
            continue;
        key.end = at;
        value.at = ++at;
        while (at < end && *at != ' ')
            at++;
        value.end = at > value.at && at[-1] == ',' ? at - 1 : at;
        if (!read_field(&key, value, event, &seen))
            return FPR_TRACE_BAD_NUMBER;
    }
    if (event->kind == FPR_TRACE_ALLOC && !(seen & SEEN_TYPE) && (seen & SEEN_GFP)) {
        event->migratetype = event->gfp & FPR_GFP_MOVABLE       ? 1
                             : event->gfp & FPR_GFP_RECLAIMABLE ? 2
                                                                : 0;
        seen |= SEEN_TYPE;
    }
    if ((seen & needed(event->kind)) != needed(event->kind))
        return FPR_TRACE_MISSING_FIELD;
    if (event->kind == FPR_TRACE_ZONE_LOCKED && !(seen & SEEN_REFILL) && event->order == 0)
        event->flags |= FPR_TRACE_REFILL; /* kernels without the field refilled with order 0 only */
    if (event->pfn == NO_FRAME || (event->pfn == 0 && event->kind == FPR_TRACE_ALLOC)) {
        event->pfn = 0;
        event->flags |= FPR_TRACE_FAILED;
    }
    return FPR_TRACE_FIELDS_READ;
}
