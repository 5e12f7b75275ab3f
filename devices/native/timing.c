/* Clock and counters of the process. */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "runtime.h"

int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* VmHWM first: the maximum of getrusage survives exec, so it can be that of the program that started this one. */
int64_t peak_rss_bytes(void) {
    FILE *status = fopen("/proc/self/status", "r");
    char line[128];
    long kilobytes = 0;
    int found = 0;
    while (status && !found && fgets(line, sizeof line, status)) found = sscanf(line, "VmHWM: %ld", &kilobytes) == 1;
    if (status) fclose(status);
    if (found) return (int64_t)kilobytes * 1024;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (int64_t)usage.ru_maxrss * 1024;
}

struct faults page_faults(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (struct faults){usage.ru_minflt, usage.ru_majflt};
}
