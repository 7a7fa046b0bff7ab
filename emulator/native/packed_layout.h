/* Private to the C code: the wire layout of a packed virtqueue (VIRTIO 2.8), little-endian. */
#ifndef FPR_PACKED_LAYOUT_H
#define FPR_PACKED_LAYOUT_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>

#define PACKED_NEXT 1u
#define PACKED_WRITE 2u
#define PACKED_INDIRECT 4u
#define PACKED_AVAIL 0x80u
#define PACKED_USED 0x8000u
#define PACKED_MARKS (PACKED_AVAIL | PACKED_USED)

/* Flags of an event structure, its two lowest bits; 3 is reserved. */
#define PACKED_EVENT_ENABLE 0u
#define PACKED_EVENT_DISABLE 1u
#define PACKED_EVENT_ONE 2u /* with EVENT_IDX: where its descriptor is passed */

#define PACKED_WRAP 0x8000u /* beside a position */

struct packed_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t id;
    uint16_t flags;
};

struct packed_event {
    uint16_t position; /* | wrap counter << 15 */
    uint16_t flags;
};

_Static_assert(sizeof(struct packed_desc) == 16, "VIRTIO 2.8.13");
_Static_assert(offsetof(struct packed_desc, len) == 8, "VIRTIO 2.8.13");
_Static_assert(offsetof(struct packed_desc, id) == 12, "VIRTIO 2.8.13");
_Static_assert(offsetof(struct packed_desc, flags) == 14, "VIRTIO 2.8.13");
_Static_assert(sizeof(struct packed_event) == 4, "VIRTIO 2.8.14");
_Static_assert(offsetof(struct packed_event, flags) == 2, "VIRTIO 2.8.14");

static inline void packed_advance(uint16_t *position, uint16_t *wrap, uint32_t by, uint32_t size)
{
    uint32_t next = *position + by; /* by <= size <= 2^15 */

    if (next >= size) {
        next -= size;
        *wrap ^= 1;
    }
    *position = (uint16_t)next;
}

static inline int packed_is_avail(uint16_t flags, uint16_t wrap)
{
    return (flags & PACKED_MARKS) == (wrap ? PACKED_AVAIL : PACKED_USED);
}

static inline int packed_is_used(uint16_t flags, uint16_t wrap)
{
    return (flags & PACKED_MARKS) == (wrap ? PACKED_MARKS : 0);
}

static inline uint16_t packed_load16(const uint16_t *field)
{
    return le16toh(__atomic_load_n(field, __ATOMIC_RELAXED));
}

static inline uint16_t packed_load16_acquire(const uint16_t *field)
{
    return le16toh(__atomic_load_n(field, __ATOMIC_ACQUIRE));
}

static inline void packed_store16(uint16_t *field, uint16_t value)
{
    __atomic_store_n(field, htole16(value), __ATOMIC_RELAXED);
}

static inline void packed_store16_release(uint16_t *field, uint16_t value)
{
    __atomic_store_n(field, htole16(value), __ATOMIC_RELEASE);
}

/* VIRTIO 2.8.10: whether the other side wants to hear that the position went on to `now` by
 * `advanced` descriptors. An event of the other wrap counter lies a lap behind. */
static inline int packed_need_event(const struct packed_event *event, int event_idx, uint32_t size,
                                    uint16_t now, uint16_t wrap, uint32_t advanced)
{
    uint16_t flags = packed_load16_acquire(&event->flags) & 3;
    uint16_t field, offset;

    if (flags == PACKED_EVENT_DISABLE)
        return 0;
    if (flags != PACKED_EVENT_ONE || !event_idx || advanced >= size)
        return 1;
    field = packed_load16(&event->position);
    offset = field & (uint16_t)~PACKED_WRAP;
    if (offset >= size)
        return 1;
    if ((field >> 15) != wrap)
        offset = (uint16_t)(offset - size);
    return (uint16_t)(now - offset - 1) < (uint16_t)advanced;
}

#endif
