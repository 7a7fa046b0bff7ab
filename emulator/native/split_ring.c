/* The device's side of a split virtqueue. */
#include "emulator/native/split_ring.h"

#include "emulator/native/ring_chain.h"
#include "emulator/native/split_layout.h"
#include "emulator/native/status.h"

#define KNOWN_FLAGS (SPLIT_NEXT | SPLIT_WRITE | SPLIT_INDIRECT)

static int broken(struct fpr_split_ring *ring, enum fpr_ring_fault fault)
{
    ring->fault = fault;
    return FPR_RING_BROKEN;
}

static int event_idx(const struct fpr_split_ring *ring)
{
    return (ring->layout.flags & FPR_RING_EVENT_IDX) != 0;
}

int fpr_split_part_bytes(uint32_t size, uint64_t *descriptors, uint64_t *driver, uint64_t *device)
{
    *descriptors = split_table_bytes(size);
    *driver = split_avail_bytes(size, 1);
    *device = split_used_bytes(size, 1);
    return FPR_OK;
}

int fpr_split_ring_remap(struct fpr_split_ring *ring, const struct fpr_guest_memory *memory)
{
    const struct fpr_ring_layout *at = &ring->layout;
    void *table, *avail, *used;
    enum fpr_ring_fault fault;

    fault = ring_map_part(memory, at->descriptors_gpa, split_table_bytes(at->size), 16, &table);
    if (fault == FPR_FAULT_NONE)
        fault = ring_map_part(memory, at->driver_gpa, split_avail_bytes(at->size, event_idx(ring)),
                              2, &avail);
    if (fault == FPR_FAULT_NONE)
        fault = ring_map_part(memory, at->device_gpa, split_used_bytes(at->size, event_idx(ring)),
                              4, &used);
    if (fault != FPR_FAULT_NONE)
        return broken(ring, fault);
    ring->table = table;
    ring->avail = avail;
    ring->used = used;
    return FPR_OK;
}

int fpr_split_ring_start(struct fpr_split_ring *ring, const struct fpr_guest_memory *memory,
                         const struct fpr_ring_layout *layout, uint16_t avail_base, uint64_t *taken)
{
    struct fpr_split_ring fresh = {
        .layout = *layout,
        .taken = taken,
        .next_avail = avail_base,
        .notify_once = 1,
    };
    int status;

    *ring = fresh;
    if (layout->size == 0 || layout->size > FPR_RING_SIZE_MAX ||
        (layout->size & (layout->size - 1)))
        return broken(ring, FPR_FAULT_SIZE);
    status = fpr_split_ring_remap(ring, memory);
    if (status != FPR_OK)
        return status;
    for (uint32_t i = 0; i < layout->size; i++)
        taken[i] = 0;
    ring->next_used = load16(&ring->used->idx);
    ring->notified = ring->next_used;
    return FPR_OK;
}

int fpr_split_ring_overlaps(const struct fpr_split_ring *ring)
{
    const struct fpr_ring_layout *at = &ring->layout;
    uint64_t table = split_table_bytes(at->size);
    uint64_t avail = split_avail_bytes(at->size, event_idx(ring));
    uint64_t used = split_used_bytes(at->size, event_idx(ring));

    return ring_overlap(at->descriptors_gpa, table, at->driver_gpa, avail) ||
           ring_overlap(at->descriptors_gpa, table, at->device_gpa, used) ||
           ring_overlap(at->driver_gpa, avail, at->device_gpa, used);
}

/* Append one descriptor to the chain. */
static int append(struct fpr_split_ring *ring, struct fpr_chain *chain,
                  const struct split_desc *desc)
{
    enum fpr_ring_fault fault =
        ring_append(&ring->layout, chain, desc->addr, desc->len, desc->flags);

    if (fault != FPR_FAULT_NONE)
        return broken(ring, fault);
    if (desc->flags & ~KNOWN_FLAGS)
        ring->counters.unknown_flags++;
    return FPR_OK;
}

/* One entry of an indirect table, which may lie at any address, over region boundaries. `direct`
 * is the table itself where it is contiguous and aligned in our memory. */
static int load_entry(const struct fpr_guest_memory *memory, const struct split_desc *direct,
                      uint64_t table_gpa, uint32_t index, struct split_desc *desc)
{
    struct split_desc raw;

    if (direct) {
        *desc = load_desc(&direct[index]);
        return FPR_OK;
    }
    if (fpr_guest_read(memory, table_gpa + 16 * (uint64_t)index, &raw, sizeof(raw)) != FPR_OK)
        return FPR_OUTSIDE;
    *desc = load_desc(&raw);
    return FPR_OK;
}

static int take_table(struct fpr_split_ring *ring, const struct fpr_guest_memory *memory,
                      const struct split_desc *outer, struct fpr_chain *chain)
{
    uint32_t entries = outer->len / 16, walked = 0, index = 0;
    const void *direct;
    enum fpr_ring_fault fault =
        ring_open_table(memory, &ring->layout, outer->addr, outer->len, chain, &direct);
    int status;

    if (fault != FPR_FAULT_NONE)
        return broken(ring, fault);
    if (outer->flags & ~KNOWN_FLAGS)
        ring->counters.unknown_flags++;
    if (outer->flags & SPLIT_NEXT)
        ring->counters.next_with_table++;
    ring->counters.tables++;
    for (;;) {
        struct split_desc desc;

        if (load_entry(memory, direct, outer->addr, index, &desc) != FPR_OK)
            return broken(ring, FPR_FAULT_TABLE_OUTSIDE);
        if (desc.flags & SPLIT_INDIRECT)
            return broken(ring, FPR_FAULT_NESTED_TABLE);
        status = append(ring, chain, &desc);
        if (status != FPR_OK)
            return status;
        if (!(desc.flags & SPLIT_NEXT))
            return FPR_OK;
        if (desc.next >= entries)
            return broken(ring, FPR_FAULT_NEXT);
        if (++walked >= entries)
            return broken(ring, FPR_FAULT_LOOP);
        index = desc.next;
    }
}

static int take_chain(struct fpr_split_ring *ring, const struct fpr_guest_memory *memory,
                      uint32_t head, struct fpr_chain *chain)
{
    uint32_t index = head, walked = 0;

    ring_chain_clear(chain);
    chain->id = head;
    for (;;) {
        struct split_desc desc = load_desc(&ring->table[index]);
        int status;

        if (desc.flags & SPLIT_INDIRECT) /* VIRTIO 2.7.5.3.2: the last one, its WRITE is ignored */
            return take_table(ring, memory, &desc, chain);
        status = append(ring, chain, &desc);
        if (status != FPR_OK)
            return status;
        if (!(desc.flags & SPLIT_NEXT))
            return FPR_OK;
        if (desc.next >= ring->layout.size)
            return broken(ring, FPR_FAULT_NEXT);
        if (++walked >= ring->layout.size)
            return broken(ring, FPR_FAULT_LOOP);
        index = desc.next;
    }
}

int fpr_split_ring_pop(struct fpr_split_ring *ring, const struct fpr_guest_memory *memory,
                       struct fpr_chain *chain)
{
    uint32_t mask = ring->layout.size - 1;
    uint16_t available, head;
    int status;

    if (ring->fault != FPR_FAULT_NONE)
        return FPR_RING_BROKEN;
    available = (uint16_t)(load16_acquire(&ring->avail->idx) - ring->next_avail);
    if (available == 0)
        return FPR_EMPTY;
    if (available > ring->layout.size)
        return broken(ring, FPR_FAULT_AVAIL_JUMP);
    head = load16(&ring->avail->head[ring->next_avail & mask]);
    if (head >= ring->layout.size)
        return broken(ring, FPR_FAULT_HEAD);
    status = take_chain(ring, memory, head, chain);
    if (status != FPR_OK)
        return status;
    if (ring->position < ring->taken[head])
        ring->counters.duplicate_heads++;
    ring->taken[head] = ring->position + available;
    ring->position++;
    ring->next_avail++;
    ring_count(&ring->counters, chain);
    return FPR_OK;
}

int fpr_split_ring_unpop(struct fpr_split_ring *ring)
{
    ring->next_avail--;
    ring->position--;
    return FPR_OK;
}

int fpr_split_ring_push(struct fpr_split_ring *ring, uint32_t id, uint32_t written)
{
    struct split_used_elem *elem = &ring->used->elem[ring->next_used & (ring->layout.size - 1)];

    if (ring->fault != FPR_FAULT_NONE)
        return FPR_RING_BROKEN;
    if (load16(&ring->used->idx) != ring->next_used)
        ring->counters.used_overwritten++;
    elem->id = htole32(id);
    elem->len = htole32(written);
    ring->next_used++;
    /* Release: whoever sees the index sees the element, and the effect of the request. */
    store16_release(&ring->used->idx, ring->next_used);
    return FPR_OK;
}

int fpr_split_ring_should_notify(struct fpr_split_ring *ring, uint32_t *notify)
{
    uint16_t old = ring->notified, now = ring->next_used;

    *notify = 0;
    if (ring->fault != FPR_FAULT_NONE)
        return FPR_RING_BROKEN;
    if (old == now)
        return FPR_OK;
    ring->notified = now;
    /* The index must be visible before the driver's wish is read: the driver writes its wish and
     * then looks at the index. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (event_idx(ring)) {
        uint16_t event = load16(split_used_event(ring->avail, ring->layout.size));
        *notify = ring->notify_once || split_need_event(event, now, old);
        ring->notify_once = 0;
    } else {
        *notify = !(load16(&ring->avail->flags) & SPLIT_NO_INTERRUPT);
    }
    if (*notify)
        ring->counters.notifications++;
    else
        ring->counters.suppressed++;
    return FPR_OK;
}

int fpr_split_ring_disable_kicks(struct fpr_split_ring *ring)
{
    /* With event indices an old avail_event silences by itself, and flags must stay 0. */
    if (!event_idx(ring))
        store16(&ring->used->flags, SPLIT_NO_NOTIFY);
    return FPR_OK;
}

int fpr_split_ring_enable_kicks(struct fpr_split_ring *ring, uint32_t *more)
{
    if (event_idx(ring)) {
        store16(&ring->used->flags, 0);
        store16(split_avail_event(ring->used, ring->layout.size), ring->next_avail);
    } else {
        store16(&ring->used->flags, 0);
    }
    /* The driver fills the ring and then looks at our wish; we do it the other way round. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    *more = load16(&ring->avail->idx) != ring->next_avail;
    return FPR_OK;
}
