/* What C code that TVM writes takes from TVM's headers, and nothing else; layouts as in model.h. */
#ifndef EDGEPRUNE_TVM_TYPES_H
#define EDGEPRUNE_TVM_TYPES_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TVM_DLL

typedef struct {
    int32_t type_index;
    uint32_t zero_padding;
    union {
        int64_t v_int64;
        double v_float64;
        void *v_ptr;
    };
} TVMFFIAny;

typedef struct {
    void *data;
    struct {
        int32_t device_type, device_id;
    } device;
    int32_t ndim;
    struct {
        uint8_t code, bits;
        uint16_t lanes;
    } dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} DLTensor;

void *TVMBackendAllocWorkspace(int device, int number, uint64_t bytes, int code, int bits);
int TVMBackendFreeWorkspace(int device, int number, void *pointer);

/* The larger and the smaller of two numbers, named by TVM's type names; not a number counts as the smaller or larger. */
#define KERNEL_EXTREMES(type, name)                                         \
    static inline type kernel_max_##name(type a, type b) { return a > b ? a : b; } \
    static inline type kernel_min_##name(type a, type b) { return a < b ? a : b; }
KERNEL_EXTREMES(float, float32)
KERNEL_EXTREMES(double, float64)
KERNEL_EXTREMES(int8_t, int8)
KERNEL_EXTREMES(int16_t, int16)
KERNEL_EXTREMES(int32_t, int32)
KERNEL_EXTREMES(int64_t, int64)
KERNEL_EXTREMES(uint8_t, uint8)
KERNEL_EXTREMES(uint16_t, uint16)
KERNEL_EXTREMES(uint32_t, uint32)
KERNEL_EXTREMES(uint64_t, uint64)

#endif
