/* Bytes at the mercy of the trace parser, under AddressSanitizer and UBSan. Built with
 * -fsanitize=fuzzer (clang) this is a libFuzzer target; otherwise main() mutates the files named on
 * the command line for a number of rounds. With FPR_CANARY the parser is told of bytes that are not
 * there, and the sanitizer has to notice. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "emulator/native/random.h"
#include "emulator/native/trace_parser.h"

#ifdef FPR_CANARY
#define EXTRA 64
#else
#define EXTRA 0
#endif
#define EVENTS 7 /* small, so that the parser often stops where an array is full */
#define MARKERS 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fpr_trace_state state = {0};
    struct fpr_trace_event *events = malloc(EVENTS * sizeof(*events));
    struct fpr_trace_marker *markers = malloc(MARKERS * sizeof(*markers));
    uint8_t *text = malloc(size ? size : 1); /* of its own: reads past its end are caught */
    uint64_t at = 0, taken, marked, consumed, outcomes = 0;

    if (!events || !markers || !text)
        abort();
    if (size)
        memcpy(text, data, size);
    do {
        if (fpr_trace_parse(&state, text + at, size - at + EXTRA, 1, events, EVENTS, markers,
                            MARKERS, &taken, &marked, &consumed) != 0)
            abort();
        for (uint64_t i = 0; i < marked; i++)
            if (markers[i].offset + markers[i].bytes > size - at)
                abort();
        for (uint64_t i = 0; i < taken; i++)
            if (events[i].kind >= FPR_TRACE_KINDS || events[i].time_ns < 0)
                abort();
        if (consumed > size - at)
            abort();
        at += consumed;
        outcomes += taken + marked;
    } while (taken == EVENTS || marked == MARKERS);
    for (int reason = 0; reason < FPR_TRACE_REASONS; reason++)
        outcomes += state.counts[reason];
    if (at != size || outcomes != state.lines)
        abort();
    free(text);
    free(markers);
    free(events);
    return 0;
}

#ifndef FPR_LIBFUZZER
#define SEED_BYTES (1u << 16)

static size_t mutate(uint8_t *data, size_t size, struct fpr_random *random)
{
    static const char *const tokens[] = {"[",       "]: ",    "[0]", " 1.5: ", "mm_page_free: ",
                                         "pfn=0x",  "order=", "=",   "|",      "\n",
                                         "print: ", "CPU:",   "(",   "\r"};

    for (uint64_t edits = 1 + fpr_random_below(random, 12); edits; edits--) {
        size_t at = (size_t)fpr_random_below(random, size + 1);
        const char *token = tokens[fpr_random_below(random, sizeof(tokens) / sizeof(tokens[0]))];
        size_t bytes = (size_t)fpr_random_below(random, 40);
        if (bytes > size - at)
            bytes = size - at;
        switch (fpr_random_below(random, 4)) {
        case 0:
            if (at < size)
                data[at] = (uint8_t)fpr_random_next(random);
            break;
        case 1:
            memmove(data + at, data + at + bytes, size - at - bytes);
            size -= bytes;
            break;
        case 2:
            bytes = strlen(token);
            if (size + bytes > SEED_BYTES)
                break;
            memmove(data + at + bytes, data + at, size - at);
            memcpy(data + at, token, bytes);
            size += bytes;
            break;
        default:
            size = at; /* cut off */
        }
    }
    return size;
}

int main(int argc, char **argv)
{
    static uint8_t seed[SEED_BYTES], data[SEED_BYTES];
    struct fpr_random random;
    long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 1;

    fpr_random_seed(&random, 1, 0);
    for (int file = 2; file < argc; file++) {
        FILE *in = fopen(argv[file], "rb");
        if (!in)
            return 3;
        size_t size = fread(seed, 1, SEED_BYTES, in);
        fclose(in);
        for (long round = 0; round < rounds; round++) {
            size_t from = (size_t)fpr_random_below(&random, size + 1);
            size_t bytes = (size_t)fpr_random_below(&random, 2000);
            if (bytes > size - from)
                bytes = size - from;
            memcpy(data, seed + from, bytes);
            LLVMFuzzerTestOneInput(data, mutate(data, bytes, &random));
        }
    }
    return 0;
}
#endif
