/* Private to the trace parser: spans of text, numbers in them, and the fields of an event. */
#ifndef FPR_TRACE_FIELDS_H
#define FPR_TRACE_FIELDS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "emulator/native/trace_parser.h"

#define FPR_TRACE_FIELDS_READ (-1)

/* Bytes at .. end-1; nothing at or past `end` is ever read. */
struct fpr_span {
    const uint8_t *at;
    const uint8_t *end;
};

static inline int fpr_is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

static inline int fpr_span_is(const struct fpr_span *span, const char *word)
{
    size_t bytes = strlen(word);
    return (size_t)(span->end - span->at) == bytes && memcmp(span->at, word, bytes) == 0;
}

/* Digits from span->at on; moves past them. 0 where there is none, or they exceed 64 bits. */
static inline int fpr_read_decimal(struct fpr_span *span, uint64_t *value)
{
    const uint8_t *at = span->at;
    uint64_t sum = 0;

    if (at == span->end || !fpr_is_digit(*at))
        return 0;
    for (; at < span->end && fpr_is_digit(*at); at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (sum > (UINT64_MAX - digit) / 10)
            return 0;
        sum = sum * 10 + digit;
    }
    span->at = at;
    *value = sum;
    return 1;
}

/* Decimal, or hexadecimal behind 0x. */
int fpr_read_number(struct fpr_span *span, uint64_t *value);

/* Fill the fields of *event, whose kind is set, from "key=value key=value". Returns
 * FPR_TRACE_FIELDS_READ, or the reason why there is no event. */
int fpr_trace_fields(const struct fpr_span *body, struct fpr_trace_event *event);

#endif
