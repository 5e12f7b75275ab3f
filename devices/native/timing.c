/* Clock and counters of the process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "runtime.h"

int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* the sum of a file's lines "key: N kB", in bytes; 0 where there are none */
static int64_t sum_of(const char *path, const char *key) {
    FILE *file = fopen(path, "r");
    char line[256];
    size_t length = strlen(key);
    int64_t kilobytes = 0;
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, key, length)) kilobytes += atol(line + length);
    if (file) fclose(file);
    return kilobytes * 1024;
}

/* The maximum of getrusage comes last: it survives exec, so it can be that of the program that started this one.
 * Kernels before 6.2 add to the counter behind VmHWM only after 64 page faults of up to 16 pages each, so that it can
 * lag by 4 MB (SPLIT_RSS_COUNTING of mm/memory.c); the walk over the pages themselves does not, and as nothing is given
 * back before it, the larger of both is the peak. */
int64_t peak_rss_bytes(void) {
    int64_t peak = sum_of("/proc/self/status", "VmHWM:");
    int64_t now = sum_of("/proc/self/smaps_rollup", "Rss:");
    if (!now) now = sum_of("/proc/self/smaps", "Rss:"); /* before 4.14 */
    if (now > peak) peak = now;
    if (peak) return peak;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (int64_t)usage.ru_maxrss * 1024;
}

struct faults page_faults(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (struct faults){usage.ru_minflt, usage.ru_majflt};
}
