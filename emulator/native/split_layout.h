/* Private to the C code: the wire layout of a split virtqueue (VIRTIO 2.7), little-endian. */
#ifndef FPR_SPLIT_LAYOUT_H
#define FPR_SPLIT_LAYOUT_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>

#define SPLIT_NEXT 1u
#define SPLIT_WRITE 2u
#define SPLIT_INDIRECT 4u

#define SPLIT_NO_INTERRUPT 1u /* available ring's flags */
#define SPLIT_NO_NOTIFY 1u    /* used ring's flags */

struct split_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};

struct split_used_elem {
    uint32_t id;
    uint32_t len;
};

/* Both end in a 16-bit event index, which lies behind the entries. */
struct split_avail {
    uint16_t flags;
    uint16_t idx;
    uint16_t head[];
};

struct split_used {
    uint16_t flags;
    uint16_t idx;
    struct split_used_elem elem[];
};

_Static_assert(sizeof(struct split_desc) == 16, "VIRTIO 2.7.5");
_Static_assert(offsetof(struct split_desc, len) == 8, "VIRTIO 2.7.5");
_Static_assert(offsetof(struct split_desc, flags) == 12, "VIRTIO 2.7.5");
_Static_assert(offsetof(struct split_desc, next) == 14, "VIRTIO 2.7.5");
_Static_assert(offsetof(struct split_avail, idx) == 2, "VIRTIO 2.7.6");
_Static_assert(offsetof(struct split_avail, head) == 4, "VIRTIO 2.7.6");
_Static_assert(sizeof(struct split_used_elem) == 8, "VIRTIO 2.7.8");
_Static_assert(offsetof(struct split_used_elem, len) == 4, "VIRTIO 2.7.8");
_Static_assert(offsetof(struct split_used, idx) == 2, "VIRTIO 2.7.8");
_Static_assert(offsetof(struct split_used, elem) == 4, "VIRTIO 2.7.8");

static inline uint64_t split_table_bytes(uint32_t size)
{
    return 16 * (uint64_t)size;
}

/* A legacy mapping may end before the event index: it counts only where it is used. */
static inline uint64_t split_avail_bytes(uint32_t size, int event_idx)
{
    return 4 + 2 * (uint64_t)size + (event_idx ? 2 : 0);
}

static inline uint64_t split_used_bytes(uint32_t size, int event_idx)
{
    return 4 + 8 * (uint64_t)size + (event_idx ? 2 : 0);
}

static inline uint16_t *split_used_event(struct split_avail *avail, uint32_t size)
{
    return &avail->head[size];
}

static inline uint16_t *split_avail_event(struct split_used *used, uint32_t size)
{
    return (uint16_t *)&used->elem[size];
}

/* Each field of the other side is read once: a relaxed atomic load is never repeated. */
static inline uint16_t load16(const uint16_t *field)
{
    return le16toh(__atomic_load_n(field, __ATOMIC_RELAXED));
}

static inline uint16_t load16_acquire(const uint16_t *field)
{
    return le16toh(__atomic_load_n(field, __ATOMIC_ACQUIRE));
}

static inline void store16(uint16_t *field, uint16_t value)
{
    __atomic_store_n(field, htole16(value), __ATOMIC_RELAXED);
}

static inline void store16_release(uint16_t *field, uint16_t value)
{
    __atomic_store_n(field, htole16(value), __ATOMIC_RELEASE);
}

static inline struct split_desc load_desc(const struct split_desc *from)
{
    struct split_desc desc = {
        .addr = le64toh(__atomic_load_n(&from->addr, __ATOMIC_RELAXED)),
        .len = le32toh(__atomic_load_n(&from->len, __ATOMIC_RELAXED)),
        .flags = load16(&from->flags),
        .next = load16(&from->next),
    };
    return desc;
}

static inline void store_desc(struct split_desc *to, uint64_t addr, uint32_t len, uint16_t flags,
                              uint16_t next)
{
    to->addr = htole64(addr);
    to->len = htole32(len);
    to->flags = htole16(flags);
    to->next = htole16(next);
}

/* VIRTIO 2.7.7: must the other side be told, now that the index went from old to new, where it
 * asked to be told at event? */
static inline int split_need_event(uint16_t event, uint16_t new_index, uint16_t old_index)
{
    return (uint16_t)(new_index - event - 1) < (uint16_t)(new_index - old_index);
}

#endif
