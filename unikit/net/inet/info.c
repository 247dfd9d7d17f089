/* SPDX-License-Identifier: MIT */
/* What the stack counted. Every packet that is dropped is counted under its reason. */
#include <unikit/net/inet/calls.h>

static const char *const info_names[INET_COUNTS] = {
    [INET_FRAME_SHORT] = "frame_short",
    [INET_FRAME_OTHER] = "frame_other",
    [INET_ARP_MALFORMED] = "arp_malformed",
    [INET_ARP_UNWANTED] = "arp_unwanted",
    [INET_ARP_STORM] = "arp_storm",
    [INET_IP_HEADER] = "ip_header",
    [INET_IP_CHECKSUM] = "ip_checksum",
    [INET_IP_SOURCE] = "ip_source",
    [INET_IP_DESTINATION] = "ip_destination",
    [INET_IP_OPTIONS] = "ip_options",
    [INET_IP_PROTOCOL] = "ip_protocol",
    [INET_FRAGMENT_MALFORMED] = "fragment_malformed",
    [INET_FRAGMENT_OVERLAP] = "fragment_overlap",
    [INET_FRAGMENT_FULL] = "fragment_full",
    [INET_FRAGMENT_TIMEOUT] = "fragment_timeout",
    [INET_ICMP_MALFORMED] = "icmp_malformed",
    [INET_ICMP_UNWANTED] = "icmp_unwanted",
    [INET_UDP_MALFORMED] = "udp_malformed",
    [INET_UDP_CHECKSUM] = "udp_checksum",
    [INET_UDP_PORT] = "udp_port",
    [INET_UDP_FULL] = "udp_full",
    [INET_TCP_MALFORMED] = "tcp_malformed",
    [INET_TCP_CHECKSUM] = "tcp_checksum",
    [INET_TCP_PORT] = "tcp_port",
    [INET_TCP_WINDOW] = "tcp_window",
    [INET_TCP_PAWS] = "tcp_paws",
    [INET_TCP_TIMESTAMP] = "tcp_timestamp",
    [INET_TCP_ACK] = "tcp_ack",
    [INET_TCP_FLAGS] = "tcp_flags",
    [INET_TCP_BACKLOG] = "tcp_backlog",
    [INET_TCP_COOKIE] = "tcp_cookie",
    [INET_TCP_MEMORY] = "tcp_memory",
    [INET_SEND_NEIGHBOUR] = "send_neighbour",
    [INET_SEND_DEVICE] = "send_device",
    [INET_SEND_BUSY] = "send_busy",
    [INET_COOKIES_SENT] = "cookies_sent",
    [INET_COOKIES_TAKEN] = "cookies_taken",
    [INET_FAST_RECOVERIES] = "fast_recoveries",
    [INET_TIMEOUTS] = "timeouts",
    [INET_TAIL_PROBES] = "tail_probes",
    [INET_UNDONE] = "undone",
    [INET_DUPLICATES_REPORTED] = "duplicates_reported",
    [INET_CHALLENGES_SENT] = "challenges_sent",
    [INET_CONGESTION_MARKS] = "congestion_marks",
    [INET_PATH_SHRUNK] = "path_shrunk",
    [INET_SUPER_OUT] = "super_out",
    [INET_SUPER_IN] = "super_in",
};

/* The reasons that stats() adds up; the rest are for nobody here. */
static const uint8_t info_malformed[] = {
    INET_FRAME_SHORT,        INET_ARP_MALFORMED,    INET_IP_HEADER,      INET_IP_CHECKSUM,
    INET_FRAGMENT_MALFORMED, INET_FRAGMENT_OVERLAP, INET_ICMP_MALFORMED, INET_UDP_MALFORMED,
    INET_UDP_CHECKSUM,       INET_TCP_MALFORMED,    INET_TCP_CHECKSUM};
static const uint8_t info_full[] = {INET_FRAGMENT_FULL, INET_UDP_FULL,       INET_TCP_BACKLOG,
                                    INET_TCP_MEMORY,    INET_SEND_NEIGHBOUR, INET_SEND_DEVICE,
                                    INET_SEND_BUSY,     INET_ARP_STORM};

INET_COLD static uint64_t info_sum(const struct inet *m, const uint8_t *which, size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += m->counts[which[i]];
    return sum;
}

INET_COLD void inet_stats(const struct kit_net *net, struct kit_net_stats *out)
{
    const struct inet *m = inet_of(net);
    uint64_t all = 0;
    for (unsigned i = 0; i < INET_DROPS; i++)
        all += m->counts[i];
    *out = m->stats;
    out->dropped_malformed = info_sum(m, info_malformed, KIT_ARRAY_SIZE(info_malformed));
    out->dropped_full = info_sum(m, info_full, KIT_ARRAY_SIZE(info_full));
    out->dropped_unwanted = all - out->dropped_malformed - out->dropped_full;
    out->memory = m->memory.used;
    out->tcp_open = m->open;
    out->udp_open = m->ports.count;
}

INET_COLD int inet_counter(const struct kit_net *net, uint32_t index, const char **name,
                           uint64_t *value)
{
    if (index >= INET_COUNTS)
        return KIT_ENOENT;
    *name = info_names[index];
    *value = inet_of(net)->counts[index];
    return 0;
}
