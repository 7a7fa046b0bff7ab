/* A packed virtqueue at the mercy of its driver, and the balloon's messages on it, under
 * AddressSanitizer and UBSan; see ring_fuzz.c for how it is built and run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "emulator/native/balloon.h"
#include "emulator/native/packed_ring.h"
#include "emulator/native/random.h"
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
#define NUMBERS 32
#define SIZE_MAX_HERE 20
#define PAGES 64

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

static uint64_t take_gpa(struct input *input)
{
    switch (take(input, 1) % 6) {
    case 0:
        return LOW_GPA + take(input, 2) % LOW_BYTES;
    case 1:
        return LOW_GPA + LOW_BYTES - take(input, 1);
    case 2:
        return HIGH_GPA + HIGH_BYTES - take(input, 1);
    case 3:
        return TABLE_GPA + 16 * (take(input, 1) % 16);
    case 4:
        return UINT64_MAX - take(input, 2);
    default:
        return take(input, 8);
    }
}

static void put(struct fpr_guest_memory *memory, uint64_t gpa, const void *data, uint64_t bytes)
{
    if (fpr_guest_write(memory, gpa, data, bytes) != FPR_OK)
        abort();
}

/* Mostly available descriptors, so that chains get long. */
static void put_descriptor(struct fpr_guest_memory *memory, uint64_t gpa, struct input *input)
{
    uint64_t address = take_gpa(input);
    uint32_t bytes = (uint32_t)(take(input, 1) % 2 ? 16 * (take(input, 1) % 40) : take(input, 2));
    uint16_t rest[2] = {(uint16_t)take(input, 1), (uint16_t)(take(input, 1) & 7)};

    rest[1] |= take(input, 1) % 8 ? 0x80 : (uint16_t)take(input, 2);
    put(memory, gpa, &address, 8);
    put(memory, gpa + 8, &bytes, 4);
    put(memory, gpa + 12, rest, 4);
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* Inflate and deflate what a chain names; the set stays what it is said to be. */
static void balloon(struct fpr_guest_memory *memory, const struct fpr_chain *chain,
                    struct fpr_page_set *set)
{
    struct fpr_report_cursor cursor = {0};
    struct fpr_message_account messages = {0};
    struct fpr_balloon_account account = {0};
    struct fpr_segment segments[NUMBERS];
    uint32_t numbers[NUMBERS], count, made;
    uint64_t bytes = sizeof(numbers), held = 0;

    for (int round = 0; round < 4 && bytes == sizeof(numbers); round++) {
        if (fpr_message_read(memory, chain, &cursor, (uint8_t *)numbers, sizeof(numbers), &bytes,
                             &messages) != FPR_OK ||
            bytes > sizeof(numbers))
            abort();
        count = 0;
        qsort(numbers, bytes / 4, 4, by_number);
        for (uint32_t i = 0; i < bytes / 4; i++)
            if (i == 0 || numbers[i] != numbers[i - 1])
                numbers[count++] = numbers[i] % 8 ? numbers[i] : numbers[i] % PAGES;
        qsort(numbers, count, 4, by_number);
        for (uint32_t i = 1; i < count; i++)
            if (numbers[i] == numbers[i - 1])
                count = i;
        fpr_balloon_inflate(memory, set, numbers, count, segments, &made, &account);
        if (made > count)
            abort();
        for (uint32_t i = 0; i < made; i++)
            if (segments[i].bytes == 0 ||
                !fpr_guest_inside(memory, segments[i].gpa, segments[i].bytes))
                abort();
        fpr_balloon_deflate(memory, set, numbers, count / 2, &account);
    }
    for (uint32_t i = 0; i < PAGES / 64; i++)
        held += (uint64_t)__builtin_popcountll(set->words[i]);
    if (held != set->count)
        abort();
}

static void serve(struct fpr_guest_memory *memory, struct input *input)
{
    uint32_t size = 1 + take(input, 1) % SIZE_MAX_HERE, answer, saved;
    struct fpr_ring_layout layout = {LOW_GPA, LOW_GPA + 0x400, LOW_GPA + 0x800, size,
                                     (uint32_t)take(input, 1)};
    uint32_t base = take(input, 1) % 4 ? 0 : (uint32_t)take(input, 4);
    struct fpr_segment *segments = malloc(FPR_CHAIN_MAX * sizeof(*segments));
    struct fpr_chain chain = {.segments = segments, .capacity = FPR_CHAIN_MAX};
    uint64_t words[PAGES / 64] = {0};
    struct fpr_page_set set = {words, PAGES, 0};
    struct fpr_packed_ring ring;

    if (!segments)
        abort();
    if (take(input, 1) % 16 == 0)
        layout.descriptors_gpa = take_gpa(input);
    if (take(input, 1) % 16 == 0)
        layout.driver_gpa = take_gpa(input);
    for (uint32_t i = 0; i < SIZE_MAX_HERE; i++)
        put_descriptor(memory, LOW_GPA + 16 * i, input);
    for (uint32_t i = 0; i < 16; i++)
        put_descriptor(memory, TABLE_GPA + 16 * i, input);
    if (fpr_packed_ring_start(&ring, memory, &layout, base) == FPR_OK) {
        fpr_packed_ring_disable_kicks(&ring);
        for (uint32_t i = 0; i < 2 * size && !fpr_packed_ring_pop(&ring, memory, &chain); i++) {
            if (chain.count > chain.capacity || chain.id >> 16 == 0 || chain.id >> 16 > size)
                abort();
            balloon(memory, &chain, &set);
            if (take(input, 1) % 8 == 0) {
                fpr_packed_ring_unpop(&ring);
                break;
            }
            if (fpr_packed_ring_push(&ring, chain.id, 0) != FPR_OK)
                abort();
        }
        fpr_packed_ring_enable_kicks(&ring, &answer);
        fpr_packed_ring_should_notify(&ring, &answer);
        fpr_packed_ring_overlaps(&ring);
        fpr_packed_ring_base(&ring, &saved);
        if ((saved & 0x7fff) >= size || (saved >> 16 & 0x7fff) >= size)
            abort();
    } else if (ring.fault == FPR_FAULT_NONE) {
        abort();
    }
    free(segments);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *low = calloc(1, LOW_BYTES), *high = calloc(1, HIGH_BYTES);
    struct fpr_region regions[2] = {
        {LOW_GPA, LOW_BYTES + EXTRA, low, 0, 4096},
        {HIGH_GPA, HIGH_BYTES + EXTRA, high, 4096, 8192}, /* its pages are gathered */
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
