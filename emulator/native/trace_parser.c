#include "emulator/native/trace_parser.h"

#include <string.h>

#include "emulator/native/status.h"
#include "emulator/native/trace_fields.h"

_Static_assert(sizeof(struct fpr_trace_event) == 40, "dtype of emulator/inputs/trace.py");
_Static_assert(sizeof(struct fpr_trace_marker) == 24, "dtype of emulator/inputs/trace.py");

#define OUTCOME_EVENT (-1)
#define OUTCOME_MARKER (-2)
#define SECONDS_MAX 9000000000u /* keeps nanoseconds in an int64_t */
/* A task's name has 15 bytes, and numbers stand beside it: a later bracket is not the CPU's. The
 * limits also keep a hostile line's cost linear. */
#define FRONT_BYTES 256
#define CONTEXT_BYTES 32

/* A line without its end, and what the front of it says. */
struct line {
    struct fpr_span body; /* after "event:" */
    struct fpr_span name;
    int64_t time_ns;
    uint32_t pid;
    uint32_t cpu;
    uint8_t context; /* flags of the record */
    int time_seen;   /* something between [cpu] and event: was a time, of the wrong form */
};

/* "1234.567890:" with one to nine digits of a fraction. 1 where it is one; *bad is set where it is
 * a number and a colon, but no time in seconds. */
static int read_time(struct fpr_span *span, int64_t *time_ns, int *bad)
{
    struct fpr_span at = *span;
    uint64_t seconds, fraction = 0;
    int digits = 0;

    if (!fpr_read_decimal(&at, &seconds))
        return 0;
    if (at.at == at.end)
        return 0;
    if (*at.at == ':') {
        *bad = 1; /* a counter or cycles: no seconds to be had */
        return 0;
    }
    if (*at.at != '.')
        return 0;
    for (at.at++; at.at < at.end && fpr_is_digit(*at.at); at.at++, digits++)
        if (digits < 9)
            fraction = fraction * 10 + (uint64_t)(*at.at - '0');
    if (at.at == at.end || *at.at != ':')
        return 0;
    if (digits < 1 || digits > 9 || seconds > SECONDS_MAX) {
        *bad = 1;
        return 0;
    }
    for (; digits < 9; digits++)
        fraction *= 10;
    *time_ns = (int64_t)(seconds * 1000000000u + fraction);
    at.at++;
    *span = at;
    return 1;
}

/* The number that ends before the CPU's bracket: "comm-12", "comm-12 (  12)",
 * "comm 12", "12/13". */
static uint32_t read_pid(const uint8_t *start, const uint8_t *bracket)
{
    const uint8_t *at = bracket;
    uint64_t value = 0, scale = 1;

    while (at > start && at[-1] == ' ')
        at--;
    if (at > start && at[-1] == ')') {
        while (at > start && *at != '(')
            at--;
        while (at > start && at[-1] == ' ')
            at--;
    }
    for (; at > start && fpr_is_digit(at[-1]) && scale <= 1000000000u; at--, scale *= 10)
        value += (uint64_t)(at[-1] - '0') * scale;
    return value <= UINT32_MAX ? (uint32_t)value : 0;
}

/* The column of the tracer's context flags: "d.N2." and the like. */
static uint8_t read_context(const uint8_t *token, int bytes)
{
    uint8_t flags = 0;

    if (bytes < 4)
        return 0;
    if (memchr("dDX", token[0], 3))
        flags |= FPR_TRACE_IRQS_OFF;
    if (memchr("NnpBbLl", token[1], 7))
        flags |= FPR_TRACE_NEED_RESCHED;
    return flags;
}

/* The part from "[cpu]" to "event:", with a token of context flags before the time or without.
 * A task's name may hold brackets, so the caller tries each one. */
static int read_front(const uint8_t *start, const uint8_t *bracket, const uint8_t *end,
                      struct line *line)
{
    struct fpr_span at = {bracket + 1, end};
    uint64_t cpu;

    line->context = 0;
    while (at.at < end && *at.at == ' ')
        at.at++;
    if (!fpr_read_decimal(&at, &cpu) || at.at == end || *at.at != ']' || cpu > UINT16_MAX)
        return 0;
    at.at++;
    for (int token = 0;; token++) {
        while (at.at < end && *at.at == ' ')
            at.at++;
        if (read_time(&at, &line->time_ns, &line->time_seen))
            break;
        if (token == 1)
            return 0;
        int bytes = 0;
        for (; at.at < end && *at.at != ' '; at.at++)
            if (++bytes > CONTEXT_BYTES)
                return 0;
        line->context = read_context(at.at - bytes, bytes);
    }
    while (at.at < end && (*at.at == ' ' || *at.at == '\t'))
        at.at++;
    line->name.at = at.at;
    while (at.at < end && *at.at != ' ' && *at.at != '\t')
        at.at++;
    if (at.at == line->name.at || at.at[-1] != ':')
        return 0;
    line->name.end = at.at - 1;
    line->body.at = at.at;
    line->body.end = end;
    line->cpu = (uint32_t)cpu;
    line->pid = read_pid(start, bracket);
    return 1;
}

/* perf writes "system:event". */
static void strip_system(struct fpr_span *name)
{
    const uint8_t *colon = memchr(name->at, ':', (size_t)(name->end - name->at));
    if (colon)
        name->at = colon + 1;
}

static int event_kind(const struct fpr_span *name)
{
    static const char *const names[FPR_TRACE_KINDS] = {
        "mm_page_alloc",        "mm_page_free",
        "mm_page_free_batched", "mm_page_alloc_zone_locked",
        "mm_page_pcpu_drain",   "mm_page_alloc_extfrag"};

    for (int kind = 0; kind < FPR_TRACE_KINDS; kind++)
        if (fpr_span_is(name, names[kind]))
            return kind;
    return -1;
}

/* The function that wrote a marker, by its name or, where that is not known, by its address. */
static int is_caller(const struct fpr_span *word)
{
    static const char name[] = "tracing_mark_write";
    const size_t bytes = sizeof(name) - 1;
    const uint8_t *at = word->at;

    if ((size_t)(word->end - at) >= bytes && memcmp(at, name, bytes) == 0)
        return 1;
    if (word->end - at > 2 && at[0] == '0' && at[1] == 'x')
        at += 2;
    if (word->end - at < 8)
        return 0;
    for (; at < word->end; at++)
        if (!fpr_is_digit(*at) && !((*at | 32) >= 'a' && (*at | 32) <= 'f'))
            return 0;
    return 1;
}

/* tracefs: "tracing_mark_write: text". trace-cmd and perf: "print: function-or-address: text". */
static int read_marker(const struct line *line, struct fpr_span *text)
{
    int print = fpr_span_is(&line->name, "print") || fpr_span_is(&line->name, "bprint");

    if (!print && !fpr_span_is(&line->name, "tracing_mark_write"))
        return 0;
    *text = line->body;
    while (text->at < text->end && *text->at == ' ')
        text->at++;
    if (print) {
        struct fpr_span caller = {text->at, text->at};
        while (caller.end < text->end && *caller.end != ' ' && *caller.end != ':')
            caller.end++;
        if (caller.end < text->end && *caller.end == ':' && is_caller(&caller))
            text->at = caller.end + 1;
        while (text->at < text->end && *text->at == ' ')
            text->at++;
    }
    while (text->end > text->at && text->end[-1] == ' ')
        text->end--;
    return 1;
}

/* The notes of a reader about its buffers: "CPU:1 [LOST 12 EVENTS]", "CPU:1
 * [12 EVENTS DROPPED]". */
static int read_lost(const uint8_t *start, const uint8_t *end, uint64_t *lost)
{
    struct fpr_span at = {start, end};
    uint64_t number;

    if (end - start < 4 || memcmp(start, "CPU:", 4) != 0)
        return 0;
    while (at.at < end && *at.at != '[')
        at.at++;
    if (at.at == end)
        return 0;
    at.at++;
    if (end - at.at >= 5 && memcmp(at.at, "LOST ", 5) == 0)
        at.at += 5;
    if (fpr_read_decimal(&at, &number))
        *lost += number;
    return 1;
}

/* What trace-cmd writes before the events: "version = 7", "cpus=2", "CPU 1 is empty". */
static int is_preamble(const uint8_t *start, const uint8_t *end)
{
    static const char *const words[] = {"cpus=", "version = ", "CPU "};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        size_t bytes = strlen(words[i]);
        if ((size_t)(end - start) > bytes && memcmp(start, words[i], bytes) == 0)
            return fpr_is_digit(start[bytes]);
    }
    return 0;
}

/* "# entries-in-buffer/entries-written: 12/34   #P:2" */
static void read_comment(struct fpr_trace_state *state, const uint8_t *start, const uint8_t *end)
{
    static const char key[] = "# entries-in-buffer/entries-written: ";
    struct fpr_span at = {start + sizeof(key) - 1, end};
    uint64_t kept, written;

    if ((size_t)(end - start) < sizeof(key) || memcmp(start, key, sizeof(key) - 1) != 0)
        return;
    if (!fpr_read_decimal(&at, &kept) || at.at == end || *at.at != '/')
        return;
    at.at++;
    if (!fpr_read_decimal(&at, &written))
        return;
    state->entries_in_buffer = kept;
    state->entries_written = written;
}

/* One whole line: a reason, OUTCOME_EVENT or OUTCOME_MARKER. */
static int read_line(struct fpr_trace_state *state, const uint8_t *start, const uint8_t *end,
                     struct fpr_trace_event *event, struct fpr_span *text)
{
    struct line line = {.time_seen = 0};
    const uint8_t *bracket;
    int kind;

    if (end > start && end[-1] == '\r')
        end--;
    while (start < end && (*start == ' ' || *start == '\t'))
        start++;
    if (start == end)
        return FPR_TRACE_COMMENT;
    const uint8_t *front = end - start > FRONT_BYTES ? start + FRONT_BYTES : end;
    for (bracket = start;; bracket++) {
        bracket = memchr(bracket, '[', (size_t)(front - bracket));
        if (!bracket) {
            if (read_lost(start, end, &state->lost_events))
                return FPR_TRACE_LOST;
            if (is_preamble(start, end))
                return FPR_TRACE_COMMENT;
            if (*start == '#') { /* only here: a task's name may begin with it */
                read_comment(state, start, end);
                return FPR_TRACE_COMMENT;
            }
            return line.time_seen ? FPR_TRACE_BAD_TIME : FPR_TRACE_FOREIGN_LINE;
        }
        if (read_front(start, bracket, end, &line))
            break;
    }
    event->time_ns = line.time_ns;
    if (read_marker(&line, text))
        return OUTCOME_MARKER;
    strip_system(&line.name);
    kind = event_kind(&line.name);
    if (kind < 0)
        return read_marker(&line, text) ? OUTCOME_MARKER : FPR_TRACE_FOREIGN_EVENT;
    event->kind = (uint8_t)kind;
    event->cpu = (uint16_t)line.cpu;
    event->pid = line.pid;
    int reason = fpr_trace_fields(&line.body, event);
    event->flags |= line.context;
    return reason == FPR_TRACE_FIELDS_READ ? OUTCOME_EVENT : reason;
}

static void count(struct fpr_trace_state *state, int reason)
{
    if (state->counts[reason]++ == 0)
        state->first_line[reason] = state->lines;
}

int fpr_trace_parse(struct fpr_trace_state *state, const uint8_t *text, uint64_t bytes, int last,
                    struct fpr_trace_event *events, uint64_t events_capacity,
                    struct fpr_trace_marker *markers, uint64_t markers_capacity,
                    uint64_t *events_count, uint64_t *markers_count, uint64_t *consumed)
{
    uint64_t at = 0, taken = 0, marked = 0;

    if (!state || (!text && bytes) || !events || !markers || !events_count || !markers_count ||
        !consumed || !events_capacity || !markers_capacity)
        return FPR_BAD_ARGUMENT;
    while (at < bytes && taken < events_capacity && marked < markers_capacity) {
        const uint8_t *start = text + at;
        const uint8_t *end = memchr(start, '\n', bytes - at);
        struct fpr_span body;

        if (!end && !last && bytes - at < FPR_TRACE_LINE_BYTES)
            break;
        if (!state->inside_long_line)
            state->lines++;
        if (!end || end - start >= FPR_TRACE_LINE_BYTES || state->inside_long_line) {
            int unfinished = !end && bytes - at < FPR_TRACE_LINE_BYTES;
            if (!state->inside_long_line)
                count(state, unfinished ? FPR_TRACE_UNFINISHED : FPR_TRACE_LONG_LINE);
            state->inside_long_line = !end;
            at = end ? (uint64_t)(end - text) + 1 : bytes;
            continue;
        }
        int outcome = read_line(state, start, end, &events[taken], &body);
        uint32_t line = state->lines < UINT32_MAX ? (uint32_t)state->lines : UINT32_MAX;
        if (outcome == OUTCOME_EVENT)
            events[taken++].line = line;
        else if (outcome == OUTCOME_MARKER)
            markers[marked++] =
                (struct fpr_trace_marker){events[taken].time_ns, (uint64_t)(body.at - text),
                                          (uint32_t)(body.end - body.at), line};
        else
            count(state, outcome);
        at = (uint64_t)(end - text) + 1;
    }
    *events_count = taken;
    *markers_count = marked;
    *consumed = at;
    return FPR_OK;
}
