/* SPDX-License-Identifier: MIT */
/* Thread-local variables (rt/x86_64/tls.h), as far as they are the runtime's: how the thread
 * pointer is set here, and the blocks of the main loops. Only in images that have such variables.
 *
 * Setting it is one instruction where processor and host allow that (FSGSBASE); a platform below
 * whose images there is a kernel may have a system call for it. Without either no image starts,
 * since all of its tasks would share one block. */
#include <unikit/image/runtime/runtime.h>
#include <unikit/rt/x86_64/cpu.h>
#include <unikit/rt/x86_64/tls.h>

/* platform/linux. 0, or KIT_ENOTSUP: not this platform, or the kernel refused. */
__attribute__((weak)) int kit_linux_thread_pointer(runtime_environment_t *env, uintptr_t pointer);

bool kit_tls_by_kernel;

static uintptr_t blocks[KIT_CPUS_MAX]; /* of each processor's main loop: the thread pointer */

static int call_kernel(runtime_environment_t *env, uintptr_t pointer)
{
    return kit_linux_thread_pointer != NULL ? kit_linux_thread_pointer(env, pointer) : KIT_ENOTSUP;
}

void kit_tls_call_kernel(uintptr_t pointer)
{
    if (call_kernel(kit_runtime.state.runtime, pointer) != 0)
        kit_panic("the host no longer sets the thread pointer");
}

int kit_runtime_open_tls(runtime_environment_t *env)
{
    for (uint32_t i = 0; i < env->cpus; i++) {
        void *room = kit_alloc_alloc(kit_runtime.alloc, kit_tls_room(), KIT_TLS_ROOM_ALIGN);
        if (room == NULL)
            return KIT_ENOMEM;
        blocks[i] = kit_tls_make(room);
    }
    if ((kit_env_cpu_features(env) & KIT_CPU_FSGSBASE) == 0) {
        kit_tls_by_kernel = true;
        if (call_kernel(env, blocks[0]) != 0)
            return KIT_ENOTSUP;
    }
    kit_tls_set(blocks[0]);
    return 0;
}

void kit_runtime_begin_tls(uint32_t cpu)
{
    kit_tls_set(blocks[cpu]);
}
