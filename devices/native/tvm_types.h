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

#endif
