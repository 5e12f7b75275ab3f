/* One inference: the kernels one after the other. */
#include "runtime.h"

int run_model(void) {
    for (int i = 0; i < model.call_count; i++) {
        const struct call *call = &model.calls[i];
        kernel_argument result = {0};
        int32_t error = call->run(NULL, call->arguments, call->count, &result);
        if (error) return complain(FAILED, "RuntimeError", "kernel %s failed with %d", call->name, (int)error);
    }
    return OK;
}
