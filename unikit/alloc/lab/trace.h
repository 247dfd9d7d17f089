/* SPDX-License-Identifier: MIT */
/* Traces of allocations: the file format, for those who write it and those who read it.
 *
 * A file is one header page and then slots of equal size, each empty or one chunk. A chunk is
 * decodable by itself: a file that ends early, or a recorder that was killed, costs at most what
 * was not written. Chunks of one stream follow each other by `sequence`; a stream belongs to one
 * writer at a time, and events of several streams are ordered by their times.
 *
 *   header (KIT_TRACE_PAGE bytes) | slot 0 | slot 1 | ...        slot: chunk header, payload
 *
 * An event is a tag byte and numbers; numbers are prefix varints: the count of low zero bits of
 * the first byte is the count of bytes that follow. Signed differences are zigzag-coded.
 *
 *   tag: bits 0-3 operation, 4-5 how the call site is given, 6 an alignment follows, 7 zero
 *   every operation   ticks since the event before (the chunk's first: since the chunk's `ticks`)
 *   THREAD            number of the thread that all following events belong to
 *   START             the thread's id in the system
 *   FAILED            size
 *   FREE, SIZED_FREE  identity
 *   ALLOC, ZEROED     identity, size
 *   REALLOC           new identity, old one (difference from the new), ticks the call took, size
 *   then              the alignment's logarithm, if bit 6 says so
 *   then              the call site: nothing, slot (KIT_TRACE_SITE_KNOWN), slot and address (_NEW)
 *
 * An identity is a block's address / 8 or, with KIT_TRACE_BLOCKS, a number never used twice; it is
 * coded as the difference from the identity before it in the chunk (the first: from 0). A time is
 * taken after the call for what gives a block, before it for what takes one: so an address that
 * goes from one thread to another does so in the order of times. A call site is a return address;
 * each chunk begins with an empty table of KIT_TRACE_SITES of them. The first event of a chunk of
 * events is THREAD. Layers 0 and 2: freestanding, no state. */
#ifndef KIT_ALLOC_LAB_TRACE_H
#define KIT_ALLOC_LAB_TRACE_H

#include <unikit/rt/bits.h>
#include <unikit/rt/types.h>

/* cdef: begin */
enum {
    KIT_TRACE_VERSION = 1,
    KIT_TRACE_PAGE = 4096, /* bytes of the header */
    KIT_TRACE_TEXT = 3968, /* of these, bytes for text */
    KIT_TRACE_CHUNK_HEAD = 32,
    /* flags of the header */
    KIT_TRACE_BLOCKS = 1,   /* identities are block numbers, not addresses */
    KIT_TRACE_ATTACHED = 2, /* recording began in a running program: blocks older than it exist */
    KIT_TRACE_CUT = 4,      /* recording ended before the program: there was no room for the file */
    /* kinds of chunks */
    KIT_TRACE_EVENTS = 1,
    KIT_TRACE_MODULES = 2, /* text: lines of /proc/PID/maps, later ones count more */
    KIT_TRACE_SYMBOLS = 3, /* text: lines «address TAB name TAB place» */
    KIT_TRACE_END = 4,     /* payload: count of event bytes in the file, 64 bits */
    /* operations */
    KIT_TRACE_ALLOC = 1,
    KIT_TRACE_ZEROED = 2,
    KIT_TRACE_REALLOC = 3,
    KIT_TRACE_FREE = 4,
    KIT_TRACE_SIZED_FREE = 5,
    KIT_TRACE_FAILED = 6, /* a request that was refused */
    KIT_TRACE_START = 7,  /* a thread begins ... */
    KIT_TRACE_EXIT = 8,   /* ... and ends */
    KIT_TRACE_THREAD = 9,
    /* how the call site is given */
    KIT_TRACE_SITE_NONE = 0x00,
    KIT_TRACE_SITE_SAME = 0x10, /* as of the last event that had one */
    KIT_TRACE_SITE_KNOWN = 0x20,
    KIT_TRACE_SITE_NEW = 0x30,
    KIT_TRACE_HAS_ALIGN = 0x40,
    KIT_TRACE_SITES = 128,
    KIT_TRACE_EVENT_MAX = 80, /* no event is longer; writers may scribble 8 bytes behind one */
    KIT_TRACE_SHIFT = 3       /* of addresses as identities */
};

struct kit_trace_header {
    char magic[8]; /* «KITTRACE» */
    uint32_t version;
    uint32_t chunk; /* bytes of a slot, a multiple of 8; the file's last one may be cut */
    uint32_t flags;
    uint32_t pid;
    uint64_t start_wall_ns; /* since 1970 UTC */
    uint64_t first_ticks;   /* one moment by both clocks, and a later one: what a tick is */
    uint64_t first_ns;
    uint64_t last_ticks;
    uint64_t last_ns;
    uint32_t cpus;
    uint32_t page;  /* bytes of the machine's page */
    uint32_t check; /* CRC-32 of the header page with this field 0; 0: none */
    uint32_t text_size;
    uint64_t reserved[6];
    char text[3968]; /* lines «key=value»: program, command, allocator, cpu, kernel ... */
};

struct kit_trace_chunk {
    uint32_t magic; /* KIT_TRACE_CHUNK_MAGIC; 0: an empty slot */
    uint32_t kind;
    uint32_t stream;
    uint32_t sequence; /* from 0 */
    uint32_t used;     /* bytes of payload */
    uint32_t check;    /* CRC-32 of the payload; 0: none */
    uint64_t ticks;
};
/* cdef: end */

#define KIT_TRACE_MAGIC "KITTRACE"
#define KIT_TRACE_CHUNK_MAGIC UINT32_C(0x4B48434B) /* «KCHK» */

_Static_assert(sizeof(struct kit_trace_header) == KIT_TRACE_PAGE, "the header is one page");
_Static_assert(sizeof(struct kit_trace_chunk) == KIT_TRACE_CHUNK_HEAD, "32 bytes");

/* One event, decoded. `identity` means a block for all but START, EXIT, FAILED and THREAD. */
struct kit_trace_raw {
    uint64_t ticks;
    uint64_t identity;
    uint64_t old;  /* REALLOC: the identity before */
    uint64_t took; /* REALLOC: ticks between taking and giving */
    uint64_t size; /* THREAD: number; START: id in the system */
    uint64_t site; /* 0: none */
    uint32_t thread;
    uint8_t op;
    uint8_t align; /* logarithm; 0: none was asked for */
};

/* What both sides of a stream remember within one chunk. */
struct kit_trace_state {
    uint64_t ticks;
    uint64_t identity;
    uint64_t site;
    uint32_t thread;
    uint64_t sites[KIT_TRACE_SITES];
};

KIT_INLINE uint64_t kit_trace_zigzag(uint64_t from, uint64_t to)
{
    uint64_t difference = to - from;
    return (difference << 1) ^ (0 - (difference >> 63));
}

KIT_INLINE uint64_t kit_trace_unzigzag(uint64_t from, uint64_t code)
{
    return from + ((code >> 1) ^ (0 - (code & 1)));
}

/* Writes a number; may scribble up to 8 bytes behind it. */
KIT_INLINE uint8_t *kit_trace_put(uint8_t *at, uint64_t value)
{
    if (KIT_UNLIKELY(value >> 56)) {
        *at = 0;
        memcpy(at + 1, &value, 8);
        return at + 9;
    }
    unsigned length = (kit_fls64(value | 1) + 7) / 7;
    uint64_t word = (value << length) | (UINT64_C(1) << (length - 1));
    memcpy(at, &word, 8);
    return at + length;
}

/* Reads a number that lies before `end`; NULL: it does not. */
KIT_INLINE const uint8_t *kit_trace_get(const uint8_t *at, const uint8_t *end, uint64_t *value)
{
    if (at >= end)
        return NULL;
    unsigned length = kit_ctz64(*at | UINT64_C(0x100)) + 1;
    if ((size_t)(end - at) < length)
        return NULL;
    uint64_t word = 0;
    if (length == 9) {
        memcpy(value, at + 1, 8);
        return at + 9;
    }
    if ((size_t)(end - at) >= 8)
        memcpy(&word, at, 8);
    else
        for (unsigned i = 0; i < length; i++)
            word |= (uint64_t)at[i] << (8 * i);
    *value = (word >> length) & ((UINT64_C(1) << (7 * length)) - 1);
    return at + length;
}

KIT_INLINE unsigned kit_trace_site_slot(uint64_t site)
{
    return (unsigned)((site * UINT64_C(0x9E3779B97F4A7C15)) >> 57);
}

KIT_INLINE bool kit_trace_gives(uint8_t op)
{
    return op >= KIT_TRACE_ALLOC && op <= KIT_TRACE_REALLOC;
}

KIT_INLINE void kit_trace_begin(struct kit_trace_state *state, uint64_t ticks)
{
    memset(state, 0, sizeof *state);
    state->ticks = ticks;
}

KIT_INLINE uint8_t *kit_trace_put_site(struct kit_trace_state *state, uint8_t *tag, uint8_t *at,
                                       uint64_t site)
{
    if (!site)
        return at;
    if (site == state->site) {
        *tag |= KIT_TRACE_SITE_SAME;
        return at;
    }
    unsigned slot = kit_trace_site_slot(site);
    bool known = state->sites[slot] == site;
    *tag |= known ? KIT_TRACE_SITE_KNOWN : KIT_TRACE_SITE_NEW;
    at = kit_trace_put(at, slot);
    if (!known)
        at = kit_trace_put(at, site);
    state->sites[slot] = state->site = site;
    return at;
}

/* Writes one event, `event->thread` aside; returns its end. There MUST be room for
 * KIT_TRACE_EVENT_MAX bytes. Time that seems to run backwards stands still. */
KIT_INLINE uint8_t *kit_trace_encode(struct kit_trace_state *state, uint8_t *at,
                                     const struct kit_trace_raw *event)
{
    uint8_t *tag = at++;
    *tag = event->op;
    uint64_t passed = event->ticks > state->ticks ? event->ticks - state->ticks : 0;
    state->ticks += passed;
    at = kit_trace_put(at, passed);
    if (event->op <= KIT_TRACE_SIZED_FREE) {
        at = kit_trace_put(at, kit_trace_zigzag(state->identity, event->identity));
        state->identity = event->identity;
        if (event->op == KIT_TRACE_REALLOC) {
            at = kit_trace_put(at, kit_trace_zigzag(event->identity, event->old));
            at = kit_trace_put(at, event->took);
        }
    }
    if (kit_trace_gives(event->op) || event->op == KIT_TRACE_FAILED ||
        event->op == KIT_TRACE_START || event->op == KIT_TRACE_THREAD)
        at = kit_trace_put(at, event->size);
    if (event->align) {
        *tag |= KIT_TRACE_HAS_ALIGN;
        at = kit_trace_put(at, event->align);
    }
    return kit_trace_put_site(state, tag, at, event->site);
}

KIT_INLINE const uint8_t *kit_trace_get_site(struct kit_trace_state *state, uint8_t tag,
                                             const uint8_t *at, const uint8_t *end, uint64_t *site)
{
    uint64_t slot = 0;
    uint8_t how = tag & KIT_TRACE_SITE_NEW;
    *site = how == KIT_TRACE_SITE_NONE ? 0 : state->site;
    if (how < KIT_TRACE_SITE_KNOWN)
        return at;
    at = kit_trace_get(at, end, &slot);
    if (!at || slot >= KIT_TRACE_SITES)
        return NULL;
    if (how == KIT_TRACE_SITE_NEW && !(at = kit_trace_get(at, end, &state->sites[slot])))
        return NULL;
    *site = state->site = state->sites[slot];
    return at;
}

/* Reads one event that lies before `end`; NULL: it is cut off or none of this format. */
KIT_INLINE const uint8_t *kit_trace_decode(struct kit_trace_state *state, const uint8_t *at,
                                           const uint8_t *end, struct kit_trace_raw *event)
{
    if (at >= end)
        return NULL;
    uint8_t tag = *at++, op = tag & 15;
    uint64_t value = 0;
    if (tag & 0x80 || op < KIT_TRACE_ALLOC || op > KIT_TRACE_THREAD)
        return NULL;
    *event = (struct kit_trace_raw){.op = op};
    if (!(at = kit_trace_get(at, end, &value)))
        return NULL;
    event->ticks = state->ticks += value;
    if (op <= KIT_TRACE_SIZED_FREE) {
        if (!(at = kit_trace_get(at, end, &value)))
            return NULL;
        event->identity = state->identity = kit_trace_unzigzag(state->identity, value);
        if (op == KIT_TRACE_REALLOC) {
            if (!(at = kit_trace_get(at, end, &value)))
                return NULL;
            event->old = kit_trace_unzigzag(event->identity, value);
            if (!(at = kit_trace_get(at, end, &event->took)))
                return NULL;
        }
    }
    if (kit_trace_gives(op) || op == KIT_TRACE_FAILED || op == KIT_TRACE_START ||
        op == KIT_TRACE_THREAD)
        if (!(at = kit_trace_get(at, end, &event->size)))
            return NULL;
    if (op == KIT_TRACE_THREAD)
        state->thread = (uint32_t)event->size;
    event->thread = state->thread;
    if (tag & KIT_TRACE_HAS_ALIGN) {
        if (!(at = kit_trace_get(at, end, &value)) || value > 62)
            return NULL;
        event->align = (uint8_t)value;
    }
    return kit_trace_get_site(state, tag, at, end, &event->site);
}

#endif
