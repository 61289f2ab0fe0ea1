/* Plug-in for QEMU's user-mode emulation: count the executed instructions of a program with one busy thread.
 *
 *   gcc -shared -fPIC -O2 -o count.so count.c
 *   qemu-aarch64 -plugin file=./count.so,out=FILE PROGRAM
 *
 * FILE gets one line for each getppid system call: the number of instructions so far. A program marks the begin and the
 * end of its work with getppid, which costs little and which nothing else calls.
 *
 * QEMU 7.2 installs no header for plug-ins. The declarations here follow its documentation, interface version 1.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define GETPPID_OF_AARCH64 173
#define ADD_U64 0 /* the only inline operation */

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
typedef void (*on_translation)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*on_system_call)(qemu_plugin_id_t, unsigned int vcpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t,
                               uint64_t, uint64_t, uint64_t, uint64_t);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, on_translation);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, on_system_call);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *counter, uint64_t amount);

int qemu_plugin_version = 1;
static uint64_t executed;
static FILE *out;

static void add_block(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &executed, qemu_plugin_tb_n_insns(block));
}

static void write_at_mark(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a, uint64_t b, uint64_t c,
                          uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    if (number == GETPPID_OF_AARCH64) {
        fprintf(out, "%" PRIu64 "\n", executed);
        fflush(out);
    }
}

int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int count, char **arguments)
{
    if (count != 1 || strncmp(arguments[0], "out=", 4) != 0 || !(out = fopen(arguments[0] + 4, "w"))) {
        fprintf(stderr, "count.so: expected one argument, out=FILE, with a FILE that can be written\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, add_block);
    qemu_plugin_register_vcpu_syscall_cb(id, write_at_mark);
    return 0;
}
