/* SPDX-License-Identifier: MIT */
/* How a stack says whose it is. A scheduler writes this tag into the last bytes of each stack it
 * makes; a platform that sees a fault in a page taken away by page_protect() finds the tag by it
 * and can say which task ran out of stack.
 *
 *     guard             guard + page                               top
 *     | no access ......| stack, grows towards the guard ... | tag |       (tag ends a page)
 *
 * The tag lies where an overflow cannot reach it, and a name is copied so that one read finds it.
 */
#ifndef KIT_RT_STACK_H
#define KIT_RT_STACK_H

#include <unikit/rt/types.h>

#define KIT_STACK_MAGIC UINT64_C(0x6b63617473696e75)
#define KIT_STACK_PAGE 4096u

/* 64 bytes. */
struct kit_stack_tag {
    uint64_t magic;             /* KIT_STACK_MAGIC */
    uintptr_t guard;            /* address of the guard page; 0: there is none */
    char name[32];              /* of the task, cut and NUL terminated */
    uint64_t size;              /* bytes from the guard page (or the stack's end) to the top */
    struct kit_stack_tag *next; /* the scheduler's */
};

/* The tag of the stack whose guard page holds `fault`, or NULL if none ends below `limit`.
 * `fault` MUST lie in a page without access, else the search may run into one. O(stack pages). */
KIT_INLINE const struct kit_stack_tag *kit_stack_overflowed(uintptr_t fault, uintptr_t limit)
{
    uintptr_t guard = fault & ~(uintptr_t)(KIT_STACK_PAGE - 1);
    for (uintptr_t end = guard + 2 * KIT_STACK_PAGE; end > guard && end <= limit;
         end += KIT_STACK_PAGE) {
        const struct kit_stack_tag *tag = (const struct kit_stack_tag *)end - 1;
        if (tag->magic == KIT_STACK_MAGIC && tag->guard == guard)
            return tag;
    }
    return NULL;
}

#endif
