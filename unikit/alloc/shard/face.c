/* SPDX-License-Identifier: MIT */
/* Faces: what each thread or CPU has of its own, and how blocks come home that were freed through
 * another face.
 *
 * Such a block is chained with others of the same slab in an outbox of the face that frees it.
 * When SHARD_BATCH have come together, or the place is needed for another slab, the batch is
 * posted with one compare-and-swap into the inbox of the owner, who takes all that is there with
 * one exchange on its way to new memory, and joins a few batches at a time to their slabs: a join
 * links the ends, whatever the length. Blocks stay in the order in which they were freed: what was
 * carved in order comes back in order, which is what a processor can foresee.
 *
 *     outboxes of B          inbox of A                        slab of A
 *     [slab: o-o-o]   cas    batch -> batch -> ...   exchange, join   free: o-o-o-o-...
 *
 * A face that is given back keeps its slabs, and the next one that is attached gets both; until
 * then what is free in them is taken only where memory is short (shard_borrow). So a slab never
 * changes its owner while blocks are in use, and the owner may be read without any ordering.
 * Source: batches of remote frees as in Lietar et al., «snmalloc: a message passing allocator»,
 * ISMM 2019; the stack after Treiber, IBM RJ 5118, 1986 (only ever emptied whole: no ABA).
 * Cost: O(1) each, receive and send O(batches), hold included; detach O(blocks to bring home). */
#include <unikit/alloc/shard/shard.h>

void shard_face_init(struct shard_face *face, struct shard_heap *heap, struct shard_held *held)
{
    struct kit_alloc alloc = heap->first.alloc;
    memset(face, 0, sizeof *face);
    face->alloc = alloc;
    face->heap = heap;
    for (unsigned class = 0; class < SHARD_CLASSES; class ++)
        face->active[class] = (struct shard_run *)(uintptr_t)&shard_no_slab;
    for (size_t size = 1; size <= SHARD_DIRECT; size += SHARD_UNIT)
        memset(&face->class_of[size], (int)shard_class(size), SHARD_UNIT);
    if (heap->quick) {
        const struct shard_region *region = &heap->regions[0];
        face->base = region->base;
        face->extent = (size_t)region->pages << heap->shift;
        face->map = region->map;
    }
    face->held = held;
    atomic_init(&face->inbox, NULL);
    face->attached = true;
}

/* ---- sending
 * ------------------------------------------------------------------------------------- */

/* Posts a batch to the face that owns the slab. */
static void face_post(struct shard_face *face, struct shard_out *out)
{
    struct shard_face *owner = out->run->owner;
    struct shard_block *first = out->first, *head;
    if (out->count > 1)
        shard_next(face->heap, first)->link = out->last;
    shard_set_next(face->heap, out->last, (struct shard_block *)out->count);
    face->sent += out->count;
    face->sent_bytes += out->count * out->run->size;
    out->run = NULL;
    head = atomic_load_explicit(&owner->inbox, memory_order_relaxed);
    do
        first->link = head;
    while (!atomic_compare_exchange_weak_explicit(&owner->inbox, &head, first, memory_order_release,
                                                  memory_order_relaxed));
}

void shard_free_remote(struct shard_face *face, struct shard_run *run, struct shard_block *block)
{
    size_t hash = (uintptr_t)run / sizeof *run;
    struct shard_out *out = &face->out[(hash ^ hash >> 4) % SHARD_OUT];
    if (out->run != run) {
        if (out->run)
            face_post(face, out);
        *out = (struct shard_out){.run = run, .first = block};
    } else {
        shard_set_next(face->heap, out->last, block);
    }
    out->last = block;
    if (++out->count == SHARD_BATCH || out->count * run->size >= SHARD_BATCH_BYTES)
        face_post(face, out);
}

SHARD_COLD void shard_send(struct shard_face *face)
{
    for (size_t i = 0; i < SHARD_OUT; i++)
        if (face->out[i].run)
            face_post(face, &face->out[i]);
}

/* ---- receiving
 * ----------------------------------------------------------------------------------- */

/* Fetches what will be needed next: the next batch, and the blocks of this one if they are
 * neighbours in order, as those are that a program hands from thread to thread. Otherwise each
 * would be waited for when it is allocated: only the one before says where it lies. */
static void face_fetch(const struct shard_face *face, const struct shard_block *first,
                       const struct shard_block *last, uint32_t count, size_t size)
{
    if (face->batches)
        __builtin_prefetch(face->batches);
    if ((uintptr_t)last - (uintptr_t)first != (count - 1) * size)
        return;
    for (uint32_t i = 1; i < count; i++)
        __builtin_prefetch((const char *)first + i * size, 1);
}

/* Joins the next batch to its slab. */
static void face_join(struct shard_face *face)
{
    struct shard_block *first = face->batches, *last = first;
    struct shard_run *run = shard_run_of(face->heap, first);
    face->batches = first->link;
    if ((uintptr_t)shard_next(face->heap, first) > SHARD_BATCH)
        last = shard_next(face->heap, first)->link;
    uint32_t count = (uint32_t)(uintptr_t)shard_next(face->heap, last);
    face_fetch(face, first, last, count, run->size);
    face->came += count;
    face->came_bytes += (size_t)count * run->size;
    shard_join(face, run, first, last, count);
}

void shard_receive(struct shard_face *face, size_t batches)
{
    while (batches--) {
        if (!face->batches) {
            if (!atomic_load_explicit(&face->inbox, memory_order_relaxed))
                return;
            face->batches = atomic_exchange_explicit(&face->inbox, NULL, memory_order_acquire);
        }
        face_join(face);
    }
}

SHARD_COLD void shard_settle(struct shard_heap *heap)
{
    for (struct shard_face *face = &heap->first; face; face = face->next) {
        shard_hard_flush(face);
        shard_send(face);
    }
    for (struct shard_face *face = &heap->first; face; face = face->next)
        shard_receive(face, SIZE_MAX);
}

/* ---- coming and going
 * ------------------------------------------------------------------------------
 */

SHARD_COLD int shard_attach(struct kit_alloc *a, struct kit_alloc **out)
{
    struct shard_heap *heap = shard_heap_of(a);
    struct shard_face *face;
    size_t size = sizeof *face + (heap->quarantine ? SHARD_HELD * sizeof *face->held : 0);
    shard_lock(heap);
    for (face = heap->first.next; face && face->attached; face = face->next)
        ;
    if (!face) {
        struct shard_run *run = shard_back_alloc(heap, shard_pages_of(heap, size), 0);
        if (!run) {
            shard_unlock(heap);
            return KIT_ENOMEM;
        }
        run->kind = SHARD_FACE;
        heap->capacity -= (size_t)run->pages << heap->shift;
        face = (void *)shard_start(heap, run);
        shard_face_init(face, heap, (struct shard_held *)(face + 1));
        face->next = heap->first.next;
        heap->first.next = face;
    }
    face->attached = true;
    shard_unlock(heap);
    *out = &face->alloc;
    return 0;
}

SHARD_COLD void shard_detach(struct kit_alloc *a)
{
    struct shard_face *face = shard_face_of(a);
    shard_hard_flush(face);
    shard_send(face);
    shard_receive(face, SIZE_MAX);
    shard_flush(face, true);
    shard_lock(face->heap);
    face->attached = false;
    shard_unlock(face->heap);
}

/* Takes a block from a face that nobody uses, which is taken meanwhile. */
SHARD_COLD void *shard_borrow(struct shard_face *face, unsigned class)
{
    struct shard_heap *heap = face->heap;
    void *block = NULL;
    struct shard_face *other = heap->first.next;
    while (other && !block) {
        shard_lock(heap);
        while (other && other->attached)
            other = other->next;
        if (other)
            other->attached = true;
        shard_unlock(heap);
        if (!other)
            break;
        shard_receive(other, SIZE_MAX);
        block = shard_larger(other, class);
        shard_flush(other, true);
        shard_lock(heap);
        other->attached = false;
        other = other->next;
        shard_unlock(heap);
    }
    return block;
}

void shard_hold(struct kit_alloc *a, bool on)
{
    struct shard_heap *heap = shard_heap_of(a);
    if (on)
        shard_lock(heap);
    else
        shard_unlock(heap);
}
