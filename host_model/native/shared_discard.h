/* Giving back memory that lies in files of another process: holes are punched in file-offset space.
 * What a call freed is read off the file's allocated blocks before and after it; where that is less
 * than was asked, the file is searched for what remained. */
#ifndef FPR_SHARED_DISCARD_H
#define FPR_SHARED_DISCARD_H

#include "host_model/native/host.h"

struct fpr_shared_region {
    uint64_t gpa, bytes;
    uint64_t offset; /* of its first byte in the file */
    int32_t fd;      /* to punch in */
    int32_t look_fd; /* an open file description of ours, to seek in; -1: blocks alone decide */
    uint32_t cannot_free; /* set where a call failed in a way that will not change */
    uint32_t reserved;
};

/* `calls` is an enum fpr_discard_calls. `regions` ascend by gpa and do not overlap; `ranges` are
 * pairs of gpa and bytes, each whole pages inside one region; what is in none is accounted as
 * outside. Never fails: errors are outcomes. */
void fpr_shared_discard(struct fpr_shared_region *regions, uint32_t region_count,
                        const uint64_t *ranges, uint32_t count, uint32_t calls,
                        struct fpr_discard_outcome *out);

#endif
