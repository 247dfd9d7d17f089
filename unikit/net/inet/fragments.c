/* SPDX-License-Identifier: MIT */
/* Reassembly of IPv4 datagrams (RFC 791, 815). Each datagram under way keeps the fragments that
 * came, sorted, as they came; when none is missing they are copied into one piece. A fragment that
 * overlaps another spoils the whole datagram (RFC 5722's rule, which is as sound for IPv4); one
 * that is there already is ignored, links repeat. All datagrams together hold at most
 * `fragments` bytes and one peer half of that, INET_DATAGRAMS exist at once; the oldest makes
 * room. After a minute (RFC 1122, 3.3.2) the sender is told. */
#include <unikit/net/inet/calls.h>

#define FRAGMENT_LIFE_NS (60 * KIT_NS_PER_S)
enum { INET_DATAGRAMS = 64, FRAGMENT_PIECES = 512, DATAGRAM_MAX = 65535 };

struct piece {
    struct piece *next;
    uint32_t start;
    uint32_t end;
    uint8_t data[];
};

struct inet_datagram {
    struct kit_list link;
    struct inet_ip source;
    struct inet_ip destination;
    uint64_t deadline_ns;
    struct piece *first;
    uint32_t total; /* bytes; 0: the last fragment did not come yet */
    uint32_t bytes; /* that are here */
    uint32_t pieces;
    uint32_t memory;
    uint16_t id;
    uint8_t protocol;
    bool spoilt; /* what comes is ignored until it expires */
    bool congested;
    uint32_t header_length;
    uint8_t header[KIT_IPV4_HEADER + 40 + 8]; /* of the first fragment, and 8 bytes of its data */
};

static struct inet_datagram *datagram_of(struct kit_list *link)
{
    return KIT_CONTAINER_OF(link, struct inet_datagram, link);
}

INET_COLD static void datagram_empty(struct inet *m, struct inet_datagram *d)
{
    while (d->first != NULL) {
        struct piece *piece = d->first;
        size_t size = sizeof(*piece) + (piece->end - piece->start);
        d->first = piece->next;
        d->memory -= (uint32_t)size;
        m->fragment_bytes -= size;
        inet_give(&m->memory, piece, size);
    }
    d->pieces = 0;
    d->bytes = 0;
}

INET_COLD static void datagram_free(struct inet *m, struct inet_datagram *d)
{
    datagram_empty(m, d);
    m->fragment_bytes -= sizeof(*d);
    kit_list_remove(&d->link);
    inet_give(&m->memory, d, sizeof(*d));
}

INET_COLD static struct inet_datagram *datagram_find(struct inet *m, const struct inet_packet *p,
                                                     size_t *of_source, unsigned *count)
{
    struct inet_datagram *found = NULL;
    uint16_t id = kit_load16(p->ip + KIT_IPV4_ID);
    *of_source = *count = 0;
    for (struct kit_list *at = m->datagrams.next; at != &m->datagrams; at = at->next) {
        struct inet_datagram *d = datagram_of(at);
        ++*count;
        if (!inet_ip_equal(&d->source, &p->source))
            continue;
        *of_source += d->memory + sizeof(*d);
        if (d->id == id && d->protocol == p->protocol &&
            inet_ip_equal(&d->destination, &p->destination))
            found = d;
    }
    return found;
}

INET_COLD static struct inet_datagram *datagram_new(struct inet *m, const struct inet_packet *p,
                                                    unsigned count)
{
    if (count == INET_DATAGRAMS ||
        (m->fragment_bytes + sizeof(struct inet_datagram) > m->fragment_limit && count != 0)) {
        datagram_free(m, datagram_of(m->datagrams.next));
        m->counts[INET_FRAGMENT_FULL]++;
    }
    if (m->fragment_bytes + sizeof(struct inet_datagram) > m->fragment_limit)
        return NULL;
    struct inet_datagram *d = inet_take(&m->memory, sizeof(*d));
    if (d == NULL)
        return NULL;
    *d = (struct inet_datagram){.source = p->source,
                                .destination = p->destination,
                                .deadline_ns = m->now_ns + FRAGMENT_LIFE_NS,
                                .id = kit_load16(p->ip + KIT_IPV4_ID),
                                .protocol = p->protocol};
    kit_list_init(&d->link);
    kit_list_push_back(&m->datagrams, &d->link);
    m->fragment_bytes += sizeof(*d);
    return d;
}

INET_COLD static void datagram_spoil(struct inet *m, struct inet_datagram *d)
{
    m->counts[INET_FRAGMENT_OVERLAP]++;
    datagram_empty(m, d);
    d->spoilt = true;
}

enum { PIECE_NEW, PIECE_KNOWN, PIECE_OVERLAPS };

/* Where a piece goes, and whether it does. */
INET_COLD static int datagram_place(struct inet_datagram *d, uint32_t start, uint32_t end,
                                    struct piece ***place)
{
    struct piece **at = &d->first;
    while (*at != NULL && (*at)->end <= start)
        at = &(*at)->next;
    *place = at;
    if (*at == NULL || (*at)->start >= end)
        return PIECE_NEW;
    return (*at)->start == start && (*at)->end == end ? PIECE_KNOWN : PIECE_OVERLAPS;
}

/* Copies a piece in; false: there is no room, or it contradicts what is known. */
INET_COLD static bool datagram_add(struct inet *m, struct inet_datagram *d,
                                   const struct inet_packet *p, uint32_t start, bool last)
{
    uint32_t end = start + p->length;
    struct piece **place;
    int fits = datagram_place(d, start, end, &place);
    if (fits == PIECE_KNOWN && (!last || d->total == end))
        return true;
    if (fits != PIECE_NEW || (d->total != 0 && (end > d->total || (last && end != d->total))) ||
        (last && *place != NULL)) {
        datagram_spoil(m, d);
        return false;
    }
    size_t size = sizeof(struct piece) + p->length;
    bool room = d->pieces < FRAGMENT_PIECES && m->fragment_bytes + size <= m->fragment_limit;
    struct piece *piece = room ? inet_take(&m->memory, size) : NULL;
    if (piece == NULL) {
        m->counts[INET_FRAGMENT_FULL]++;
        return false;
    }
    piece->start = start;
    piece->end = end;
    memcpy(piece->data, p->data, p->length);
    piece->next = *place;
    *place = piece;
    d->pieces++;
    d->memory += (uint32_t)size;
    m->fragment_bytes += size;
    d->bytes += p->length;
    d->congested |= p->congested; /* RFC 3168, 5.3 */
    if (last)
        d->total = end;
    if (start == 0) {
        d->header_length = (uint32_t)(p->data - p->ip) + 8;
        memcpy(d->header, p->ip, d->header_length);
    }
    return true;
}

INET_COLD static void datagram_deliver(struct inet *m, struct inet_datagram *d)
{
    uint32_t header = d->header_length - 8, total = d->total;
    uint8_t *whole = inet_take(&m->memory, header + total);
    if (whole == NULL) {
        m->counts[INET_FRAGMENT_FULL]++;
        datagram_free(m, d);
        return;
    }
    memcpy(whole, d->header, header);
    kit_store16(whole + KIT_IPV4_TOTAL, (uint16_t)(header + total));
    for (const struct piece *piece = d->first; piece != NULL; piece = piece->next)
        memcpy(whole + header + piece->start, piece->data, piece->end - piece->start);
    struct inet_packet p = {.source = d->source,
                            .destination = d->destination,
                            .ip = whole,
                            .data = whole + header,
                            .length = total,
                            .protocol = d->protocol,
                            .congested = d->congested};
    p.broadcast = !inet_ip_equal(&p.destination, &m->networks[0].address);
    datagram_free(m, d);
    inet_ip_deliver(m, &p);
    inet_give(&m->memory, whole, header + total);
}

INET_COLD void inet_fragment_input(struct inet *m, const struct inet_packet *p)
{
    uint16_t word = kit_load16(p->ip + KIT_IPV4_FRAGMENT);
    uint32_t start = (word & 0x1fffu) * 8, header = (uint32_t)(p->data - p->ip);
    bool last = (word & 0x2000) == 0;
    size_t of_source;
    unsigned count;
    /* RFC 1858: no fragment may hide the start of a TCP or UDP header in a second one. */
    if (p->length == 0 || (!last && p->length % 8 != 0) ||
        start + p->length + header > DATAGRAM_MAX || (word & KIT_IPV4_DF) != 0 ||
        (start == 0 && p->length < 8) || (start == 8 && p->protocol == KIT_IPV4_TCP)) {
        m->counts[INET_FRAGMENT_MALFORMED]++;
        return;
    }
    struct inet_datagram *d = datagram_find(m, p, &of_source, &count);
    if (of_source + p->length > m->fragment_limit / 2) {
        m->counts[INET_FRAGMENT_FULL]++;
        return;
    }
    if (d == NULL && (d = datagram_new(m, p, count)) == NULL) {
        m->counts[INET_FRAGMENT_FULL]++;
        return;
    }
    if (d->spoilt || !datagram_add(m, d, p, start, last))
        return;
    if (d->total != 0 && d->bytes == d->total)
        datagram_deliver(m, d);
}

INET_COLD static void datagram_expire(struct inet *m, struct inet_datagram *d)
{
    m->counts[INET_FRAGMENT_TIMEOUT]++;
    if (d->first != NULL && d->first->start == 0) { /* RFC 1122, 3.3.2: only with the first one */
        struct inet_packet p = {.source = d->source,
                                .destination = d->destination,
                                .ip = d->header,
                                .data = d->header + d->header_length - 8,
                                .length = 8,
                                .protocol = d->protocol};
        p.broadcast = !inet_ip_equal(&p.destination, &m->networks[0].address);
        inet_icmp_expired(m, &p);
    }
    datagram_free(m, d);
}

void inet_fragment_timers(struct inet *m)
{
    while (inet_fragment_deadline_ns(m) <= m->now_ns)
        datagram_expire(m, datagram_of(m->datagrams.next));
}

uint64_t inet_fragment_deadline_ns(const struct inet *m)
{
    return kit_list_empty(&m->datagrams) ? KIT_NEVER : datagram_of(m->datagrams.next)->deadline_ns;
}

INET_COLD void inet_fragment_clear(struct inet *m)
{
    while (!kit_list_empty(&m->datagrams))
        datagram_free(m, datagram_of(m->datagrams.next));
}

INET_COLD bool inet_fragment_sound(const struct inet *m)
{
    uint64_t all = 0;
    for (struct kit_list *at = m->datagrams.next; at != &m->datagrams; at = at->next) {
        const struct inet_datagram *d = datagram_of(at);
        uint32_t before = 0, bytes = 0, memory = 0;
        for (const struct piece *piece = d->first; piece != NULL; piece = piece->next) {
            if (piece->start < before || piece->start >= piece->end)
                return false;
            before = piece->end;
            bytes += piece->end - piece->start;
            memory += (uint32_t)sizeof(*piece) + (piece->end - piece->start);
        }
        if (bytes != d->bytes || memory != d->memory || (d->spoilt && d->first != NULL))
            return false;
        all += memory + sizeof(*d);
    }
    return all == m->fragment_bytes && all <= m->fragment_limit;
}
