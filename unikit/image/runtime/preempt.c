/* SPDX-License-Identifier: MIT */
/* Preemption (docs/design/preemption.rst), as far as it is the runtime's: where safe points and
 * upcalls lead, and that devices are looked at while tasks compute.
 *
 * The main loop counts as inside a component, with all that it calls; tasks begin outside
 * (sched/thread.c). So nothing but the code of tasks is ever stopped. */
#include <unikit/image/runtime/runtime.h>
#include <unikit/rt/x86_64/cpu.h>

_Static_assert(offsetof(struct kit_cpu, inside) == KIT_CPU_INSIDE_OFFSET, "inside.h, upcall.S");
_Static_assert(offsetof(struct kit_cpu, due) == KIT_CPU_DUE_OFFSET, "inside.h");
_Static_assert(KIT_CPU_INSIDE_OFFSET == 4, "upcall.S");

enum { VECTOR_STATE = 0xe7 /* x87, SSE, AVX, AVX-512: what upcall.S has room for */ };

/* upcall.S */
void kit_upcall(void);
extern uint32_t kit_upcall_state, kit_upcall_mxcsr;
extern uint16_t kit_upcall_fcw;
void kit_preempt(void);

__attribute__((used)) uint32_t kit_upcall_state; /* state components to save; 0: by FXSAVE */
__attribute__((used)) uint32_t kit_upcall_mxcsr; /* the image's control words */
__attribute__((used)) uint16_t kit_upcall_fcw;

__attribute__((used)) void kit_preempt(void)
{
    kit_sched_preempt(kit_runtime.sched);
}

void kit_safe_point_due(void)
{
    if (kit_inside_depth() != 0)
        return;
    kit_inside_enter();
    kit_inside_set_due(0);
    kit_preempt();
    kit_inside_leave_quietly();
}

void kit_runtime_begin_inside(void)
{
    kit_inside_set_depth(1);
}

void kit_runtime_allow_upcalls(runtime_environment_t *env)
{
    if (kit_env_cpu_features(env) & KIT_CPU_XSAVE)
        kit_upcall_state = (uint32_t)kit_cpu_xcr0() & VECTOR_STATE;
    __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(kit_upcall_mxcsr), "=m"(kit_upcall_fcw));
    kit_env_cpu_self(env)->upcall = kit_upcall;
}

/* ---- devices ----------------------------------------------------------------------------------
 */

static void look(struct kit_timer *timer);

static struct kit_timer watch = {.run = look};

/* Without memory for it tasks run for as long as the policy says, this once. */
static void arm_watch(void)
{
    uint64_t now_ns = kit_env_now_ns(kit_runtime.state.runtime);
    (void)kit_sched_arm(kit_runtime.sched, &watch, now_ns + KIT_TICK_NS);
}

/* That it is due ended the turn before this one, and so will the next. */
static void look(struct kit_timer *timer)
{
    (void)timer;
    arm_watch();
}

void kit_runtime_watch(void)
{
    if (watch.position == 0 && kit_sched_deadline_ns(kit_runtime.sched) == 0)
        arm_watch();
}

void kit_runtime_unwatch(void)
{
    kit_sched_cancel(kit_runtime.sched, &watch);
}
