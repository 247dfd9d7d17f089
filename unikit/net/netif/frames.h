/* SPDX-License-Identifier: MIT */
/* A ring of frames for one producer and one consumer, which may be two threads.
 *
 *   tail: next slot to fill, written by the producer        each on a cache line of its own,
 *   head: next slot to empty, written by the consumer       beside a copy of the other's
 *
 * Both run freely modulo 2^32; tail - head slots are in use. A slot's bytes are written before
 * the release store of `tail` and read after the acquire load of it; they are read before the
 * release store of `head` and overwritten after the acquire load of that. Each side keeps the
 * value of the other's index that it saw last, and looks again only when that is not enough, so
 * a batch costs one exchange of cache lines. */
#ifndef KIT_NET_NETIF_FRAMES_H
#define KIT_NET_NETIF_FRAMES_H

#include <unikit/net/netif.h>
#include <unikit/rt/bits.h>

struct kit_frames {
    alignas(64) _Atomic uint32_t tail;
    uint32_t seen_head;
    alignas(64) _Atomic uint32_t head;
    uint32_t seen_tail;
    alignas(64) uint8_t *slots;
    uint32_t count; /* a power of two */
    uint32_t stride;
    uint32_t longest; /* frame, bytes */
};

enum { KIT_FRAMES_LENGTH = 8 /* bytes at the start of a slot that hold the length */ };

KIT_INLINE uint32_t kit_frames_stride(uint32_t mtu)
{
    return (uint32_t)kit_align_up(mtu + KIT_NETIF_HEADER + KIT_FRAMES_LENGTH, 64);
}

KIT_INLINE void kit_frames_init(struct kit_frames *r, uint8_t *slots, uint32_t count, uint32_t mtu)
{
    atomic_init(&r->tail, 0);
    atomic_init(&r->head, 0);
    r->seen_head = r->seen_tail = 0;
    r->slots = slots;
    r->count = count;
    r->stride = kit_frames_stride(mtu);
    r->longest = mtu + KIT_NETIF_HEADER;
}

/* Why the frame cannot be taken, or 0. */
KIT_INLINE int kit_frames_refuse(const struct kit_frames *r, const struct kit_frame *f)
{
    if (f->length < KIT_NETIF_HEADER || f->length > r->longest)
        return KIT_EMSGSIZE;
    return f->flags != 0 || f->gso_type != 0 ? KIT_EIO : 0; /* no offloads here */
}

/* Producer. The number of frames taken, or why the first was not. */
KIT_INLINE int kit_frames_send(struct kit_frames *r, const struct kit_frame *frames, size_t count)
{
    uint32_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    size_t done = 0;
    int why = 0;
    for (; done < count && (why = kit_frames_refuse(r, &frames[done])) == 0; done++) {
        if (tail - r->seen_head == r->count)
            r->seen_head = atomic_load_explicit(&r->head, memory_order_acquire);
        if (tail - r->seen_head == r->count) {
            why = KIT_EAGAIN;
            break;
        }
        uint8_t *slot = r->slots + (size_t)(tail & (r->count - 1)) * r->stride;
        memcpy(slot, &frames[done].length, sizeof(frames[done].length));
        memcpy(slot + KIT_FRAMES_LENGTH, frames[done].data, frames[done].length);
        tail++;
    }
    if (done == 0)
        return why;
    atomic_store_explicit(&r->tail, tail, memory_order_release);
    return (int)done;
}

/* Consumer. The number of frames filled. A frame longer than its buffer is dropped; with `dropped`
 * given, that sets it and ends the batch. */
KIT_INLINE int kit_frames_receive(struct kit_frames *r, struct kit_frame *frames, size_t count,
                                  bool *dropped)
{
    uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed), start = head;
    size_t done = 0;
    while (done < count) {
        if (head == r->seen_tail)
            r->seen_tail = atomic_load_explicit(&r->tail, memory_order_acquire);
        if (head == r->seen_tail)
            break;
        const uint8_t *slot = r->slots + (size_t)(head++ & (r->count - 1)) * r->stride;
        uint32_t length;
        memcpy(&length, slot, sizeof(length));
        if (length > frames[done].capacity) {
            if (dropped != NULL) {
                *dropped = true;
                break;
            }
            continue;
        }
        memcpy(frames[done].data, slot + KIT_FRAMES_LENGTH, length);
        frames[done] = (struct kit_frame){
            .data = frames[done].data, .length = length, .capacity = frames[done].capacity};
        done++;
    }
    if (head != start)
        atomic_store_explicit(&r->head, head, memory_order_release);
    return (int)done;
}

/* The single-frame calls, over the batch ones. */
KIT_INLINE int kit_frames_send_one(struct kit_frames *r, const void *data, size_t length)
{
    if (length > r->longest)
        return KIT_EMSGSIZE;
    /* const is dropped for the carrier only; nothing writes through it */
    struct kit_frame f = {.data = (uint8_t *)(uintptr_t)data, .length = (uint32_t)length};
    int rc = kit_frames_send(r, &f, 1);
    return rc == 1 ? 0 : rc;
}

KIT_INLINE int kit_frames_receive_one(struct kit_frames *r, void *buffer, size_t max_length)
{
    bool dropped = false;
    struct kit_frame f = {.data = buffer,
                          .capacity = max_length < UINT32_MAX ? (uint32_t)max_length : UINT32_MAX};
    if (kit_frames_receive(r, &f, 1, &dropped) == 1)
        return (int)f.length;
    return dropped ? KIT_EMSGSIZE : 0;
}

#endif
