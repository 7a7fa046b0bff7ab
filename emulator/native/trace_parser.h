/* Text of the kernel's page-allocator trace events, as tracefs, `trace-cmd report` and `perf
 * script` write it, into packed records. The text is foreign: whatever is not understood is counted
 * by reason, never an error. */
#ifndef FPR_TRACE_PARSER_H
#define FPR_TRACE_PARSER_H

#include <stdint.h>

/* Kinds of a record: the events kmem:mm_page_*. */
#define FPR_TRACE_ALLOC 0        /* mm_page_alloc */
#define FPR_TRACE_FREE 1         /* mm_page_free */
#define FPR_TRACE_FREE_BATCHED 2 /* mm_page_free_batched */
#define FPR_TRACE_ZONE_LOCKED 3  /* mm_page_alloc_zone_locked: leaves the buddy lists */
#define FPR_TRACE_PCPU_DRAIN 4   /* mm_page_pcpu_drain: returns to the buddy lists */
#define FPR_TRACE_EXTFRAG 5      /* mm_page_alloc_extfrag: fallback to another type */
#define FPR_TRACE_KINDS 6

/* Why a line gave no record. */
#define FPR_TRACE_COMMENT 0       /* begins with '#', is blank, or trace-cmd's preamble */
#define FPR_TRACE_FOREIGN_LINE 1  /* has no [cpu] time: event: */
#define FPR_TRACE_FOREIGN_EVENT 2 /* an event of another name */
#define FPR_TRACE_BAD_TIME 3      /* a time that is not seconds with a fraction */
#define FPR_TRACE_MISSING_FIELD 4 /* the event ends before a field that it needs */
#define FPR_TRACE_BAD_NUMBER 5    /* a field that is no number, or out of range */
#define FPR_TRACE_LONG_LINE 6     /* of FPR_TRACE_LINE_BYTES or more */
#define FPR_TRACE_UNFINISHED 7    /* the text ends before the line does: numbers may be cut */
#define FPR_TRACE_LOST 8          /* a note that a CPU's buffer overflowed here */
#define FPR_TRACE_REASONS 9

/* The kernel cuts markers at a page: a page of the largest size, and the front of a line. */
#define FPR_TRACE_LINE_BYTES 66560

/* Bits of `flags`. */
#define FPR_TRACE_FAILED 1           /* an allocation that found no frame (pfn 0 or all ones) */
#define FPR_TRACE_REFILL 2           /* percpu_refill */
#define FPR_TRACE_CHANGE_OWNERSHIP 4 /* the page block took the type of the allocation */
#define FPR_TRACE_FRAGMENTING 8
#define FPR_TRACE_GFP_NUMERIC 16  /* gfp came (partly) as a number, read as Linux 6.1 does */
#define FPR_TRACE_IRQS_OFF 32     /* context: interrupts were off */
#define FPR_TRACE_NEED_RESCHED 64 /* context: another task was waiting for the CPU */

/* Bits of `gfp`, independent of the kernel's version. */
#define FPR_GFP_DMA 1
#define FPR_GFP_HIGHMEM 2
#define FPR_GFP_DMA32 4
#define FPR_GFP_MOVABLE 8
#define FPR_GFP_RECLAIMABLE 16
#define FPR_GFP_HIGH 32
#define FPR_GFP_ATOMIC 64 /* __GFP_ATOMIC (Linux < 6.3), or the name GFP_ATOMIC */
#define FPR_GFP_DIRECT_RECLAIM 128
#define FPR_GFP_MEMALLOC 256
#define FPR_GFP_NOMEMALLOC 512
#define FPR_GFP_ZERO 1024

struct fpr_trace_event {
    int64_t time_ns;
    uint64_t pfn;
    uint32_t pid;  /* 0 where the text has none */
    uint32_t line; /* line of the text, from 1; UINT32_MAX beyond */
    uint16_t cpu;
    uint16_t gfp; /* mm_page_alloc only */
    uint8_t kind;
    uint8_t order;      /* extfrag: alloc_order */
    int8_t migratetype; /* extfrag: alloc_migratetype; -1 where the event has none */
    uint8_t flags;
    uint8_t fallback_order;      /* extfrag only, else 0 */
    int8_t fallback_migratetype; /* extfrag only, else -1 */
    uint8_t pageblock_order;     /* extfrag only, else 0 */
    uint8_t reserved[5];
};

/* A line that user space wrote into trace_marker. The text is text[offset .. offset+bytes) of the
 * chunk that was parsed. */
struct fpr_trace_marker {
    int64_t time_ns;
    uint64_t offset;
    uint32_t bytes;
    uint32_t line;
};

/* What has been read so far; all zero at the start. */
struct fpr_trace_state {
    uint64_t lines;
    uint64_t counts[FPR_TRACE_REASONS];
    uint64_t first_line[FPR_TRACE_REASONS]; /* of each reason; 0: none */
    uint64_t lost_events;       /* sum over the notes; a note without a number adds nothing */
    uint64_t entries_in_buffer; /* of the tracefs header; both 0 where it has none */
    uint64_t entries_written;
    uint32_t inside_long_line;
    uint32_t reserved;
};

/* Parse the lines in text[0..bytes). Stops before a line whose end is not in the text, and where an
 * array is full; *consumed says how far it got, and the caller passes the rest again. With `last`
 * non-zero the text ends here, and an unfinished line is counted and dropped. A chunk should hold
 * more than FPR_TRACE_LINE_BYTES, or be the last. FPR_BAD_ARGUMENT only where a pointer is NULL or
 * a capacity 0. */
int fpr_trace_parse(struct fpr_trace_state *state, const uint8_t *text, uint64_t bytes, int last,
                    struct fpr_trace_event *events, uint64_t events_capacity,
                    struct fpr_trace_marker *markers, uint64_t markers_capacity,
                    uint64_t *events_count, uint64_t *markers_count, uint64_t *consumed);

#endif
