/* The contract between a compiled network (model.c, written by edgeprune) and the program that runs it (the other files
 * here). Start with `struct model`. No header of TVM is needed: the few types of its binary interface are below.
 */
#ifndef EDGEPRUNE_MODEL_H
#define EDGEPRUNE_MODEL_H

#include <stdint.h>

/* --- what TVM's kernels take: their names and layouts are fixed by the object code ---------------------------------- */

typedef struct {
    int32_t type_index;
    uint32_t zero_padding;
    union {
        int64_t integer;
        double number;
        void *pointer;
    } value;
} kernel_argument;

typedef struct {
    uint8_t code, bits;
    uint16_t lanes;
} kernel_dtype;

typedef struct {
    void *data;
    struct {
        int32_t type, number;
    } device;
    int32_t rank;
    kernel_dtype dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} kernel_tensor;

typedef int32_t kernel(void *self, void *arguments, int32_t count, void *result); /* of kernel_argument */

enum { KERNEL_TENSOR = 7, KERNEL_CPU = 1 };

/* --- a network ------------------------------------------------------------------------------------------------------ */

/* An input or output: `data` is where the kernels read or write it. */
struct port {
    const char *name, *dtype; /* "float32", "int8", "int64", "bool", ... */
    void *data;
    uint64_t bytes;
    const int64_t *shape;
    int rank;
};

/* One kernel on its tensors. */
struct call {
    kernel *run;
    kernel_argument *arguments;
    int32_t count;
    const char *name;
};

struct model {
    const char *name, *target, *compiler;
    const char *features; /* instruction sets that the code uses, separated by spaces: "neon dotprod" */
    const struct port *inputs, *outputs;
    int input_count, output_count;
    const struct call *calls;
    int call_count;
    int max_threads;             /* 1 if no kernel can share its work */
    uint64_t weights_bytes;      /* constants, in the program file */
    uint64_t arena_bytes;        /* tensors between kernels */
    uint64_t workspace_bytes;    /* what one kernel may ask for while it runs, on one thread */
};

extern const struct model model;

#endif
