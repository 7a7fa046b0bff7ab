/* One task of a plan, in a process of its own: executes its operations on real memory. */
#define _GNU_SOURCE
#include "agent.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_REGIONS 70000

struct region {
    char *address;
    uint64_t pages;
    uint32_t owner;
    int fd; /* of its file; -1: anonymous, or a private mapping */
};

static struct region *regions;
static unsigned region_count;
static unsigned task_number;
static char buffer[16 * PAGE_BYTES];

static struct region *new_region(uint32_t owner, uint64_t pages)
{
    if (region_count == MAX_REGIONS)
        return NULL;
    struct region *region = &regions[region_count++];
    *region = (struct region){NULL, pages, owner, -1};
    return region;
}

static void touch_pages(struct region *region)
{
    for (uint64_t page = 0; page < region->pages; page++)
        ((volatile char *)region->address)[page * PAGE_BYTES]++;
}

static bool write_file(struct region *region)
{
    char path[64];
    snprintf(path, sizeof path, "/files/%u-%u", task_number, region->owner);
    region->fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    if (region->fd < 0)
        return false;
    unlink(path);
    uint64_t left = region->pages * PAGE_BYTES;
    while (left) {
        ssize_t written = write(region->fd, buffer, left < sizeof buffer ? left : sizeof buffer);
        if (written <= 0) {
            region->pages -= left / PAGE_BYTES; /* the file is as long as it got */
            return false;
        }
        left -= (uint64_t)written;
    }
    return true;
}

static const struct region *last_file(void)
{
    for (unsigned index = region_count; index--;)
        if (regions[index].fd >= 0)
            return &regions[index];
    return NULL;
}

static void allocate(const struct op *op)
{
    struct region *region = new_region(op->owner, op->count << op->order);
    if (!region) {
        progress[task_number].failures++;
        return;
    }
    bool ok;
    if (op->flags & FAULTED) {
        const struct region *file = op->flags & COPIED ? last_file() : NULL;
        int flags = MAP_PRIVATE | (file ? 0 : MAP_ANONYMOUS);
        region->address = mmap(NULL, region->pages * PAGE_BYTES, PROT_READ | PROT_WRITE, flags,
                               file ? file->fd : -1, 0);
        ok = region->address != MAP_FAILED;
        if (ok)
            touch_pages(region);
        else
            region_count--;
    } else {
        ok = write_file(region);
    }
    if (ok)
        progress[task_number].units += op->flags & 32 ? region->pages : 0;
    else
        progress[task_number].failures++;
}

static void release(uint32_t owner)
{
    unsigned kept = 0;
    for (unsigned index = 0; index < region_count; index++) {
        struct region *region = &regions[index];
        if (region->owner != owner) {
            regions[kept++] = *region;
            continue;
        }
        if (region->fd >= 0)
            close(region->fd);
        if (region->address)
            munmap(region->address, region->pages * PAGE_BYTES);
    }
    region_count = kept;
}

static void compute(uint64_t duration_ns)
{
    uint64_t end_ns = now_ns() + duration_ns;
    while (now_ns() < end_ns)
        ;
}

static void execute(const struct op *op, uint64_t start_ns)
{
    uint64_t begin_ns = now_ns();
    if (progress[task_number].operations < MAX_TIMED)
        begins[task_number][progress[task_number].operations++] = begin_ns;
    switch (op->kind) {
    case OP_ALLOC:
        allocate(op);
        break;
    case OP_TOUCH:
        for (unsigned index = 0; index < region_count; index++)
            if (regions[index].owner == op->owner && regions[index].address)
                touch_pages(&regions[index]);
        break;
    case OP_FREE:
        release(op->owner);
        break;
    case OP_WAIT:
        sleep_until(begin_ns + op->count);
        return;
    case OP_UNTIL:
        sleep_until(start_ns + op->count);
        return;
    case OP_WORK:
        compute(op->count);
        break;
    case OP_UNITS:
        progress[task_number].units += op->count;
        return;
    }
    progress[task_number].busy_ns += now_ns() - begin_ns;
}

void run_task(unsigned number, const struct stream *stream)
{
    uint64_t start_ns = now_ns();
    task_number = number;
    regions = mmap(NULL, MAX_REGIONS * sizeof *regions, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (regions == MAP_FAILED)
        _exit(1);
    for (uint64_t at = 0; at < stream->first_ops; at++)
        execute(&stream->ops[at], start_ns);
    for (uint64_t loop = 0; stream->loop_ops && (!stream->loops || loop < stream->loops); loop++)
        for (uint64_t at = 0; at < stream->loop_ops; at++)
            execute(&stream->ops[stream->first_ops + at], start_ns);
    _exit(0);
}
