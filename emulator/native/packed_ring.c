/* The device's side of a packed virtqueue. */
#include "emulator/native/packed_ring.h"

#include "emulator/native/packed_layout.h"
#include "emulator/native/ring_chain.h"
#include "emulator/native/status.h"

#define KNOWN_FLAGS (PACKED_NEXT | PACKED_WRITE | PACKED_INDIRECT | PACKED_MARKS)

static int broken(struct fpr_packed_ring *ring, enum fpr_ring_fault fault)
{
    ring->fault = fault;
    return FPR_RING_BROKEN;
}

static int event_idx(const struct fpr_packed_ring *ring)
{
    return (ring->layout.flags & FPR_RING_EVENT_IDX) != 0;
}

int fpr_packed_part_bytes(uint32_t size, uint64_t *descriptors, uint64_t *driver, uint64_t *device)
{
    *descriptors = sizeof(struct packed_desc) * (uint64_t)size;
    *driver = sizeof(struct packed_event);
    *device = sizeof(struct packed_event);
    return FPR_OK;
}

int fpr_packed_ring_remap(struct fpr_packed_ring *ring, const struct fpr_guest_memory *memory)
{
    const struct fpr_ring_layout *at = &ring->layout;
    void *table, *driver, *device;
    enum fpr_ring_fault fault;

    fault = ring_map_part(memory, at->descriptors_gpa, 16 * (uint64_t)at->size, 16, &table);
    if (fault == FPR_FAULT_NONE)
        fault = ring_map_part(memory, at->driver_gpa, sizeof(struct packed_event), 4, &driver);
    if (fault == FPR_FAULT_NONE)
        fault = ring_map_part(memory, at->device_gpa, sizeof(struct packed_event), 4, &device);
    if (fault != FPR_FAULT_NONE)
        return broken(ring, fault);
    ring->table = table;
    ring->driver = driver;
    ring->device = device;
    return FPR_OK;
}

/* Whether the ring itself says that more of it was used than (position, wrap). The device uses
 * chains in the order of the ring, so from there on nothing may bear the mark of this lap, and the
 * middle of a chain is no place to start: its descriptors, left over from a chain that is done,
 * look available. Behind the head of such a chain only the place where the device slept last tells;
 * what it may hold while it sleeps are statistics, which are readable. */
static int used_further(const struct fpr_packed_ring *ring, uint16_t position, uint16_t wrap)
{
    uint32_t size = ring->layout.size;
    uint16_t before = packed_load16(&ring->table[(position ? position : size) - 1].flags);
    uint16_t first = packed_load16(&ring->table[position].flags);
    uint16_t here = (uint16_t)(position | wrap << 15);

    if (before & PACKED_NEXT && packed_is_avail(before, position ? wrap : !wrap))
        return 1;
    if (event_idx(ring) && first & PACKED_WRITE && packed_is_avail(first, wrap) &&
        packed_load16(&ring->device->flags) == PACKED_EVENT_ONE &&
        packed_load16(&ring->device->position) != here)
        return 1;
    for (uint32_t i = 0; i < size; i++) {
        if (packed_is_used(packed_load16(&ring->table[position].flags), wrap))
            return 1;
        packed_advance(&position, &wrap, 1, size);
    }
    return 0;
}

int fpr_packed_ring_start(struct fpr_packed_ring *ring, const struct fpr_guest_memory *memory,
                          const struct fpr_ring_layout *layout, uint32_t base)
{
    struct fpr_packed_ring fresh = {.layout = *layout, .undecided = base == 0};

    *ring = fresh;
    if (layout->size == 0 || layout->size > FPR_RING_SIZE_MAX)
        return broken(ring, FPR_FAULT_SIZE);
    if (base == 0)
        base = FPR_PACKED_FRESH;
    ring->avail = base & 0x7fff;
    ring->avail_wrap = base >> 15 & 1;
    ring->used = base >> 16 & 0x7fff;
    ring->used_wrap = base >> 31 & 1;
    if (ring->avail >= layout->size || ring->used >= layout->size)
        return broken(ring, FPR_FAULT_POSITION);
    if (fpr_packed_ring_remap(ring, memory) != FPR_OK)
        return FPR_RING_BROKEN;
    if (!used_further(ring, ring->used, ring->used_wrap) &&
        !(ring->undecided && packed_is_avail(packed_load16(&ring->table[0].flags), 0)))
        return FPR_OK;
    if (!ring->undecided || used_further(ring, 0, 0))
        return broken(ring, FPR_FAULT_STALE_BASE);
    ring->undecided = ring->avail_wrap = ring->used_wrap = 0;
    return FPR_OK;
}

int fpr_packed_ring_overlaps(const struct fpr_packed_ring *ring)
{
    const struct fpr_ring_layout *at = &ring->layout;
    uint64_t table = 16 * (uint64_t)at->size, event = sizeof(struct packed_event);

    return ring_overlap(at->descriptors_gpa, table, at->driver_gpa, event) ||
           ring_overlap(at->descriptors_gpa, table, at->device_gpa, event) ||
           ring_overlap(at->driver_gpa, event, at->device_gpa, event);
}

/* Count the descriptors of the next chain, and check that each is available (VIRTIO 2.8.15): the
 * first becomes so last, but a hostile driver's need not. FPR_EMPTY: not yet. */
static int measure(struct fpr_packed_ring *ring, uint32_t *length)
{
    uint16_t position = ring->avail, wrap = ring->avail_wrap, flags;

    for (*length = 0;;) {
        if (*length == ring->layout.size)
            return broken(ring, FPR_FAULT_TOO_LONG);
        flags = packed_load16_acquire(&ring->table[position].flags);
        if (ring->undecided && packed_is_avail(flags, 0))
            wrap = ring->avail_wrap = ring->used_wrap = 0;
        if (!packed_is_avail(flags, wrap))
            return FPR_EMPTY;
        ring->undecided = 0;
        ++*length;
        if (flags & PACKED_INDIRECT || !(flags & PACKED_NEXT))
            return FPR_OK;
        packed_advance(&position, &wrap, 1, ring->layout.size);
    }
}

/* All entries of a table are its chain, and only WRITE counts in them (VIRTIO 2.8.7). */
static int take_table(struct fpr_packed_ring *ring, const struct fpr_guest_memory *memory,
                      uint64_t addr, uint32_t len, struct fpr_chain *chain)
{
    const void *table;
    enum fpr_ring_fault fault = ring_open_table(memory, &ring->layout, addr, len, chain, &table);

    if (fault != FPR_FAULT_NONE)
        return broken(ring, fault);
    ring->counters.tables++;
    for (uint32_t i = 0; i < len / 16; i++) {
        const struct packed_desc *desc = (const struct packed_desc *)table + i;
        struct packed_desc copy;

        if (!table) {
            if (fpr_guest_read(memory, addr + 16 * (uint64_t)i, &copy, sizeof(copy)) != FPR_OK)
                return broken(ring, FPR_FAULT_TABLE_OUTSIDE);
            desc = &copy;
        }
        fault = ring_append(
            &ring->layout, chain, le64toh(__atomic_load_n(&desc->addr, __ATOMIC_RELAXED)),
            le32toh(__atomic_load_n(&desc->len, __ATOMIC_RELAXED)), packed_load16(&desc->flags));
        if (fault != FPR_FAULT_NONE)
            return broken(ring, fault);
    }
    return FPR_OK;
}

/* Copy `length` descriptors from the next one on. Their flags may have changed since they were
 * measured: what is copied here is what counts, and no more than was measured is taken. */
static int take_list(struct fpr_packed_ring *ring, const struct fpr_guest_memory *memory,
                     uint32_t length, struct fpr_chain *chain)
{
    uint16_t position = ring->avail, wrap = ring->avail_wrap, id = 0;

    for (uint32_t i = 0; i < length; i++) {
        const struct packed_desc *desc = &ring->table[position];
        uint64_t addr = le64toh(__atomic_load_n(&desc->addr, __ATOMIC_RELAXED));
        uint32_t len = le32toh(__atomic_load_n(&desc->len, __ATOMIC_RELAXED));
        uint16_t flags = packed_load16(&desc->flags);
        enum fpr_ring_fault fault;

        id = packed_load16(&desc->id);
        if (flags & ~KNOWN_FLAGS)
            ring->counters.unknown_flags++;
        if (flags & PACKED_INDIRECT) {
            /* VIRTIO 2.8.19: a table is the whole of its chain. */
            if (length > 1 || flags & PACKED_NEXT)
                return broken(ring, FPR_FAULT_TABLE_IN_LIST);
            chain->id = id | (uint32_t)1 << 16;
            return take_table(ring, memory, addr, len, chain);
        }
        fault = ring_append(&ring->layout, chain, addr, len, flags);
        if (fault != FPR_FAULT_NONE)
            return broken(ring, fault);
        packed_advance(&position, &wrap, 1, ring->layout.size);
    }
    chain->id = id | length << 16; /* VIRTIO 2.8.6: the last one's */
    return FPR_OK;
}

int fpr_packed_ring_pop(struct fpr_packed_ring *ring, const struct fpr_guest_memory *memory,
                        struct fpr_chain *chain)
{
    uint32_t length;
    int status;

    if (ring->fault != FPR_FAULT_NONE)
        return FPR_RING_BROKEN;
    status = measure(ring, &length);
    if (status != FPR_OK)
        return status;
    ring_chain_clear(chain);
    status = take_list(ring, memory, length, chain);
    if (status != FPR_OK)
        return status;
    ring->last_avail = ring->avail;
    ring->last_wrap = ring->avail_wrap;
    packed_advance(&ring->avail, &ring->avail_wrap, length, ring->layout.size);
    ring_count(&ring->counters, chain);
    return FPR_OK;
}

int fpr_packed_ring_unpop(struct fpr_packed_ring *ring)
{
    ring->avail = ring->last_avail;
    ring->avail_wrap = ring->last_wrap;
    return FPR_OK;
}

/* A process that is killed leaves its writes in program order: before and after the mark, the note
 * tells its successor where to look whether the mark was made. */
static void note_intent(struct fpr_packed_note *note, uint16_t used, uint16_t wrap)
{
    note->used = used;
    note->used_wrap = (uint8_t)wrap;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void note_done(struct fpr_packed_note *note)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    note->old_used = note->used;
    note->old_used_wrap = note->used_wrap;
}

int fpr_packed_ring_push(struct fpr_packed_ring *ring, uint32_t id, uint32_t written)
{
    struct packed_desc *desc = &ring->table[ring->used];
    uint32_t length = id >> 16;
    uint16_t flags = ring->used_wrap ? PACKED_MARKS : 0;

    if (ring->fault != FPR_FAULT_NONE)
        return FPR_RING_BROKEN;
    if (length == 0 || length > ring->layout.size)
        return FPR_BAD_ARGUMENT;
    packed_advance(&ring->used, &ring->used_wrap, length, ring->layout.size);
    if (ring->note)
        note_intent(ring->note, ring->used, ring->used_wrap);
    desc->id = htole16((uint16_t)id);
    desc->len = htole32(written); /* reserved, 0, where nothing was written */
    /* Release: whoever sees the flags sees the rest, and the effect of the request. */
    packed_store16_release(&desc->flags, flags | (written ? PACKED_WRITE : 0));
    if (ring->note)
        note_done(ring->note);
    ring->pushed += length;
    return FPR_OK;
}

int fpr_packed_ring_should_notify(struct fpr_packed_ring *ring, uint32_t *notify)
{
    uint32_t pushed = ring->pushed;

    *notify = 0;
    if (ring->fault != FPR_FAULT_NONE)
        return FPR_RING_BROKEN;
    if (pushed == 0)
        return FPR_OK;
    ring->pushed = 0;
    /* The used descriptors must be visible before the driver's wish is read. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    *notify = packed_need_event(ring->driver, event_idx(ring), ring->layout.size, ring->used,
                                ring->used_wrap, pushed);
    if (*notify)
        ring->counters.notifications++;
    else
        ring->counters.suppressed++;
    return FPR_OK;
}

int fpr_packed_ring_disable_kicks(struct fpr_packed_ring *ring)
{
    packed_store16(&ring->device->flags, PACKED_EVENT_DISABLE);
    return FPR_OK;
}

int fpr_packed_ring_enable_kicks(struct fpr_packed_ring *ring, uint32_t *more)
{
    uint32_t length;
    int status;

    *more = 0;
    if (event_idx(ring)) {
        packed_store16(&ring->device->position, (uint16_t)(ring->avail | ring->avail_wrap << 15));
        packed_store16_release(&ring->device->flags, PACKED_EVENT_ONE);
    } else {
        packed_store16(&ring->device->flags, PACKED_EVENT_ENABLE);
    }
    /* The driver fills the ring and then looks at our wish; we do it the other way round. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (ring->fault != FPR_FAULT_NONE)
        return FPR_RING_BROKEN;
    status = measure(ring, &length);
    *more = status == FPR_OK;
    return status == FPR_EMPTY ? FPR_OK : status;
}

int fpr_packed_ring_base(const struct fpr_packed_ring *ring, uint32_t *base)
{
    *base = ring->avail | (uint32_t)ring->avail_wrap << 15 | (uint32_t)ring->used << 16 |
            (uint32_t)ring->used_wrap << 31;
    return FPR_OK;
}
