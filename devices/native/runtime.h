/* What the parts of the program offer each other. Start with main.c. */
#ifndef EDGEPRUNE_RUNTIME_H
#define EDGEPRUNE_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#include "model.h"

/* Exit statuses, as sysexits.h numbers them where it has one. */
enum { OK = 0, FAILED = 1, USAGE = 64, BAD_DATA = 65, NO_INPUT = 66, UNFIT = 69, NO_MEMORY = 71, NO_OUTPUT = 73 };

/* report.c: JSON lines on stdout, errors as one line there and on stderr. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void say_text(const char *text);              /* a JSON string, quoted */
int end_line(void);                           /* ends the line and writes it; NO_OUTPUT where that fails */
int complain(int status, const char *kind, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* workspace.c: memory that kernels borrow while they run. */
int prepare_workspaces(int threads);          /* NO_MEMORY where there is none */
void *borrow(uint64_t bytes);                 /* 64-byte aligned, NULL where the workspace is used up */
int give_back(void *pointer);
uint64_t workspace_peak(void);                /* most bytes that any thread has held */
void own_workspace(int thread);               /* the calling thread works as this one from now on */

/* pool.c: threads that share a kernel's outermost loop. */
struct launch {
    void *sync;                               /* TVM hands it back to `barrier` */
    int32_t tasks;
};
typedef int task(int number, struct launch *launch, void *shared);
int start_pool(int threads, const int *cores, int core_count);
int launch_tasks(task *run, void *shared, int tasks);
int barrier(int number, struct launch *launch);

/* features.c: instruction sets of the processor. */
const char *missing_feature(const char *wanted); /* the first that is not there, or NULL */

/* inference.c: one run of the network. */
int run_model(void);                          /* OK, or FAILED after complain() */

/* files.c: tensors as files of raw little-endian numbers in C order. */
int read_ports(char *const *paths, int count);
int write_ports(char *const *paths, int count);

/* timing.c */
int64_t now_ns(void);
int64_t peak_rss_bytes(void);
struct faults {
    int64_t minor, major;
};
struct faults page_faults(void);

#endif
