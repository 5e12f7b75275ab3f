/* Tensors as files: raw little-endian numbers in C order, nothing else. A file must have a tensor's exact length. */
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime.h"

static int read_port(const struct port *port, const char *path) {
    FILE *file = fopen(path, "rb");
    struct stat about;
    if (!file) return complain(NO_INPUT, "FileNotFoundError", "cannot open %s: %s", path, strerror(errno));
    int status = OK;
    if (fstat(fileno(file), &about) == 0 && S_ISREG(about.st_mode) && (uint64_t)about.st_size != port->bytes)
        status = complain(BAD_DATA, "ValueError", "%s holds %lld bytes; the input %s takes %llu", path,
                          (long long)about.st_size, port->name, (unsigned long long)port->bytes);
    else if (fread(port->data, 1, port->bytes, file) != port->bytes)
        status = complain(BAD_DATA, "ValueError", "%s ends before the %llu bytes of the input %s", path,
                          (unsigned long long)port->bytes, port->name);
    fclose(file);
    return status;
}

static int write_port(const struct port *port, const char *path) {
    FILE *file = fopen(path, "wb");
    if (!file) return complain(NO_OUTPUT, "OSError", "cannot write %s: %s", path, strerror(errno));
    struct stat about;
    int is_file = fstat(fileno(file), &about) == 0 && S_ISREG(about.st_mode);
    int short_write = fwrite(port->data, 1, port->bytes, file) != port->bytes;
    if (fclose(file) || short_write) {
        int cause = errno;
        if (is_file) remove(path); /* half a tensor is worse than none */
        return complain(NO_OUTPUT, "OSError", "cannot write %s: %s", path, strerror(cause));
    }
    return OK;
}

int read_ports(char *const *paths, int count) {
    if (count != model.input_count)
        return complain(USAGE, "ValueError", "the network takes %d inputs, %d were given", model.input_count, count);
    for (int i = 0; i < count; i++) {
        int status = read_port(&model.inputs[i], paths[i]);
        if (status) return status;
    }
    return OK;
}

int write_ports(char *const *paths, int count) {
    if (count != model.output_count)
        return complain(USAGE, "ValueError", "the network has %d outputs, %d files were named", model.output_count, count);
    for (int i = 0; i < count; i++) {
        int status = write_port(&model.outputs[i], paths[i]);
        if (status) return status;
    }
    return OK;
}
