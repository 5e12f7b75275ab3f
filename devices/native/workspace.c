/* Workspaces: what a kernel borrows while it runs, and gives back in the opposite order. One a thread, none grows. */
#include <stdlib.h>

#include "runtime.h"

enum { ALIGNMENT = 64, DEEPEST = 64 };

struct workspace {
    unsigned char *memory;
    uint64_t used, peak;
    uint64_t starts[DEEPEST]; /* of what is borrowed now */
    int depth;
};

static struct workspace *workspaces;
static int count;
static _Thread_local int mine;

int prepare_workspaces(int threads) {
    uint64_t bytes = (model.workspace_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    workspaces = calloc((size_t)threads, sizeof *workspaces);
    if (!workspaces) return NO_MEMORY;
    for (count = 0; count < threads && bytes; count++) {
        if (bytes > SIZE_MAX || posix_memalign((void **)&workspaces[count].memory, ALIGNMENT, (size_t)bytes))
            return NO_MEMORY;
    }
    return OK;
}

void own_workspace(int thread) { mine = thread; }

void *borrow(uint64_t bytes) {
    struct workspace *space = &workspaces[mine];
    uint64_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (rounded < bytes || rounded > model.workspace_bytes - space->used || space->depth == DEEPEST) return NULL;
    space->starts[space->depth++] = space->used;
    void *place = space->memory + space->used;
    space->used += rounded;
    if (space->used > space->peak) space->peak = space->used;
    return place;
}

int give_back(void *pointer) {
    struct workspace *space = &workspaces[mine];
    if (!space->depth || space->memory + space->starts[space->depth - 1] != pointer) return -1;
    space->used = space->starts[--space->depth];
    return 0;
}

uint64_t workspace_peak(void) {
    uint64_t most = 0;
    for (int i = 0; i < count; i++)
        if (workspaces[i].peak > most) most = workspaces[i].peak;
    return most;
}
