/* SPDX-License-Identifier: MIT */
/* netif.pcap: a layer that writes every frame to its sink as a pcapng file (IETF draft
 * draft-ietf-opsawg-pcapng): a section header, one interface with nanosecond times, and an enhanced
 * packet block per frame with its direction.
 *
 * What the stack notes of a frame (kit_packet_note) becomes the block's comment, as words:
 *
 *   state=established cwnd=14600 flight=2920 srtt_us=812 rto_us=200000 drop=checksum
 *
 * A note on a frame to be sent comes before the send call, one on a received frame after the
 * receive call; so received frames are kept until the next call. Both are matched by address.
 * Cost: one copy per received frame, nothing else is kept. Frames that the interface below refuses
 * are not written. */
#include <unikit/net/net.h>
#include <unikit/net/netif.h>
#include <unikit/rt/bits.h>

extern const struct kit_netif_component kit_netif_pcap;

enum { OPTION_SNAP };
enum { FRAMES, BYTES, NOTED, COUNTERS };
enum { HELD = 64, NOTES = 64, COMMENT = 192 };

/* pcapng: block types, options, link type */
enum {
    SECTION = 0x0a0d0d0a,
    INTERFACE = 1,
    PACKET = 6,
    BYTE_ORDER = 0x1a2b3c4d,
    ETHERNET = 1,
    OPTION_COMMENT = 1,
    OPTION_FLAGS = 2,
    OPTION_RESOLUTION = 9,
    INBOUND = 1,
    OUTBOUND = 2
};

struct held {
    const uint8_t *from; /* where the stack has it */
    uint64_t time_ns;
    uint32_t length;
    uint32_t kept; /* bytes in the copy */
    bool noted;
    struct kit_packet_note note;
    uint8_t *copy;
};

struct pcap {
    network_interface_t network;
    network_interface_t *inner;
    runtime_environment_t *env;
    struct kit_netif_sink sink;
    uint64_t epoch_ns; /* wall clock at now_ns 0 */
    uint32_t snap;
    uint32_t held_count;
    uint32_t note_next;
    uint64_t counters[COUNTERS];
    struct held held[HELD];
    struct kit_packet_note notes[NOTES]; /* on frames to be sent; a ring, oldest overwritten */
};

static struct pcap *pcap_of(network_interface_t *network)
{
    return KIT_CONTAINER_OF(network, struct pcap, network);
}

static void pcap_write(struct pcap *p, const void *data, size_t length)
{
    if (length != 0)
        p->sink.write(p->sink.context, data, length);
}

static void pcap_words(struct pcap *p, const uint32_t *words, size_t count)
{
    pcap_write(p, words, count * sizeof(*words));
}

static void pcap_pad(struct pcap *p, size_t length)
{
    static const uint8_t zeros[4];
    pcap_write(p, zeros, (4 - length % 4) % 4);
}

static size_t text_word(char *at, size_t used, const char *word)
{
    while (*word != '\0' && used < COMMENT)
        at[used++] = *word++;
    return used;
}

static size_t text_number(char *at, size_t used, const char *name, uint32_t value)
{
    char digits[10];
    size_t count = 0;
    if (value == 0)
        return used;
    used = text_word(at, used, name);
    for (; value != 0; value /= 10)
        digits[count++] = (char)('0' + value % 10);
    while (count != 0 && used < COMMENT)
        at[used++] = digits[--count];
    return used;
}

/* Writes a note as words; their length. */
static size_t pcap_comment(const struct kit_packet_note *note, char *at)
{
    static const char *const states[] = {
        "",           "listen",     "syn-sent", "syn-received", "established", "fin-wait-1",
        "fin-wait-2", "close-wait", "closing",  "last-ack",     "time-wait"};
    static const char *const drops[] = {"",     "malformed", "checksum", "unwanted",
                                        "full", "forbidden", "duplicate"};
    size_t used = 0;
    if (note->state != 0 && note->state < KIT_ARRAY_SIZE(states)) {
        used = text_word(at, used, "state=");
        used = text_word(at, used, states[note->state]);
    }
    used = text_number(at, used, " cwnd=", note->cwnd);
    used = text_number(at, used, " ssthresh=", note->ssthresh);
    used = text_number(at, used, " flight=", note->flight);
    used = text_number(at, used, " srtt_us=", note->srtt_us);
    used = text_number(at, used, " rto_us=", note->rto_us);
    if (note->drop != 0 && note->drop < KIT_ARRAY_SIZE(drops)) {
        used = text_word(at, used, used != 0 ? " drop=" : "drop=");
        used = text_word(at, used, drops[note->drop]);
    }
    return used;
}

/* Writes one packet block. `data` holds `kept` of the frame's `length` bytes. */
static void pcap_packet(struct pcap *p, const uint8_t *data, uint32_t kept, uint32_t length,
                        uint64_t time_ns, uint32_t direction, const struct kit_packet_note *note)
{
    char comment[COMMENT];
    uint32_t text = note != NULL ? (uint32_t)pcap_comment(note, comment) : 0;
    uint32_t options = 12 + (text != 0 ? 4 + (uint32_t)kit_align_up(text, 4) : 0);
    uint32_t total = 32 + (uint32_t)kit_align_up(kept, 4) + options;
    uint64_t time = p->epoch_ns + time_ns;
    pcap_words(
        p, (uint32_t[]){PACKET, total, 0, (uint32_t)(time >> 32), (uint32_t)time, kept, length}, 7);
    pcap_write(p, data, kept);
    pcap_pad(p, kept);
    pcap_words(p, (uint32_t[]){OPTION_FLAGS | 4u << 16, direction}, 2);
    if (text != 0) {
        pcap_words(p, (uint32_t[]){OPTION_COMMENT | text << 16}, 1);
        pcap_write(p, comment, text);
        pcap_pad(p, text);
    }
    pcap_words(p, (uint32_t[]){0, total}, 2);
    p->counters[FRAMES]++;
    p->counters[BYTES] += length;
    p->counters[NOTED] += text != 0;
}

static void pcap_head(struct pcap *p)
{
    pcap_words(p, (uint32_t[]){SECTION, 28, BYTE_ORDER, 1, UINT32_MAX, UINT32_MAX, 28}, 7);
    pcap_words(
        p, (uint32_t[]){INTERFACE, 32, ETHERNET, p->snap, OPTION_RESOLUTION | 1u << 16, 9, 0, 32},
        8);
}

static uint32_t pcap_kept(const struct pcap *p, uint32_t length)
{
    return p->snap != 0 && length > p->snap ? p->snap : length;
}

/* Writes the received frames that waited for a note. */
static void pcap_flush(struct pcap *p)
{
    for (uint32_t i = 0; i < p->held_count; i++) {
        const struct held *h = &p->held[i];
        pcap_packet(p, h->copy, h->kept, h->length, h->time_ns, INBOUND,
                    h->noted ? &h->note : NULL);
    }
    p->held_count = 0;
}

static void pcap_hold(struct pcap *p, const uint8_t *data, uint32_t length)
{
    if (p->held_count == HELD)
        pcap_flush(p);
    struct held *h = &p->held[p->held_count++];
    h->from = data;
    h->time_ns = kit_env_now_ns(p->env);
    h->length = length;
    h->kept = pcap_kept(p, length);
    h->noted = false;
    memcpy(h->copy, data, h->kept);
}

static void pcap_note(network_interface_t *network, const struct kit_packet_note *note)
{
    struct pcap *p = pcap_of(network);
    if (p->inner->note != NULL)
        p->inner->note(p->inner, note);
    if (note->outbound) {
        p->notes[p->note_next++ % NOTES] = *note;
        return;
    }
    for (uint32_t i = 0; i < p->held_count; i++) {
        if (p->held[i].from == note->frame) {
            p->held[i].note = *note;
            p->held[i].noted = true;
        }
    }
}

/* The note on a frame that is being sent, which is used up; or NULL. */
static const struct kit_packet_note *pcap_noted(struct pcap *p, const uint8_t *data)
{
    for (uint32_t i = 0; i < NOTES; i++) {
        if (p->notes[i].frame == data) {
            p->notes[i].frame = NULL;
            return &p->notes[i];
        }
    }
    return NULL;
}

static void pcap_sent(struct pcap *p, const uint8_t *data, uint32_t length)
{
    pcap_packet(p, data, pcap_kept(p, length), length, kit_env_now_ns(p->env), OUTBOUND,
                pcap_noted(p, data));
}

static int pcap_send(network_interface_t *network, const void *data, size_t length)
{
    struct pcap *p = pcap_of(network);
    pcap_flush(p);
    int rc = kit_netif_send(p->inner, data, length);
    if (rc == 0)
        pcap_sent(p, data, (uint32_t)length);
    return rc;
}

static int pcap_receive(network_interface_t *network, void *buffer, size_t max_length)
{
    struct pcap *p = pcap_of(network);
    pcap_flush(p);
    int got = kit_netif_receive(p->inner, buffer, max_length);
    if (got > 0)
        pcap_hold(p, buffer, (uint32_t)got);
    return got;
}

static int pcap_send_batch(network_interface_t *network, const struct kit_frame *frames,
                           size_t count)
{
    struct pcap *p = pcap_of(network);
    pcap_flush(p);
    int taken = kit_netif_send_batch(p->inner, frames, count);
    for (int i = 0; i < taken; i++)
        pcap_sent(p, frames[i].data, frames[i].length);
    return taken;
}

static int pcap_receive_batch(network_interface_t *network, struct kit_frame *frames, size_t count)
{
    struct pcap *p = pcap_of(network);
    pcap_flush(p);
    int got = kit_netif_receive_batch(p->inner, frames, count < HELD ? count : HELD);
    for (int i = 0; i < got; i++)
        pcap_hold(p, frames[i].data, frames[i].length);
    return got;
}

static int pcap_configure(network_interface_t *network, const char *ip, const char *netmask)
{
    return kit_netif_configure(pcap_of(network)->inner, ip, netmask);
}

static size_t pcap_counters(const network_interface_t *network, uint64_t *values, size_t count)
{
    const struct pcap *p = KIT_CONTAINER_OF(network, struct pcap, network);
    for (size_t i = 0; i < count && i < COUNTERS; i++)
        values[i] = p->counters[i];
    return COUNTERS;
}

static void pcap_close(network_interface_t *network)
{
    pcap_flush(pcap_of(network));
}

static size_t pcap_stride(const uint64_t *options, const network_interface_t *inner)
{
    size_t longest = (size_t)inner->mtu + KIT_NETIF_HEADER;
    if (inner->offloads != 0)
        longest = 65536 + KIT_NETIF_HEADER; /* segments that the device will cut */
    uint64_t snap = options[OPTION_SNAP];
    return kit_align_up(snap != 0 && snap < longest ? (size_t)snap : longest, 64);
}

static size_t pcap_size(const uint64_t *options, const network_interface_t *inner)
{
    if (inner == NULL || options[OPTION_SNAP] > 1 << 18)
        return 0;
    return kit_align_up(sizeof(struct pcap), 64) + HELD * pcap_stride(options, inner);
}

static int pcap_build(const uint64_t *options, void *memory, size_t size,
                      const struct kit_netif_base *base, network_interface_t **ends)
{
    size_t need = pcap_size(options, base->inner);
    if (need == 0 || base->env == NULL || ((uintptr_t)memory & 63) != 0)
        return KIT_EINVAL;
    if (base->sink == NULL)
        return KIT_ENOTSUP;
    if (size < need)
        return KIT_ENOMEM;
    struct pcap *p = memory;
    *p = (struct pcap){.network = {.send_packet = pcap_send,
                                   .receive_packet = pcap_receive,
                                   .configure = pcap_configure,
                                   .send_batch = pcap_send_batch,
                                   .receive_batch = pcap_receive_batch,
                                   .note = pcap_note,
                                   .mtu = base->inner->mtu,
                                   .offloads = base->inner->offloads},
                       .inner = base->inner,
                       .env = base->env,
                       .sink = *base->sink,
                       .snap = (uint32_t)options[OPTION_SNAP]};
    memcpy(p->network.mac, base->inner->mac, sizeof(p->network.mac));
    uint64_t wall = kit_env_wall_ns(base->env);
    p->epoch_ns = wall != 0 ? wall - kit_env_now_ns(base->env) : 0;
    uint8_t *copies = (uint8_t *)memory + kit_align_up(sizeof(*p), 64);
    for (unsigned i = 0; i < HELD; i++)
        p->held[i].copy = copies + i * pcap_stride(options, base->inner);
    pcap_head(p);
    ends[0] = &p->network;
    return 0;
}

const struct kit_netif_component kit_netif_pcap = {
    .id = "netif.pcap",
    .abi = KIT_NETIF_ABI,
    .features = KIT_NETIF_LAYER,
    .ends = 1,
    .build_size = pcap_size,
    .build = pcap_build,
    .counters = pcap_counters,
    .close = pcap_close,
};
