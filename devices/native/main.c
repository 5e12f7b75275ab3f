/* A compiled network as one program. Nothing is installed for it and nothing listens.
 *
 *   PROGRAM facts                                                    what it is, as one JSON line
 *   PROGRAM check --input in.bin --output out.bin [--threads N]      one inference; --input and --output once a tensor
 *   PROGRAM measure --samples N --seconds S [--threads N] [--group G] [--warmup W] [--input in.bin]
 *                                                                    JSON lines: warm-up, samples in ns, memory, faults
 *   PROGRAM serve [--threads N]                                      requests as JSON lines on stdin: see serve.c
 *
 * All but facts also take --cores 2,3, the cores to run on. Without --input, measure runs on zeros. Exit statuses are
 * those of runtime.h; an error is one JSON line {"error":..,"message":..}, and is told on stderr too. Start with `main`.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "runtime.h"

enum { MAX_PORTS = 64, MAX_CORES = 64 };

static const char usage[] =
    "usage: PROGRAM facts\n"
    "       PROGRAM check --input FILE --output FILE [--threads N] [--cores LIST]\n"
    "       PROGRAM measure --samples N --seconds S [--threads N] [--group G] [--warmup W] [--input FILE] [--cores LIST]\n"
    "       PROGRAM serve [--threads N] [--cores LIST]\n";

static char *inputs[MAX_PORTS], *outputs[MAX_PORTS];
static int input_count, output_count, cores[MAX_CORES], core_count;
static double number_of_threads = 1;
static struct measurement wanted = {.group = 1, .warmup = 10, .samples = 64, .seconds = 1};

static int misuse(const char *what, const char *value) {
    fputs(usage, stderr);
    return complain(USAGE, "UsageError", "%s%s%s", what, *value ? ": " : "", value);
}

/* A number in low..high; whole if `whole`. */
static int read_number(const char *text, double low, double high, int whole, double *value) {
    char *end;
    errno = 0;
    *value = strtod(text, &end);
    if (errno || end == text || *end || !(*value >= low && *value <= high)) return 0;
    return !whole || *value == (double)(long long)*value;
}

static int read_cores(const char *text) {
    while (core_count < MAX_CORES) {
        char *end;
        long core = strtol(text, &end, 10);
        if (end == text || core < 0 || core > INT_MAX) return 0;
        cores[core_count++] = (int)core;
        if (!*end) return 1;
        if (*end != ',') return 0;
        text = end + 1;
    }
    return 0;
}

static int take(const char *option, char *value) {
    double number;
    if (!strcmp(option, "--input") && input_count < MAX_PORTS) inputs[input_count++] = value;
    else if (!strcmp(option, "--output") && output_count < MAX_PORTS) outputs[output_count++] = value;
    else if (!strcmp(option, "--cores")) return read_cores(value);
    else if (!strcmp(option, "--threads")) return read_number(value, 1, 64, 1, &number_of_threads);
    else if (!strcmp(option, "--seconds")) return read_number(value, 0, 86400, 0, &wanted.seconds);
    else if (!strcmp(option, "--samples") && read_number(value, 1, 1e6, 1, &number)) wanted.samples = (long)number;
    else if (!strcmp(option, "--group") && read_number(value, 1, 1e9, 1, &number)) wanted.group = (long)number;
    else if (!strcmp(option, "--warmup") && read_number(value, 0, 1e6, 1, &number)) wanted.warmup = (long)number;
    else return 0;
    return 1;
}

/* What a program needs before its kernels may run: the processor's instructions, memory, threads. */
static int prepare(void) {
    int threads = (int)number_of_threads;
    const char *missing = missing_feature(model.features);
    if (missing)
        return complain(UNFIT, "UnfitError", "this processor has no %s, which code for %s needs", missing, model.target);
    if (threads > model.max_threads)
        return complain(USAGE, "UsageError", "--threads %d: this program is compiled for %d", threads, model.max_threads);
    int status = prepare_workspaces(threads);
    if (!status) status = start_pool(threads, cores, core_count);
    if (status == NO_MEMORY) return complain(status, "MemoryError", "no memory for %d threads", threads);
    return status;
}

static void end_quietly(int number) {
    _exit(128 + number); /* nothing is half-written that a reader would take for whole */
}

int main(int count, char **arguments) {
    static const char *const modes[] = {"facts", "check", "measure", "serve"};
    int mode = -1;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, end_quietly);
    for (int i = 0; count > 1 && i < 4; i++)
        if (!strcmp(arguments[1], modes[i])) mode = i;
    if (mode < 0) return misuse(count > 1 ? "unknown mode" : "no mode", count > 1 ? arguments[1] : "");
    for (int i = 2; i < count; i += 2) {
        if (i + 1 == count) return misuse("no value for", arguments[i]);
        if (!take(arguments[i], arguments[i + 1])) {
            fprintf(stderr, "at %s:\n", arguments[i]);
            return misuse("an option that is unknown, or has a bad value", arguments[i + 1]);
        }
    }
    if (mode == 0) return facts();
    int status = prepare();
    if (status) return status;
    if (mode == 1) return check(inputs, input_count, outputs, output_count);
    if (mode == 2) return measure(&wanted, inputs, input_count);
    return serve();
}
