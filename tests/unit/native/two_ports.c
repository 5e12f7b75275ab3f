/* A network by hand, as edgeprune's compiler would write it: int8 and int64 in, bool and int64 out, kernels in plain C.
 *
 *   kernel `scale`     int64 out[i] = int64 in[i] * int8 in[i % 4], shared between threads, through borrowed memory
 *   kernel `positive`  bool out[i] = out[i] > 0
 *   kernel `many`      20 arguments; adds the number of arguments that are the same tensor to the first output
 * EDGEPRUNE_FAIL=kernel | task | memory makes that part fail.
 */
#include <stdlib.h>
#include <string.h>

#include "model.h"

enum { LENGTH = 1000 };

extern int TVMBackendParallelLaunch(int (*run)(int, void *, void *), void *shared, int tasks);
extern int TVMBackendParallelBarrier(int number, void *launch);
extern void *TVMBackendAllocWorkspace(int device, int number, uint64_t bytes, int code, int bits);
extern int TVMBackendFreeWorkspace(int device, int number, void *pointer);

struct shared {
    int64_t *numbers, *out;
    int8_t *factors;
};
struct launch_of_tvm {
    void *sync;
    int32_t tasks;
};

static int fails(const char *part) {
    const char *wanted = getenv("EDGEPRUNE_FAIL");
    return wanted && !strcmp(wanted, part);
}

/* Each task copies its part to borrowed memory; after the barrier it reads what the next task wrote to the output. */
static int scale_task(int number, void *launch, void *closure) {
    struct shared *shared = closure;
    int tasks = ((struct launch_of_tvm *)launch)->tasks;
    int from = LENGTH * number / tasks, to = LENGTH * (number + 1) / tasks;
    if (fails("task") && number == tasks - 1) return 7;
    int64_t *held = TVMBackendAllocWorkspace(1, 0, sizeof *held * (uint64_t)(fails("memory") ? 10 * LENGTH : LENGTH), 0, 64);
    if (!held) return -1;
    for (int i = from; i < to; i++) held[i - from] = shared->numbers[i];
    for (int i = from; i < to; i++) shared->out[i] = held[i - from];
    if (TVMBackendParallelBarrier(number, launch)) return -2;
    int next = (number + 1) % tasks;
    for (int i = LENGTH * next / tasks; i < LENGTH * (next + 1) / tasks; i++) held[0] = shared->out[i];
    if (TVMBackendParallelBarrier(number, launch)) return -2;
    for (int i = from; i < to; i++) shared->out[i] *= shared->factors[i % 4];
    return TVMBackendFreeWorkspace(1, 0, held);
}

static void *tensor_at(kernel_argument *arguments, int place) {
    return ((kernel_tensor *)arguments[place].value.pointer)->data;
}

static int32_t scale(void *self, void *arguments, int32_t count, void *result) {
    (void)self, (void)count, (void)result;
    struct shared shared = {tensor_at(arguments, 0), tensor_at(arguments, 2), tensor_at(arguments, 1)};
    return TVMBackendParallelLaunch(scale_task, &shared, 0);
}

static int32_t positive(void *self, void *arguments, int32_t count, void *result) {
    (void)self, (void)count, (void)result;
    int64_t *in = tensor_at(arguments, 0);
    unsigned char *out = tensor_at(arguments, 1);
    for (int i = 0; i < LENGTH; i++) out[i] = in[i] > 0;
    return fails("kernel") ? 3 : 0;
}

static int32_t many(void *self, void *arguments, int32_t count, void *result) {
    (void)self, (void)result;
    int64_t *out = tensor_at(arguments, 0);
    for (int32_t i = 0; i < count; i++) out[0] += tensor_at(arguments, i) == (void *)out;
    return 0;
}

static int64_t numbers[LENGTH], scaled[LENGTH];
static int8_t factors[4];
static unsigned char signs[LENGTH];
static int64_t long_shape[] = {LENGTH}, short_shape[] = {4}, sign_shape[] = {10, 100};
static kernel_tensor tensors[] = {
    {numbers, {KERNEL_CPU, 0}, 1, {0, 64, 1}, long_shape, 0, 0},
    {factors, {KERNEL_CPU, 0}, 1, {0, 8, 1}, short_shape, 0, 0},
    {scaled, {KERNEL_CPU, 0}, 1, {0, 64, 1}, long_shape, 0, 0},
    {signs, {KERNEL_CPU, 0}, 2, {6, 8, 1}, sign_shape, 0, 0},
};
#define T(i) {KERNEL_TENSOR, 0, {.pointer = &tensors[i]}}
static kernel_argument scale_arguments[] = {T(0), T(1), T(2)};
static kernel_argument positive_arguments[] = {T(2), T(3)};
static kernel_argument many_arguments[] = {T(2), T(2), T(2), T(2), T(2), T(0), T(0), T(0), T(0), T(0),
                                           T(1), T(1), T(1), T(1), T(1), T(3), T(3), T(3), T(3), T(2)};
static const struct call calls[] = {
    {scale, scale_arguments, 3, "scale"},
    {positive, positive_arguments, 2, "positive"},
    {many, many_arguments, 20, "many"},
};
static const struct port inputs[] = {
    {"numbers", "int64", numbers, sizeof numbers, long_shape, 1},
    {"fac\"tors", "int8", factors, sizeof factors, short_shape, 1},
};
static const struct port outputs[] = {
    {"signs", "bool", signs, sizeof signs, sign_shape, 2},
    {"scaled", "int64", scaled, sizeof scaled, long_shape, 1},
};

#ifndef FEATURES
#define FEATURES ""
#endif

#ifndef TARGET
#define TARGET "test"
#endif

const struct model model = {
    .name = "two \\ ports", .target = TARGET, .compiler = "by hand", .features = FEATURES,
    .inputs = inputs, .outputs = outputs, .input_count = 2, .output_count = 2,
    .calls = calls, .call_count = 3, .max_threads = 64,
    .weights_bytes = 0, .arena_bytes = 0, .workspace_bytes = LENGTH * 8,
};
