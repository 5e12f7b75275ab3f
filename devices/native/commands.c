/* The modes facts, check and measure. */
#include "commands.h"

#include <stdlib.h>

#include "runtime.h"

enum { SAMPLES_A_LINE = 150 };

static void say_ports(const char *key, const struct port *ports, int count) {
    say(",\"%s\":[", key);
    for (int i = 0; i < count; i++) {
        say(i ? ",{\"name\":" : "{\"name\":");
        say_text(ports[i].name);
        say(",\"dtype\":\"%s\",\"shape\":[", ports[i].dtype);
        for (int axis = 0; axis < ports[i].rank; axis++) say(axis ? ",%lld" : "%lld", (long long)ports[i].shape[axis]);
        say("]}");
    }
    say("]");
}

int facts(void) {
    say("{\"model\":");
    say_text(model.name);
    say(",\"target\":");
    say_text(model.target);
    say(",\"features\":\"%s\",\"compiler\":", model.features);
    say_text(model.compiler);
    say_ports("inputs", model.inputs, model.input_count);
    say_ports("outputs", model.outputs, model.output_count);
    say(",\"max_threads\":%d,\"kernels\":%d", model.max_threads, model.call_count);
    say(",\"weights_bytes\":%llu,\"arena_bytes\":%llu,\"workspace_bytes\":%llu}",
        (unsigned long long)model.weights_bytes, (unsigned long long)model.arena_bytes,
        (unsigned long long)model.workspace_bytes);
    return end_line();
}

int check(char *const *inputs, int input_count, char *const *outputs, int output_count) {
    int status = read_ports(inputs, input_count);
    if (!status) status = run_model();
    if (!status) status = write_ports(outputs, output_count);
    if (status) return status;
    say("{\"ok\":\"check\",\"workspace_peak_bytes\":%llu}", (unsigned long long)workspace_peak());
    return end_line();
}

static int run_times(long count) {
    for (long i = 0; i < count; i++) {
        int status = run_model();
        if (status) return status;
    }
    return OK;
}

static int write_samples(const int64_t *taken, long count) {
    for (long start = 0; start < count; start += SAMPLES_A_LINE) {
        say("{\"samples_ns\":[");
        for (long i = start; i < count && i < start + SAMPLES_A_LINE; i++)
            say(i > start ? ",%lld" : "%lld", (long long)taken[i]);
        say("]}");
        int status = end_line();
        if (status) return status;
    }
    return OK;
}

int take_samples(const struct measurement *wanted) {
    long room = wanted->samples, count = 0;
    int64_t *taken = malloc((size_t)room * sizeof *taken);
    int status = taken ? run_times(wanted->warmup) : complain(NO_MEMORY, "MemoryError", "no memory for the samples");
    int64_t end = now_ns() + (int64_t)(wanted->seconds * 1e9);
    while (!status) {
        if (count == room) { /* the seconds are not over: room for as many again */
            int64_t *more = realloc(taken, (size_t)(room *= 2) * sizeof *taken);
            if (!more) {
                status = complain(NO_MEMORY, "MemoryError", "no memory for %ld samples", room);
                break;
            }
            taken = more;
        }
        int64_t before = now_ns();
        status = run_times(wanted->group);
        int64_t after = now_ns();
        taken[count++] = after - before;
        if (count >= wanted->samples && after >= end) break;
    }
    if (!status) status = write_samples(taken, count);
    free(taken);
    return status;
}

int measure(const struct measurement *wanted, char *const *inputs, int input_count) {
    int status = input_count ? read_ports(inputs, input_count) : OK;
    int64_t start = now_ns();
    if (!status) status = run_times(wanted->warmup);
    if (status) return status;
    say("{\"warmup\":%ld,\"warmup_ns\":%lld}", wanted->warmup, (long long)(now_ns() - start));
    if ((status = end_line())) return status;
    struct faults before = page_faults();
    struct measurement warm = *wanted;
    warm.warmup = 0;
    if ((status = take_samples(&warm))) return status;
    struct faults after = page_faults();
    say("{\"ok\":\"measure\",\"group\":%ld,\"peak_rss_bytes\":%lld,\"workspace_peak_bytes\":%llu", wanted->group,
        (long long)peak_rss_bytes(), (unsigned long long)workspace_peak());
    say(",\"minor_faults\":%lld,\"major_faults\":%lld}", (long long)(after.minor - before.minor),
        (long long)(after.major - before.major));
    return end_line();
}
