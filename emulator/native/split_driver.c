/* The driver's side of a split virtqueue. The free list is last in, first out, a whole chain at a
 * time, so that a queue with one buffer in flight always uses descriptors 0, 1, 2, ... */
#include "emulator/native/split_driver.h"

#include <string.h>

#include "emulator/native/split_layout.h"
#include "emulator/native/status.h"

static int event_idx(const struct fpr_split_driver *driver)
{
    return (driver->layout.flags & FPR_RING_EVENT_IDX) != 0;
}

static int own_memory(const struct fpr_guest_memory *memory, uint64_t gpa, uint64_t bytes,
                      uint64_t alignment, void **pointer)
{
    uint8_t *at;
    uint64_t contiguous;

    if (gpa % alignment || fpr_translate(memory, gpa, bytes, &at, &contiguous) != FPR_OK ||
        contiguous < bytes)
        return FPR_OUTSIDE;
    memset(at, 0, bytes);
    *pointer = at;
    return FPR_OK;
}

int fpr_split_driver_start(struct fpr_split_driver *driver, const struct fpr_guest_memory *memory,
                           const struct fpr_ring_layout *layout, struct fpr_driver_slot *slots,
                           uint64_t tables_gpa, uint32_t table_entries, uint32_t table_count)
{
    struct fpr_split_driver fresh = {.layout = *layout, .slots = slots, .interrupts = 1};
    uint32_t size = layout->size;
    void *table, *avail, *used, *tables = NULL;

    if (size == 0 || size > FPR_RING_SIZE_MAX || (size & (size - 1)) ||
        table_count > FPR_DRIVER_TABLES_MAX || table_entries > FPR_CHAIN_MAX)
        return FPR_BAD_ARGUMENT;
    *driver = fresh;
    if (own_memory(memory, layout->descriptors_gpa, split_table_bytes(size), 16, &table) ||
        own_memory(memory, layout->driver_gpa, split_avail_bytes(size, 1), 2, &avail) ||
        own_memory(memory, layout->device_gpa, split_used_bytes(size, 1), 4, &used))
        return FPR_OUTSIDE;
    if (table_count > 0 &&
        own_memory(memory, tables_gpa, 16 * (uint64_t)table_entries * table_count, 16, &tables))
        return FPR_OUTSIDE;
    driver->table = table;
    driver->avail = avail;
    driver->used = used;
    driver->tables = tables;
    driver->tables_gpa = tables_gpa;
    driver->table_entries = table_entries;
    driver->free_tables = table_count == 64 ? UINT64_MAX : ((uint64_t)1 << table_count) - 1;
    driver->free_count = size;
    for (uint32_t i = 0; i < size; i++)
        slots[i] = (struct fpr_driver_slot){0, (uint16_t)(i + 1), 0, FPR_DRIVER_TABLES_MAX};
    return FPR_OK;
}

/* One descriptor that points to a table of all segments. */
static void add_indirect(struct fpr_split_driver *driver, const struct fpr_segment *segments,
                         uint32_t count)
{
    uint32_t chosen = (uint32_t)__builtin_ctzll(driver->free_tables);
    uint64_t first = (uint64_t)chosen * driver->table_entries;
    struct fpr_driver_slot *slot = &driver->slots[driver->free_head];

    for (uint32_t i = 0; i < count; i++) {
        uint16_t flags =
            (segments[i].writable ? SPLIT_WRITE : 0) | (i + 1 < count ? SPLIT_NEXT : 0);
        store_desc(&driver->tables[first + i], segments[i].gpa, segments[i].bytes, flags,
                   flags & SPLIT_NEXT ? (uint16_t)(i + 1) : 0);
    }
    store_desc(&driver->table[driver->free_head], driver->tables_gpa + 16 * first, 16 * count,
               SPLIT_INDIRECT, 0);
    driver->free_tables &= ~((uint64_t)1 << chosen);
    slot->table = chosen;
    slot->count = 1;
    driver->free_head = slot->next;
    driver->free_count--;
}

static void add_direct(struct fpr_split_driver *driver, const struct fpr_segment *segments,
                       uint32_t count)
{
    uint16_t head = driver->free_head;

    for (uint32_t i = 0; i < count; i++) {
        uint16_t index = driver->free_head, next = driver->slots[index].next;
        uint16_t flags =
            (segments[i].writable ? SPLIT_WRITE : 0) | (i + 1 < count ? SPLIT_NEXT : 0);
        store_desc(&driver->table[index], segments[i].gpa, segments[i].bytes, flags,
                   flags & SPLIT_NEXT ? next : 0);
        driver->free_head = next;
    }
    driver->slots[head].count = (uint16_t)count;
    driver->free_count -= count;
}

int fpr_split_driver_add(struct fpr_split_driver *driver, const struct fpr_segment *segments,
                         uint32_t count, uint64_t token)
{
    uint16_t head = driver->free_head;
    int indirect = count > 1 && driver->free_tables && count <= driver->table_entries;

    if (driver->fault != FPR_FAULT_NONE)
        return FPR_RING_BROKEN;
    if (count == 0)
        return FPR_BAD_ARGUMENT;
    for (uint32_t i = 1; i < count; i++)
        if (segments[i - 1].writable && !segments[i].writable)
            return FPR_BAD_ARGUMENT;
    if (driver->free_count < (indirect ? 1 : count))
        return FPR_FULL;
    if (indirect)
        add_indirect(driver, segments, count);
    else
        add_direct(driver, segments, count);
    driver->slots[head].token = token;
    store16(&driver->avail->head[driver->avail_index & (driver->layout.size - 1)], head);
    driver->avail_index++;
    /* Release: whoever sees the index sees the entry and its descriptors. */
    store16_release(&driver->avail->idx, driver->avail_index);
    return FPR_OK;
}

int fpr_split_driver_should_kick(struct fpr_split_driver *driver, uint32_t *kick)
{
    uint16_t old = driver->kicked, now = driver->avail_index;

    driver->kicked = now;
    /* The index must be visible before the device's wish is read. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (old == now)
        *kick = 0;
    else if (event_idx(driver))
        *kick = split_need_event(load16(split_avail_event(driver->used, driver->layout.size)), now,
                                 old);
    else
        *kick = !(load16(&driver->used->flags) & SPLIT_NO_NOTIFY);
    return FPR_OK;
}

/* Put a chain back in front of the free list, its table to the free ones. */
static void detach(struct fpr_split_driver *driver, uint16_t head)
{
    struct fpr_driver_slot *slot = &driver->slots[head];
    uint16_t last = head;

    for (uint32_t i = 1; i < slot->count; i++)
        last = driver->slots[last].next;
    driver->slots[last].next = driver->free_head;
    driver->free_head = head;
    driver->free_count += slot->count;
    slot->count = 0;
    if (slot->table != FPR_DRIVER_TABLES_MAX) {
        driver->free_tables |= (uint64_t)1 << slot->table;
        slot->table = FPR_DRIVER_TABLES_MAX;
    }
}

int fpr_split_driver_get(struct fpr_split_driver *driver, uint64_t *token, uint32_t *written)
{
    uint16_t pending = (uint16_t)(load16_acquire(&driver->used->idx) - driver->last_used);
    const struct split_used_elem *elem;
    uint32_t id;

    if (driver->fault != FPR_FAULT_NONE)
        return FPR_RING_BROKEN;
    if (pending == 0)
        return FPR_EMPTY;
    elem = &driver->used->elem[driver->last_used & (driver->layout.size - 1)];
    id = le32toh(__atomic_load_n(&elem->id, __ATOMIC_RELAXED));
    if (id >= driver->layout.size || driver->slots[id].count == 0) {
        driver->fault = FPR_FAULT_USED_ID;
        return FPR_RING_BROKEN;
    }
    *written = le32toh(__atomic_load_n(&elem->len, __ATOMIC_RELAXED));
    *token = driver->slots[id].token;
    detach(driver, (uint16_t)id);
    driver->last_used++;
    if (driver->interrupts && event_idx(driver)) {
        store16(split_used_event(driver->avail, driver->layout.size), driver->last_used);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }
    return FPR_OK;
}

int fpr_split_driver_disable_interrupts(struct fpr_split_driver *driver)
{
    driver->interrupts = 0;
    /* With event indices an old used_event silences by itself. */
    if (!event_idx(driver))
        store16(&driver->avail->flags, SPLIT_NO_INTERRUPT);
    return FPR_OK;
}

int fpr_split_driver_enable_interrupts(struct fpr_split_driver *driver, uint32_t *more)
{
    driver->interrupts = 1;
    store16(&driver->avail->flags, 0);
    if (event_idx(driver))
        store16(split_used_event(driver->avail, driver->layout.size), driver->last_used);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    *more = load16(&driver->used->idx) != driver->last_used;
    return FPR_OK;
}
