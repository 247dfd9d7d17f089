/* SPDX-License-Identifier: MIT */
/* alloc.guard: freed blocks wait, oldest first, before their memory is used again. Whoever writes
 * to one is found out by its poison: by the patrol, when it leaves, or in check(). */
#include <unikit/alloc/guard/guard.h>

static void look_at(struct guard *g, struct guard_head *head, size_t edge)
{
    ptrdiff_t offset;
    if (!guard_sealed(g, head) || head->state != GUARD_WAITING || !guard_linked(g, &head->link))
        guard_panic_head(g, head, 0);
    if (guard_touched(g, head, edge, &offset))
        guard_panic(g, "written after it was freed", head, &offset, 0);
}

static void release_oldest(struct guard *g)
{
    struct guard_head *head = guard_head_at(g->waiting.next);
    look_at(g, head, 0);
    if (g->beat == &head->link)
        g->beat = head->link.next;
    kit_list_remove(&head->link);
    g->waiting_bytes -= head->total;
    g->waiting_blocks--;
    guard_unmake(g, head);
}

void guard_wait(struct guard *g, struct guard_head *head)
{
    head->serial = g->ticks;
    kit_list_push_back(&g->waiting, &head->link);
    g->waiting_bytes += head->total;
    g->waiting_blocks++;
    /* The newest stays whatever its size: a block freed twice is mostly freed twice at once. */
    while (g->waiting_blocks > 1 &&
           (g->waiting_bytes > g->quarantine || g->waiting_blocks > g->quarantine_blocks))
        release_oldest(g);
}

void guard_age(struct guard *g)
{
    g->ticks++;
    for (unsigned i = 0; i < GUARD_STEP && g->waiting_blocks != 0; i++) {
        if (g->ticks - guard_head_at(g->waiting.next)->serial <= GUARD_AGE)
            return;
        release_oldest(g);
    }
}

void guard_let_go(struct guard *g)
{
    while (g->waiting_blocks != 0)
        release_oldest(g);
}

void guard_patrol(struct guard *g)
{
    if (g->waiting_blocks == 0 || g->patrol == 0)
        return;
    look_at(g, guard_head_at(g->waiting.prev), GUARD_EDGE);
    for (size_t i = 1; i < g->patrol && i < g->waiting_blocks; i++) {
        if (g->beat == &g->waiting)
            g->beat = g->waiting.next;
        look_at(g, guard_head_at(g->beat), GUARD_EDGE);
        g->beat = g->beat->next;
    }
}
