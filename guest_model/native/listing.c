/* Pages on their way to the LRU lists: each CPU gathers a batch of them (linux v7.2, mm/swap.c). */
#include "guest_model/native/vcpu_state.h"

static int give_back(struct fpr_vcpus *v, struct fpr_cpu *cpu, uint32_t cpu_index, uint64_t pfn,
                     uint32_t flags)
{
    uint32_t order = fpr_page(v->allocator, pfn)->order;
    int status = fpr_free(v->allocator, cpu_index, pfn, order, flags);

    if (!status && v->port.release)
        status = v->port.release(v->port.host, pfn, (uint64_t)1 << order, cpu->clock_ns);
    return status;
}

int fpr_listing_flush(struct fpr_vcpus *v, struct fpr_cpu *cpu, uint32_t cpu_index)
{
    uint32_t count = cpu->unlisted_count;
    int status = FPR_OK;

    cpu->unlisted_count = 0;
    for (uint32_t i = 0; i < count && !status; i++) {
        struct fpr_page *page = fpr_page(v->allocator, cpu->unlisted[i]);
        bool dropped = page->prev == FPR_DROPPED;

        page->prev = FPR_LISTED;
        if (dropped)
            status = give_back(v, cpu, cpu_index, cpu->unlisted[i], 0);
    }
    return status;
}

int fpr_listing_add(struct fpr_vcpus *v, struct fpr_cpu *cpu, uint32_t cpu_index, uint64_t pfn)
{
    struct fpr_page *page = fpr_page(v->allocator, pfn);

    if (page->order) /* a large folio waits for no others */
        return fpr_listing_flush(v, cpu, cpu_index);
    page->prev = FPR_UNLISTED;
    cpu->unlisted[cpu->unlisted_count++] = (uint32_t)pfn;
    return cpu->unlisted_count < FPR_LRU_BATCH ? FPR_OK : fpr_listing_flush(v, cpu, cpu_index);
}

int fpr_vcpus_add_unlisted(struct fpr_vcpus *v, uint32_t index, uint64_t pfn, int dropped)
{
    struct fpr_cpu *cpu = &v->cpus[index];

    if (index >= v->config.cpus || cpu->unlisted_count + 1 >= FPR_LRU_BATCH ||
        pfn >= v->allocator->config.frames)
        return FPR_BAD_ARGUMENT;
    fpr_page(v->allocator, pfn)->prev = dropped ? FPR_DROPPED : FPR_UNLISTED;
    cpu->unlisted[cpu->unlisted_count++] = (uint32_t)pfn;
    return FPR_OK;
}

int fpr_listing_free(struct fpr_vcpus *v, struct fpr_cpu *cpu, uint32_t cpu_index, uint64_t pfn,
                     uint32_t flags)
{
    struct fpr_page *page = fpr_page(v->allocator, pfn);

    if (page->prev != FPR_UNLISTED)
        return give_back(v, cpu, cpu_index, pfn, flags);
    page->prev = FPR_DROPPED;
    return FPR_OK;
}
