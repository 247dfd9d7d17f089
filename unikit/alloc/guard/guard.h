/* SPDX-License-Identifier: MIT */
/* What the files of alloc.guard share.
 *
 * A block of the allocator below, and what the caller gets of it:
 *
 *     base                                   block          block + size         base + total
 *     | offset of the head .. | head | front | what was asked for | rest of canary and rounding |
 *     |<------------------- lead ----------->|
 *
 * The head is at the base unless the alignment asks for more room; else the first word of the base
 * says where it is. Front and rest are canaries. A block with pages of its own ends (but for its
 * alignment) where a page ends, and a page that nobody may touch comes behind it:
 *
 *     | page: offset .... head | front .... block, size | rest | page, inaccessible | page |
 *
 * The last page may be touched, so that what lies before the next block always may.
 *
 * Invariants: every block in use is in `live`, oldest first, every freed one that the allocator
 * below has not got back in `waiting`, oldest first; the seal of a head is a function of what may
 * not change while the block exists, and is wiped before the block goes back. */
#ifndef KIT_ALLOC_GUARD_GUARD_H
#define KIT_ALLOC_GUARD_GUARD_H

#include <unikit/alloc/alloc.h>
#include <unikit/rt/bits.h>
#include <unikit/rt/list.h>

enum guard_option {
    GUARD_OPTION_CANARY,
    GUARD_OPTION_POISON,
    GUARD_OPTION_QUARANTINE,
    GUARD_OPTION_QUARANTINE_BLOCKS,
    GUARD_OPTION_PATROL,
    GUARD_OPTION_PAGES,
    GUARD_OPTION_FAIL_AT
};

enum {
    GUARD_FRESH = 0xaf, /* poison of what was never written ... */
    GUARD_FREED = 0xdf, /* ... and of what nobody may write any more */
    GUARD_LIVE = 0x4c495645,
    GUARD_WAITING = 0x57414954,
    GUARD_AGE = 64,  /* ticks that a block waits at most ... */
    GUARD_STEP = 16, /* ... and how many of those leave with one */
    GUARD_EDGE = 64  /* bytes at each end of a waiting block that a patrol looks at */
};

struct guard_head {
    struct kit_list link;
    uint64_t seal;
    char *block;
    size_t size; /* as asked for */
    size_t lead; /* block - base */
    size_t total;
    uintptr_t site;  /* who asked for it ... */
    uintptr_t freed; /* ... and who gave it back */
    uint64_t serial; /* in use: which request it answered; waiting: the tick when it was freed */
    uint32_t state;
    bool paged;           /* it has pages of its own */
    bool guarded;         /* the one behind them is inaccessible */
    bool locked;          /* they are, too */
    uint8_t asked, below; /* logarithms: the alignment asked for, and that of the base */
};

struct guard {
    struct kit_alloc alloc;
    struct kit_alloc *inner;
    uint32_t below; /* features of the allocator below */
    bool poison;
    size_t canary, front; /* bytes behind and before a block */
    size_t quarantine, quarantine_blocks, patrol, pages_from;
    const struct kit_alloc_pages *pages; /* NULL: none that can be protected */
    uint64_t fail_in, requests;          /* which request from now is refused; since fail_at() */
    uintptr_t caller;
    uint64_t secret;
    uintptr_t low, high; /* where blocks have been so far */
    struct kit_list live, waiting;
    struct kit_list *beat; /* where the patrol is in `waiting` */
    size_t waiting_bytes, waiting_blocks;
    uint64_t ticks;
    struct kit_alloc_stats stats;
    char text[240]; /* of a panic */
};

_Static_assert(sizeof(struct guard_head) % KIT_ALLOC_ALIGN_MIN == 0, "blocks stay aligned");

/* The logarithm of an alignment as callers give it. */
KIT_INLINE uint8_t guard_align_log(size_t align)
{
    return (uint8_t)kit_ctz64(align > KIT_ALLOC_ALIGN_MIN ? align : KIT_ALLOC_ALIGN_MIN);
}

KIT_INLINE struct guard_head *guard_head_at(const struct kit_list *link)
{
    return KIT_CONTAINER_OF(link, struct guard_head, link);
}

/* ---- block.c: where things lie, and whether they are as they were -----------------------------
 */

/* A new block in use, canaries and poison in place; NULL: no memory. */
struct guard_head *guard_make(struct guard *g, size_t size, size_t align);
/* Gives a block that is in no list back to the allocator below. */
void guard_unmake(struct guard *g, struct guard_head *head);
/* Makes a block in use smaller where it is; `align` is what is asked for from now on. */
void guard_shrink(struct guard *g, struct guard_head *head, size_t size, size_t align);
/* The head of the block at this address; NULL: there is none, or it was overwritten. */
struct guard_head *guard_find(const struct guard *g, const void *block);
/* The head of the block below that begins at `base`; NULL: it is none of ours. */
struct guard_head *guard_find_base(const struct guard *g, void *base);
bool guard_sealed(const struct guard *g, const struct guard_head *head);
/* Whether a list node may be looked at: it lies where blocks are; and whether its neighbours know
 * it, so that it may be taken out. */
bool guard_plausible(const struct guard *g, const struct kit_list *link);
bool guard_linked(const struct guard *g, const struct kit_list *link);
/* Where the first damaged byte of the canaries is, as an offset into the block; false: none. */
bool guard_damaged(const struct guard *g, const struct guard_head *head, ptrdiff_t *offset);
/* The same for a freed block: looks at `edge` bytes of its ends; 0: at all of it. */
bool guard_touched(const struct guard *g, const struct guard_head *head, size_t edge,
                   ptrdiff_t *offset);
/* Fills a freed block, or takes its pages away. */
void guard_bury(struct guard *g, struct guard_head *head);
/* Room for a request if the allocator below has this much in one piece. */
size_t guard_room(const struct guard *g, size_t largest);

/* ---- quarantine.c -------------------------------------------------------------------------- */

/* Takes a block that was freed, and lets the oldest go while there are too many. */
void guard_wait(struct guard *g, struct guard_head *head);
/* Lets time pass for those that wait. */
void guard_age(struct guard *g);
/* Lets all of them go, each looked at once more. */
void guard_let_go(struct guard *g);
/* Looks at a few that wait, the newest among them. */
void guard_patrol(struct guard *g);

/* ---- report.c: every text of a panic ------------------------------------------------------- */

/* «alloc.guard: CAUSE: block 0x... of 40 bytes, at offset 40, allocated by 0x..., freed by 0x...,
 * now by 0x...»; no offset: NULL, no site: 0. */
_Noreturn void guard_panic(struct guard *g, const char *cause, const struct guard_head *head,
                           const ptrdiff_t *offset, uintptr_t now);
/* «alloc.guard: given back with WHAT 48 instead of 40: block ...» */
_Noreturn void guard_panic_given(struct guard *g, const char *what, size_t given, size_t asked,
                                 const struct guard_head *head, uintptr_t now);
/* A head that cannot be believed. */
_Noreturn void guard_panic_head(struct guard *g, const struct guard_head *head, uintptr_t now);
/* An address that is no block: says which block it lies in, or whose head is gone. */
_Noreturn void guard_panic_foreign(struct guard *g, const void *address, uintptr_t now);

#endif
