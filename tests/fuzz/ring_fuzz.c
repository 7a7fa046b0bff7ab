/* A split virtqueue at the mercy of its driver, under AddressSanitizer and UBSan. Built with
 * -fsanitize=fuzzer (clang) this is a libFuzzer target; otherwise main() makes up inputs for a
 * number of rounds. Both regions of guest memory are allocations of their own, so that one byte too
 * many is caught. With FPR_CANARY the device is told of bytes that are not there, and the sanitizer
 * has to notice. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "emulator/native/random.h"
#include "emulator/native/report.h"
#include "emulator/native/split_ring.h"
#include "emulator/native/status.h"

#ifdef FPR_CANARY
#define EXTRA 64
#else
#define EXTRA 0
#endif
#define LOW_GPA 0x10000u
#define LOW_BYTES 0x4000u
#define HIGH_GPA 0x20000u
#define HIGH_BYTES 0x2800u
#define TABLE_GPA (LOW_GPA + 0x1000u)
#define RANGES 3 /* few, so that a chain often takes several rounds */
#define PAGE 1024u

struct input {
    const uint8_t *data;
    size_t size, at;
};

static uint64_t take(struct input *input, int bytes)
{
    uint64_t value = 0;

    for (int i = 0; i < bytes; i++)
        value = value << 8 | (input->at < input->size ? input->data[input->at++] : 0);
    return value;
}

/* An address near an edge, or anywhere. */
static uint64_t take_gpa(struct input *input)
{
    switch (take(input, 1) % 8) {
    case 0:
        return LOW_GPA + take(input, 2) % LOW_BYTES;
    case 1:
        return LOW_GPA + LOW_BYTES - take(input, 1);
    case 2:
        return HIGH_GPA + take(input, 2) % HIGH_BYTES;
    case 3:
        return HIGH_GPA + HIGH_BYTES - take(input, 1);
    case 4:
        return LOW_GPA + PAGE * (take(input, 1) % 20);
    case 5:
        return TABLE_GPA + 16 * (take(input, 1) % 16);
    case 6:
        return UINT64_MAX - take(input, 2);
    default:
        return take(input, 8);
    }
}

static uint32_t take_bytes(struct input *input)
{
    switch (take(input, 1) % 4) {
    case 0:
        return 16 * (uint32_t)(take(input, 1) % 40);
    case 1:
        return PAGE * (uint32_t)take(input, 1);
    case 2:
        return (uint32_t)take(input, 2);
    default:
        return (uint32_t)take(input, 4);
    }
}

static void put(struct fpr_guest_memory *memory, uint64_t gpa, const void *data, uint64_t bytes)
{
    if (fpr_guest_write(memory, gpa, data, bytes) != FPR_OK)
        abort();
}

static void put_descriptor(struct fpr_guest_memory *memory, uint64_t gpa, struct input *input)
{
    uint64_t address = take_gpa(input);
    uint32_t bytes = take_bytes(input);
    uint16_t rest[2] = {(uint16_t)take(input, 1), (uint16_t)(take(input, 1) % 20)};

    put(memory, gpa, &address, 8);
    put(memory, gpa + 8, &bytes, 4);
    put(memory, gpa + 12, rest, 4);
}

/* Judge a chain, look at both ends of every range, and check that no byte is lost. */
static void judge(struct fpr_guest_memory *memory, struct fpr_chain *chain,
                  struct fpr_range *guards, uint32_t guard_count)
{
    struct fpr_report_rules rules = {guards, guard_count, FPR_SKIP_REASONS};
    struct fpr_report_cursor cursor = {0};
    struct fpr_report_account account = {0};
    struct fpr_range ranges[RANGES];
    uint32_t count, finished = 0;
    uint64_t passed = 0;

    while (!finished) {
        if (fpr_report_judge(memory, chain, &rules, &cursor, ranges, RANGES, &count, &finished,
                             &account) != FPR_OK)
            abort();
        if (count > RANGES)
            abort();
        for (uint32_t i = 0; i < count; i++) {
            uint8_t *first;
            uint64_t contiguous;
            if (ranges[i].bytes == 0 || ranges[i].bytes % PAGE)
                abort();
            if (fpr_translate(memory, ranges[i].gpa, ranges[i].bytes, &first, &contiguous))
                abort();
            if (contiguous != ranges[i].bytes)
                abort();
            (void)*(volatile uint8_t *)first;
            (void)*(volatile uint8_t *)(first + ranges[i].bytes - 1);
            passed += ranges[i].bytes;
            for (uint32_t g = 0; g < guard_count; g++)
                if (ranges[i].gpa < guards[g].gpa + guards[g].bytes &&
                    guards[g].gpa < ranges[i].gpa + ranges[i].bytes)
                    abort();
        }
    }
    for (int reason = 0; reason < FPR_SKIP_REASONS; reason++)
        passed += account.skipped_bytes[reason];
    if (passed != account.reported_bytes || passed != chain->bytes)
        abort();
}

static void serve(struct fpr_guest_memory *memory, struct input *input)
{
    uint32_t size = 1u << take(input, 1) % 5;
    struct fpr_ring_layout layout = {LOW_GPA, LOW_GPA + 0x400, LOW_GPA + 0x800, size,
                                     (uint32_t)take(input, 1)};
    uint16_t base = (uint16_t)take(input, 2), available = (uint16_t)take(input, 1);
    uint64_t *taken = malloc(size * sizeof(*taken));
    struct fpr_segment *segments = malloc(FPR_CHAIN_MAX * sizeof(*segments));
    struct fpr_chain chain = {.segments = segments, .capacity = FPR_CHAIN_MAX};
    struct fpr_split_ring ring;
    uint64_t bytes[3];
    uint32_t answer;

    if (!taken || !segments)
        abort();
    if (take(input, 1) % 16 == 0)
        layout.descriptors_gpa = take_gpa(input);
    if (take(input, 1) % 16 == 0)
        layout.driver_gpa = take_gpa(input);
    if (take(input, 1) % 16 == 0)
        layout.device_gpa = take_gpa(input);
    for (uint32_t i = 0; i < 16; i++)
        put_descriptor(memory, LOW_GPA + 16 * i, input);
    for (uint32_t i = 0; i < 16; i++)
        put_descriptor(memory, TABLE_GPA + 16 * i, input);
    available = (uint16_t)(base + (available < 200 ? available % (size + 1) : available));
    put(memory, LOW_GPA + 0x402, &available, 2);
    for (uint32_t i = 0; i < 16; i++) {
        uint16_t head = (uint16_t)(take(input, 1) % (size + size / 8 + 1));
        put(memory, LOW_GPA + 0x404 + 2 * i, &head, 2);
    }
    fpr_split_part_bytes(size, &bytes[0], &bytes[1], &bytes[2]);
    struct fpr_range guards[3] = {{layout.descriptors_gpa, bytes[0]},
                                  {layout.driver_gpa, bytes[1]},
                                  {layout.device_gpa, bytes[2]}};
    if (fpr_split_ring_start(&ring, memory, &layout, base, taken) == FPR_OK) {
        fpr_split_ring_disable_kicks(&ring);
        for (uint32_t i = 0; i < 2 * size && fpr_split_ring_pop(&ring, memory, &chain) == 0; i++) {
            judge(memory, &chain, guards, 3);
            if (fpr_split_ring_push(&ring, chain.id, 0) != FPR_OK)
                abort();
        }
        fpr_split_ring_enable_kicks(&ring, &answer);
        fpr_split_ring_should_notify(&ring, &answer);
        fpr_split_ring_overlaps(&ring);
    } else if (ring.fault == FPR_FAULT_NONE) {
        abort();
    }
    free(segments);
    free(taken);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *low = calloc(1, LOW_BYTES), *high = calloc(1, HIGH_BYTES);
    struct fpr_region regions[2] = {
        {LOW_GPA, LOW_BYTES + EXTRA, low, 0, PAGE},
        {HIGH_GPA, HIGH_BYTES + EXTRA, high, 512, PAGE}, /* offset pages unlike guest pages */
    };
    struct fpr_guest_memory memory = {regions, 2};
    struct input input = {data, size, 0};
    uint32_t bad;

    if (!low || !high || fpr_guest_memory_check(&memory, &bad) != FPR_OK)
        abort();
    serve(&memory, &input);
    free(high);
    free(low);
    return 0;
}

#ifndef FPR_LIBFUZZER
int main(int argc, char **argv)
{
    static uint8_t data[768];
    struct fpr_random random;
    long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 1;

    fpr_random_seed(&random, 1, 0);
    for (long round = 0; round < rounds; round++) {
        for (size_t i = 0; i < sizeof(data); i++)
            data[i] = (uint8_t)fpr_random_next(&random);
        LLVMFuzzerTestOneInput(data, sizeof(data));
    }
    return 0;
}
#endif
