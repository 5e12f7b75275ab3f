/* The symbols that TVM's object code asks for: pointers that it calls through, and functions that note an error. */
#include <string.h>

#include "runtime.h"

static void *hook_alloc(int device, int number, uint64_t bytes, int code, int bits) {
    (void)device, (void)number, (void)code, (void)bits;
    return borrow(bytes);
}

static int hook_free(int device, int number, void *pointer) {
    (void)device, (void)number;
    return give_back(pointer);
}

/* Objects of LLVM call through these; strong definitions here take the place of its weak ones. */
void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = hook_alloc;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = hook_free;
int (*__TVMBackendParallelLaunch)(task *, void *, int) = launch_tasks;
int (*__TVMBackendParallelBarrier)(int, struct launch *) = barrier;

/* C code that TVM writes calls these. */
void *TVMBackendAllocWorkspace(int device, int number, uint64_t bytes, int code, int bits) {
    return hook_alloc(device, number, bytes, code, bits);
}
int TVMBackendFreeWorkspace(int device, int number, void *pointer) { return hook_free(device, number, pointer); }
int TVMBackendParallelLaunch(task *run, void *shared, int tasks) { return launch_tasks(run, shared, tasks); }
int TVMBackendParallelBarrier(int number, struct launch *launch) { return barrier(number, launch); }

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
    char text[512] = "";
    for (int32_t i = 0; i < count; i++)
        if (parts[i]) strncat(text, parts[i], sizeof text - strlen(text) - 1);
    complain(FAILED, kind, "%s", text);
}

void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *text) { complain(FAILED, kind, "%s", text); }
