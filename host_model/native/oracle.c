#include "host_model/native/oracle.h"

#include <stdlib.h>

#include "emulator/native/status.h"
#include "host_model/native/page_states.h"

#define PAGE_SHIFT 12

struct fpr_oracle {
    struct fpr_residency *told_nothing, *exact;
    uint64_t released_blocks, released_bytes;
};

int fpr_oracle_create(const struct fpr_residency_config *config,
                      const struct fpr_memory_region *regions, uint32_t count,
                      const struct fpr_host_costs *costs, struct fpr_oracle **out)
{
    const struct fpr_residency_config by_page = {
        .seed = config->seed, .stream = config->stream, .calls = config->calls};
    const struct fpr_host_costs nothing = {0};
    struct fpr_oracle *oracle = calloc(1, sizeof *oracle);
    int status;

    *out = NULL;
    if (!oracle)
        return FPR_HOST_MEMORY;
    status = fpr_residency_create(config, regions, count, costs, &oracle->told_nothing);
    if (!status)
        status = fpr_residency_create(&by_page, regions, count, &nothing, &oracle->exact);
    if (status) {
        fpr_oracle_destroy(oracle);
        return status;
    }
    *out = oracle;
    return FPR_OK;
}

void fpr_oracle_destroy(struct fpr_oracle *oracle)
{
    if (!oracle)
        return;
    fpr_residency_destroy(oracle->told_nothing);
    fpr_residency_destroy(oracle->exact);
    free(oracle);
}

void fpr_oracle_report_to(struct fpr_oracle *oracle, struct fpr_footprint *footprint)
{
    fpr_residency_report_to(oracle->exact, footprint);
}

int fpr_oracle_touch(void *host, uint64_t pfn, uint64_t count, uint32_t flags, uint64_t now_ns,
                     uint32_t vcpu, struct fpr_touch_cost *cost)
{
    struct fpr_oracle *oracle = host;
    struct fpr_touch_cost nothing;
    int status = fpr_residency_touch(oracle->told_nothing, pfn, count, flags, now_ns, vcpu, cost);

    if (status)
        return status;
    return fpr_residency_touch(oracle->exact, pfn, count, flags & ~FPR_TOUCH_AHEAD, now_ns, vcpu,
                               &nothing);
}

int fpr_oracle_release(void *host, uint64_t pfn, uint64_t count, uint64_t now_ns)
{
    struct fpr_oracle *oracle = host;
    const uint64_t range[2] = {pfn << PAGE_SHIFT, count << PAGE_SHIFT};
    struct fpr_discard_outcome outcome;

    oracle->released_blocks++;
    oracle->released_bytes += range[1];
    return fpr_residency_discard(oracle->exact, range, 1, now_ns, NULL, &outcome);
}

void fpr_oracle_released(const struct fpr_oracle *oracle, uint64_t *blocks, uint64_t *bytes)
{
    *blocks = oracle->released_blocks;
    *bytes = oracle->released_bytes;
}

int fpr_oracle_populate(struct fpr_oracle *oracle, uint64_t pfn, uint64_t count, uint64_t now_ns)
{
    int status = fpr_residency_populate(oracle->told_nothing, pfn, count, now_ns);

    return status ? status : fpr_residency_populate(oracle->exact, pfn, count, now_ns);
}

int fpr_oracle_discard(struct fpr_oracle *oracle, const uint64_t *ranges, uint32_t count,
                       uint64_t now_ns, uint64_t *freed, struct fpr_discard_outcome *out)
{
    struct fpr_discard_outcome paid;
    int status = fpr_residency_discard(oracle->told_nothing, ranges, count, now_ns, NULL, &paid);

    if (status)
        return status;
    status = fpr_residency_discard(oracle->exact, ranges, count, now_ns, freed, out);
    out->cost_ns = paid.cost_ns;
    return status;
}

void fpr_oracle_counters(const struct fpr_oracle *oracle, uint64_t now_ns,
                         struct fpr_host_counters *out)
{
    struct fpr_host_counters paid;

    fpr_residency_counters(oracle->told_nothing, now_ns, &paid);
    fpr_residency_counters(oracle->exact, now_ns, out);
    out->first_faults_4k = paid.first_faults_4k;
    out->refaults_4k = paid.refaults_4k;
    out->first_faults_2m = paid.first_faults_2m;
    out->refaults_2m = paid.refaults_2m;
    out->fault_ns = paid.fault_ns;
    out->discard_ns = paid.discard_ns;
}

uint64_t fpr_oracle_resident_bytes(const struct fpr_oracle *oracle)
{
    return fpr_residency_resident_bytes(oracle->exact);
}

const struct fpr_histogram *fpr_oracle_fault_latency(const struct fpr_oracle *oracle)
{
    return fpr_residency_fault_latency(oracle->told_nothing);
}

int fpr_oracle_read(const struct fpr_oracle *oracle, uint64_t pfn, uint64_t count, uint8_t *out)
{
    return fpr_residency_read(oracle->exact, pfn, count, out);
}

int fpr_oracle_count_states(const struct fpr_oracle *oracle, const uint64_t *free_bits,
                            const uint64_t *reported, uint64_t words, uint64_t row_pages,
                            uint64_t *counts, uint64_t rows)
{
    return fpr_residency_count_states(oracle->exact, free_bits, reported, words, row_pages, counts,
                                      rows);
}
