/* Memory that another process handed over as a file, mapped here. The other process may truncate
 * the file at any time; whoever then touches the mapping would be killed by SIGBUS. Instead, a page
 * of zeros takes the place of the lost one, and the mapping is marked: its device must stop. */
#ifndef FPR_SHARED_MAP_H
#define FPR_SHARED_MAP_H

#include <stdint.h>

#define FPR_SHARED_MAPS_MAX 16384 /* of one process: 32 devices with every memory slot in use */

struct fpr_shared_map {
    uint8_t *pointer;      /* of the byte at the offset that was asked for */
    uint8_t *base;         /* of the mapping, which starts on a page of the file */
    uint64_t mapped_bytes; /* from base on */
    uint32_t slot;         /* in the table of guarded mappings */
};

/* Map [offset, offset + bytes) of a file, shared and writable. `page_bytes` is the file's page, a
 * power of two. FPR_SYSTEM with errno, FPR_FULL where the table of guarded mappings is full,
 * FPR_BAD_ARGUMENT where the sum overflows. */
int fpr_shared_map(int fd, uint64_t offset, uint64_t bytes, uint64_t page_bytes,
                   struct fpr_shared_map *out);
void fpr_shared_unmap(struct fpr_shared_map *map);
/* Whether a page of it was lost since it was mapped. Not a status. */
int fpr_shared_map_lost(const struct fpr_shared_map *map);

#endif
