/* A plugin of qemu-user (interface 1, qemu 4.2 to 8.2) that counts the instructions a program executes.
 *
 * It adds the length of each translated block when the block runs, which costs a few per cent, and writes one JSON line
 * {"instructions":N} to the file that the argument `out=FILE` names. It is exact for programs of one thread. The few
 * types of qemu's interface are declared here, so nothing of qemu is needed to compile it.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define VISIBLE __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_info;
enum { ADD_U64 = 0 };

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *, uint64_t);
extern void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);

VISIBLE int qemu_plugin_version = 1;

static uint64_t executed;
static char path[4096];

static void translated(plugin_id id, struct qemu_plugin_tb *block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &executed, qemu_plugin_tb_n_insns(block));
}

static void ended(plugin_id id, void *unused) {
    (void)id, (void)unused;
    FILE *file = fopen(path, "w");
    if (!file) return;
    fprintf(file, "{\"instructions\":%llu}\n", (unsigned long long)executed);
    fclose(file);
}

VISIBLE int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int count, char **arguments) {
    (void)info;
    for (int i = 0; i < count; i++)
        if (!strncmp(arguments[i], "out=", 4)) snprintf(path, sizeof path, "%s", arguments[i] + 4);
    if (!*path) {
        fputs("count_instructions: no out=FILE\n", stderr);
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
