/* SPDX-License-Identifier: MIT */
/* What sanitizers must be told when a processor goes to another stack (compiler-rt,
 * sanitizer/common_interface_defs.h and tsan_interface.h). Without them this is nothing. Inner
 * interface of unikit/sched.
 *
 * The context of a task has a struct fiber with the bounds of its stack; that of turn() learns its
 * own when it is left. Call fiber_leave in the function that switches, right before the switch, and
 * fiber_arrive where the switch comes out, before anything else. */
#ifndef KIT_SCHED_FIBER_H
#define KIT_SCHED_FIBER_H

#include <unikit/sched/stack.h>

#ifdef __SANITIZE_ADDRESS__
#define FIBER_WATCHED 1
#elif defined __SANITIZE_THREAD__
#define FIBER_WATCHED 1
#else
#define FIBER_WATCHED 0
#endif

#if FIBER_WATCHED
struct fiber {
    void *fake_stack;
    const void *bottom;
    size_t size;
    void *thread; /* as ThreadSanitizer knows it */
    bool left;    /* turn()'s: nobody has arrived since it was left */
};

#ifdef __SANITIZE_ADDRESS__
void __sanitizer_start_switch_fiber(void **fake_stack, const void *bottom, size_t size);
void __sanitizer_finish_switch_fiber(void *fake_stack, const void **bottom, size_t *size);
void __asan_unpoison_memory_region(const volatile void *address, size_t size);
#else
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void *fiber);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
#endif

/* Of a new task. */
KIT_INLINE void fiber_open(struct fiber *fiber, const struct kit_stack_tag *stack)
{
    *fiber = (struct fiber){.bottom = (const void *)stack_end(stack),
                            .size = (uintptr_t)stack - stack_end(stack)};
#ifdef __SANITIZE_THREAD__
    fiber->thread = __tsan_create_fiber(0);
#endif
}

/* Of turn(), each time before it is left. */
KIT_INLINE void fiber_turn(struct fiber *fiber)
{
    fiber->left = true;
#ifdef __SANITIZE_THREAD__
    fiber->thread = __tsan_get_current_fiber();
#endif
}

/* The task's frames are gone: what they left poisoned must not hurt the stack's next user. */
KIT_INLINE void fiber_close(struct fiber *fiber, const struct kit_stack_tag *stack)
{
#ifdef __SANITIZE_ADDRESS__
    (void)fiber;
    __asan_unpoison_memory_region((const void *)stack_end(stack),
                                  (uintptr_t)stack - stack_end(stack));
#else
    (void)stack;
    __tsan_destroy_fiber(fiber->thread);
#endif
}

/* `for_ever`: nothing of the fiber that is left will be used again. */
__attribute__((always_inline)) KIT_INLINE void fiber_leave(struct fiber *from,
                                                           const struct fiber *to, bool for_ever)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(for_ever ? NULL : &from->fake_stack, to->bottom, to->size);
#else
    (void)from, (void)for_ever;
    __tsan_switch_to_fiber(to->thread, 0);
#endif
}

/* `turn`: that of the turn() on this processor. */
KIT_INLINE void fiber_arrive(struct fiber *at, struct fiber *turn)
{
#ifdef __SANITIZE_ADDRESS__
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(at->fake_stack, &bottom, &size);
    at->fake_stack = NULL;
    if (turn->left) {
        turn->bottom = bottom;
        turn->size = size;
    }
#else
    (void)at;
#endif
    turn->left = false;
}

#define FIBER_MEMBER struct fiber fiber;
#define FIBER_OPEN(owner, stack) fiber_open(&(owner)->fiber, stack)
#define FIBER_TURN(owner) fiber_turn(&(owner)->fiber)
#define FIBER_CLOSE(owner, stack) fiber_close(&(owner)->fiber, stack)
/* `to` NULL: to the turn(). */
#define FIBER_LEAVE(from, to, turn, for_ever)                                                      \
    fiber_leave(&(from)->fiber, (to) != NULL ? &(to)->fiber : &(turn)->fiber, for_ever)
#define FIBER_ARRIVE(at, turn) fiber_arrive(&(at)->fiber, &(turn)->fiber)
#else
#define FIBER_MEMBER
#define FIBER_OPEN(owner, stack) ((void)0)
#define FIBER_TURN(owner) ((void)0)
#define FIBER_CLOSE(owner, stack) ((void)0)
#define FIBER_LEAVE(from, to, turn, for_ever) ((void)0)
#define FIBER_ARRIVE(at, turn) ((void)0)
#endif

#endif
