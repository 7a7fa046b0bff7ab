/* The driver's side of a packed virtqueue. Free buffer ids are last in, first out. */
#include "emulator/native/packed_driver.h"

#include <string.h>

#include "emulator/native/packed_layout.h"
#include "emulator/native/status.h"

static int event_idx(const struct fpr_packed_driver *driver)
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

int fpr_packed_driver_start(struct fpr_packed_driver *driver, const struct fpr_guest_memory *memory,
                            const struct fpr_ring_layout *layout, struct fpr_driver_slot *slots,
                            uint64_t tables_gpa, uint32_t table_entries, uint32_t table_count)
{
    struct fpr_packed_driver fresh = {
        .layout = *layout, .slots = slots, .avail_wrap = 1, .used_wrap = 1};
    uint32_t size = layout->size;
    void *table, *own, *other, *tables = NULL;

    if (size == 0 || size > FPR_RING_SIZE_MAX || table_count > FPR_DRIVER_TABLES_MAX ||
        table_entries > FPR_CHAIN_MAX)
        return FPR_BAD_ARGUMENT;
    *driver = fresh;
    if (own_memory(memory, layout->descriptors_gpa, 16 * (uint64_t)size, 16, &table) ||
        own_memory(memory, layout->driver_gpa, sizeof(struct packed_event), 4, &own) ||
        own_memory(memory, layout->device_gpa, sizeof(struct packed_event), 4, &other))
        return FPR_OUTSIDE;
    if (table_count > 0 &&
        own_memory(memory, tables_gpa, 16 * (uint64_t)table_entries * table_count, 16, &tables))
        return FPR_OUTSIDE;
    driver->table = table;
    driver->driver = own;
    driver->device = other;
    driver->tables = tables;
    driver->tables_gpa = tables_gpa;
    driver->table_entries = table_entries;
    driver->free_tables = table_count == 64 ? UINT64_MAX : ((uint64_t)1 << table_count) - 1;
    driver->free_count = size;
    for (uint32_t i = 0; i < size; i++)
        slots[i] = (struct fpr_driver_slot){0, (uint16_t)(i + 1), 0, FPR_DRIVER_TABLES_MAX};
    return FPR_OK;
}

static void store(struct packed_desc *to, uint64_t addr, uint32_t len, uint16_t id)
{
    to->addr = htole64(addr);
    to->len = htole32(len);
    to->id = htole16(id);
}

static uint16_t avail_marks(uint16_t wrap)
{
    return wrap ? PACKED_AVAIL : PACKED_USED;
}

/* One descriptor that points to a table of all segments. */
static void add_indirect(struct fpr_packed_driver *driver, const struct fpr_segment *segments,
                         uint32_t count, uint16_t id)
{
    uint32_t chosen = (uint32_t)__builtin_ctzll(driver->free_tables);
    uint64_t first = (uint64_t)chosen * driver->table_entries;
    struct packed_desc *desc = &driver->table[driver->avail];

    for (uint32_t i = 0; i < count; i++) {
        store(&driver->tables[first + i], segments[i].gpa, segments[i].bytes, 0);
        packed_store16(&driver->tables[first + i].flags, segments[i].writable ? PACKED_WRITE : 0);
    }
    driver->free_tables &= ~((uint64_t)1 << chosen);
    driver->slots[id].table = chosen;
    driver->slots[id].count = 1;
    store(desc, driver->tables_gpa + 16 * first, 16 * count, id);
    packed_store16_release(&desc->flags, PACKED_INDIRECT | avail_marks(driver->avail_wrap));
    packed_advance(&driver->avail, &driver->avail_wrap, 1, driver->layout.size);
}

/* The first descriptor becomes available last (VIRTIO 2.8.17), and the whole list with it. */
static void add_direct(struct fpr_packed_driver *driver, const struct fpr_segment *segments,
                       uint32_t count, uint16_t id)
{
    uint16_t head = driver->avail, head_flags = 0;

    for (uint32_t i = 0; i < count; i++) {
        struct packed_desc *desc = &driver->table[driver->avail];
        uint16_t flags = avail_marks(driver->avail_wrap);

        flags |= (segments[i].writable ? PACKED_WRITE : 0) | (i + 1 < count ? PACKED_NEXT : 0);
        store(desc, segments[i].gpa, segments[i].bytes, id);
        if (i == 0)
            head_flags = flags;
        else
            packed_store16(&desc->flags, flags);
        packed_advance(&driver->avail, &driver->avail_wrap, 1, driver->layout.size);
    }
    driver->slots[id].count = (uint16_t)count;
    packed_store16_release(&driver->table[head].flags, head_flags);
}

int fpr_packed_driver_add(struct fpr_packed_driver *driver, const struct fpr_segment *segments,
                          uint32_t count, uint64_t token)
{
    uint16_t id = driver->free_id;
    int indirect = count > 1 && driver->free_tables && count <= driver->table_entries;
    uint32_t needed = indirect ? 1 : count;

    if (driver->fault != FPR_FAULT_NONE)
        return FPR_RING_BROKEN;
    if (count == 0)
        return FPR_BAD_ARGUMENT;
    for (uint32_t i = 1; i < count; i++)
        if (segments[i - 1].writable && !segments[i].writable)
            return FPR_BAD_ARGUMENT;
    if (driver->free_count < needed)
        return FPR_FULL;
    /* A buffer takes at least one descriptor: while one is free, an id is. */
    driver->free_id = driver->slots[id].next;
    driver->slots[id].token = token;
    if (indirect)
        add_indirect(driver, segments, count, id);
    else
        add_direct(driver, segments, count, id);
    driver->free_count -= needed;
    driver->added += needed;
    return FPR_OK;
}

int fpr_packed_driver_should_kick(struct fpr_packed_driver *driver, uint32_t *kick)
{
    uint32_t added = driver->added;

    driver->added = 0;
    /* The descriptors must be visible before the device's wish is read. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    *kick = added > 0 && packed_need_event(driver->device, event_idx(driver), driver->layout.size,
                                           driver->avail, driver->avail_wrap, added);
    return FPR_OK;
}

static int is_used(const struct fpr_packed_driver *driver)
{
    uint16_t flags = packed_load16_acquire(&driver->table[driver->used].flags);

    return driver->free_count < driver->layout.size && packed_is_used(flags, driver->used_wrap);
}

static void ask_interrupts(struct fpr_packed_driver *driver, uint16_t flags)
{
    if (flags == PACKED_EVENT_ONE)
        packed_store16(&driver->driver->position,
                       (uint16_t)(driver->used | driver->used_wrap << 15));
    driver->event_flags = flags;
    packed_store16_release(&driver->driver->flags, flags);
}

int fpr_packed_driver_get(struct fpr_packed_driver *driver, uint64_t *token, uint32_t *written)
{
    struct packed_desc *desc = &driver->table[driver->used];
    struct fpr_driver_slot *slot;
    uint16_t id;

    if (driver->fault != FPR_FAULT_NONE)
        return FPR_RING_BROKEN;
    if (!is_used(driver))
        return FPR_EMPTY;
    id = packed_load16(&desc->id);
    if (id >= driver->layout.size || driver->slots[id].count == 0) {
        driver->fault = FPR_FAULT_USED_ID;
        return FPR_RING_BROKEN;
    }
    slot = &driver->slots[id];
    *token = slot->token;
    *written = 0; /* the length is valid only where something was written (VIRTIO 2.8.4) */
    if (packed_load16(&desc->flags) & PACKED_WRITE)
        *written = le32toh(__atomic_load_n(&desc->len, __ATOMIC_RELAXED));
    packed_advance(&driver->used, &driver->used_wrap, slot->count, driver->layout.size);
    driver->free_count += slot->count;
    slot->count = 0;
    slot->next = driver->free_id;
    driver->free_id = id;
    if (slot->table != FPR_DRIVER_TABLES_MAX) {
        driver->free_tables |= (uint64_t)1 << slot->table;
        slot->table = FPR_DRIVER_TABLES_MAX;
    }
    if (driver->event_flags == PACKED_EVENT_ONE) {
        ask_interrupts(driver, PACKED_EVENT_ONE);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }
    return FPR_OK;
}

int fpr_packed_driver_disable_interrupts(struct fpr_packed_driver *driver)
{
    ask_interrupts(driver, PACKED_EVENT_DISABLE);
    return FPR_OK;
}

int fpr_packed_driver_enable_interrupts(struct fpr_packed_driver *driver, uint32_t *more)
{
    ask_interrupts(driver, event_idx(driver) ? PACKED_EVENT_ONE : PACKED_EVENT_ENABLE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    *more = (uint32_t)is_used(driver);
    return FPR_OK;
}
