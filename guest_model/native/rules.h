/* What differs between versions of Linux; guest_model/allocator/rules.py says which has what. */
#ifndef FPR_RULES_H
#define FPR_RULES_H

#include <stdint.h>

enum fpr_pcp_sizing {
    FPR_PCP_FIXED = 0,       /* a batch */
    FPR_PCP_FREE_FACTOR = 1, /* drains double as frees go on */
    FPR_PCP_AUTO = 2,        /* refills, drains and the limit follow the demand */
};

enum fpr_pcp_drain {
    FPR_DRAIN_ROUND_ROBIN = 0, /* lists in turn, more of each the more are empty */
    FPR_DRAIN_FROM_FREED = 1,  /* the list that was freed to, then the next */
};

enum fpr_fallback_rule {
    FPR_MOVE_THEN_TEST = 0,
    FPR_TEST_THEN_MOVE = 1,
    FPR_CLAIM_OR_STEAL = 2,
};

enum fpr_relabel {
    FPR_RELABEL_NONE = 0,  /* lists and labels may disagree */
    FPR_RELABEL_FIRST = 1, /* a buddy of another type: its first page block follows */
    FPR_RELABEL_ALL = 2,   /* all of its page blocks do */
};

struct fpr_rules {
    uint8_t tails;           /* boot memory, put-back and moves go to the tail, not the head */
    uint8_t guards_reserves; /* highatomic and CMA page blocks merge with their own kind only */
    uint8_t pcp_top_order;   /* largest order on per-CPU lists, huge pages aside */
    uint8_t pcp_huge_lists;  /* 0 to 2 */
    uint8_t pcp_sizing, pcp_drain;
    uint8_t pcp_drains_in_batches; /* a large drain is cut into batches */
    uint8_t pcp_keeps_type;        /* pages go back with the type they were freed as */
    uint8_t fallback, relabel;
    uint8_t frees_reversed;       /* of a batch of pages that are freed, the last one goes first */
    uint8_t keeps_unlisted;       /* an unmapping leaves pages that wait for their LRU list */
    uint8_t highatomic_rounds_up; /* the reserve is 1 % rounded up to page blocks, or nothing */
    uint8_t labels_reserved;      /* page blocks with a reserved first frame are labelled at boot */
};

#endif
