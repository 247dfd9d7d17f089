/* SPDX-License-Identifier: MIT */
/* What the files of net.inet call of each other, by file. */
#ifndef KIT_NET_INET_CALLS_H
#define KIT_NET_INET_CALLS_H

#include <unikit/net/inet/inet.h>

/* inet.c */
void inet_clock(struct inet *m);
/* A network's index by family (4, 6), and our address of an address's family. */
const struct inet_network *inet_network_of(const struct inet *m, const struct inet_ip *ip);

/* info.c */
void inet_stats(const struct kit_net *net, struct kit_net_stats *out);
int inet_counter(const struct kit_net *net, uint32_t index, const char **name, uint64_t *value);

/* check.c */
int inet_check(const struct kit_net *net);

/* link.c */
int inet_link_open(struct inet *m);
void inet_link_close(struct inet *m);
/* The slot for the next frame, or NULL: the interface is busy and the batch full. */
struct kit_frame *inet_link_begin(struct inet *m);
/* Sends what inet_link_begin gave; its length is set. */
void inet_link_commit(struct inet *m);
/* Gives the batch to the interface; whether it is empty now. */
bool inet_link_flush(struct inet *m);
size_t inet_link_receive(struct inet *m);
bool inet_link_blocked(const struct inet *m);
/* As kit_checksum_add, but one copy of it for all. */
uint64_t inet_sum(uint64_t sum, const uint8_t *data, size_t length);

/* neighbour.c */
void inet_arp_input(struct inet *m, const uint8_t *frame, size_t length);
/* Fills in the Ethernet header of the frame just built for `next` and commits it, or lets it wait
 * for the neighbour. 0 or KIT_EUNREACH, KIT_ENOMEM: dropped. */
int inet_neighbour_send(struct inet *m, const struct inet_ip *next, struct kit_frame *frame);
void inet_neighbour_announce(struct inet *m);
void inet_neighbour_timers(struct inet *m);
void inet_neighbour_clear(struct inet *m);
size_t inet_neighbour_memory(const struct inet *m);

/* route.c */
/* 0 or KIT_EUNREACH. */
int inet_route(struct inet *m, const struct inet_ip *to, struct inet_route *out);
bool inet_is_broadcast(const struct inet *m, const struct inet_ip *ip);
/* The path to an address carries no more than `mtu` bytes per packet; false: it was known, or is
 * not to be believed. */
bool inet_path_shrink(struct inet *m, const struct inet_ip *ip, uint32_t mtu);
void inet_paths_clear(struct inet *m);

/* ip.c */
void inet_ip_input(struct inet *m, struct kit_frame *frame);
void inet_ip_deliver(struct inet *m, const struct inet_packet *p);
/* Bytes before what IP carries, in a frame to that address. */
size_t inet_ip_offset(const struct inet_ip *destination);
/* Sends the frame whose payload was written at inet_ip_offset(). 0 or KIT_EUNREACH, KIT_ENOMEM. */
int inet_ip_send(struct inet *m, struct kit_frame *frame, const struct inet_parcel *parcel);
/* The pseudo header's part of a checksum. */
uint64_t inet_ip_pseudo(const struct inet_ip *source, const struct inet_ip *destination,
                        uint8_t protocol, uint32_t length);

/* fragments.c */
void inet_fragment_input(struct inet *m, const struct inet_packet *p);
/* Sends a payload that is longer than the route's MTU. 0; KIT_EAGAIN: the interface is busy. */
int inet_fragment_send(struct inet *m, const struct inet_parcel *parcel, const uint8_t *head,
                       size_t head_length, const uint8_t *data);
void inet_fragment_timers(struct inet *m);
uint64_t inet_fragment_deadline_ns(const struct inet *m);
void inet_fragment_clear(struct inet *m);
bool inet_fragment_sound(const struct inet *m);

/* icmp.c */
enum { INET_UNREACHABLE_PROTOCOL = 2, INET_UNREACHABLE_PORT = 3 };
void inet_icmp_input(struct inet *m, const struct inet_packet *p);
/* Destination unreachable in answer to a packet; rate limited. */
void inet_icmp_unreachable(struct inet *m, const struct inet_packet *p, uint8_t code);
void inet_icmp_expired(struct inet *m, const struct inet_packet *p);
/* Whether one more unasked-for answer may leave in this second (RFC 1812, 4.3.2.8). */
bool inet_icmp_allowed(struct inet *m);

/* udp.c */
void inet_udp_input(struct inet *m, const struct inet_packet *p);
int inet_udp_open(struct kit_net *net, uint16_t port, kit_udp_callback callback, void *argument,
                  struct kit_udp **out);
uint16_t inet_udp_port(const struct kit_udp *handle);
int inet_udp_send(struct kit_udp *handle, const struct kit_address *to, const void *data,
                  size_t length);
int inet_udp_receive(struct kit_udp *handle, struct kit_address *from, void *buffer, size_t length);
void inet_udp_close(struct kit_udp *handle);
bool inet_udp_deliver(struct inet *m);

/* timer.c */
/* Room in the heap for one more connection. */
bool inet_timer_reserve(struct inet *m);
void inet_timer_set(struct inet *m, struct inet_tcp *t, unsigned timer, uint64_t deadline_ns);
void inet_timer_stop(struct inet_tcp *t, unsigned timer);
void inet_timer_forget(struct inet *m, struct inet_tcp *t);
void inet_timer_close(struct inet *m);
/* The connection whose timer is due, its entry being true; NULL: none is due. */
struct inet_tcp *inet_timer_next(struct inet *m);

/* tcp_in.c */
void inet_tcp_input(struct inet *m, const struct inet_packet *p);
/* A segment that belongs to this connection; it may be over afterwards. */
void inet_tcp_segment_input(struct inet *m, struct inet_tcp *t, const struct inet_segment *segment);
/* An ICMP error about a segment of ours, whose first 8 bytes are at `tcp`. */
void inet_tcp_icmp(struct inet *m, struct inet_tuple *tuple, const uint8_t *tcp, uint8_t code,
                   uint32_t mtu);

/* tcp_open.c */
void inet_tcp_learn(struct inet *m, struct inet_tcp *t, const struct inet_segment *s);
void inet_tcp_established(struct inet *m, struct inet_tcp *t);
/* A segment for a port where somebody listens; `old`: what is left of a connection of that name. */
void inet_tcp_listener_input(struct inet *m, struct inet_listener *l, const struct inet_segment *s,
                             const struct inet_time_wait *old);
uint32_t inet_tcp_full_mss(const struct inet *m, const struct inet_tcp *t);

/* tcp_data.c */
uint32_t inet_tcp_space(const struct inet_tcp *t);
/* The window to advertise, in units of the scale; remembers its right edge. */
uint16_t inet_tcp_window(struct inet_tcp *t, bool syn);
/* Trims the segment to the window. False: nothing is left to look at, and the answer that RFC 9293
 * wants for an unacceptable segment is under way. */
bool inet_tcp_trim(struct inet *m, struct inet_tcp *t, struct inet_segment *s);
/* False: the segment was not taken. */
bool inet_tcp_take(struct inet *m, struct inet_tcp *t, const struct inet_segment *s);
/* The reader took bytes: whether the window is now worth telling about. */
bool inet_tcp_opened(struct inet *m, struct inet_tcp *t, uint32_t length);

/* tcp_ack.c */
/* Takes in an acceptable acknowledgment; whether our FIN is acknowledged. */
bool inet_tcp_ack(struct inet *m, struct inet_tcp *t, const struct inet_segment *s);
uint64_t inet_tcp_rto_ns(const struct inet_tcp *t);
/* Sets the timer for what is in flight, or stops it. */
void inet_tcp_arm(struct inet *m, struct inet_tcp *t);
uint32_t inet_tcp_send_limit(const struct inet *m, const struct inet_tcp *t);

/* tcp_loss.c */
void inet_loss_acked(struct inet *m, struct inet_tcp *t, const struct inet_segment *s,
                     struct inet_delivery *d, bool duplicate, bool reported, uint32_t flight);
/* The retransmission timer ran out. */
void inet_loss_timeout(struct inet *m, struct inet_tcp *t);
/* The reordering timer ran out. */
void inet_loss_reordered(struct inet *m, struct inet_tcp *t);
/* Another rate is called for, but nothing is lost (RFC 3168; a probe that repaired a loss). */
void inet_loss_slow_down(struct inet *m, struct inet_tcp *t);
/* The peer said that it got a segment twice (RFC 2883). */
void inet_loss_duplicate(struct inet *m, struct inet_tcp *t, uint32_t bytes);
/* The segment size may have become smaller. */
void inet_tcp_resize(struct inet *m, struct inet_tcp *t);
uint32_t inet_tcp_pipe(const struct inet_tcp *t);
/* After how many microseconds RACK wants to look again; 0: not. */
uint32_t inet_loss_detect(struct inet *m, struct inet_tcp *t, uint32_t *lost);

/* tcp_out.c */
/* Lets the connection speak at the end of the poll. */
void inet_tcp_queue(struct inet *m, struct inet_tcp *t);
void inet_tcp_ack_now(struct inet *m, struct inet_tcp *t);
/* Says what there is to say; false: the interface is busy, try again. */
bool inet_tcp_output(struct inet *m, struct inet_tcp *t);
/* A tail loss probe: one segment, new or the last again. False: there is nothing to send. */
bool inet_tcp_tail_probe(struct inet *m, struct inet_tcp *t);
/* One byte past a closed window. */
void inet_tcp_window_probe(struct inet *m, struct inet_tcp *t);
void inet_tcp_keep_alive(struct inet *m, struct inet_tcp *t);

/* tcp_segment.c */
/* Builds and sends one segment with `length` bytes of the queue; false: the interface is busy. */
bool inet_tcp_segment(struct inet *m, struct inet_tcp *t, uint32_t seq, uint32_t length,
                      uint16_t flags);
/* The sequence number of segments without data. */
uint32_t inet_tcp_bare_seq(const struct inet_tcp *t);
/* Bytes of options in a data segment now. */
uint32_t inet_tcp_options_length(const struct inet_tcp *t);
/* A pure ACK at once: for duplicates, which must go out one by one. */
void inet_tcp_send_ack(struct inet *m, struct inet_tcp *t);
void inet_tcp_challenge(struct inet *m, struct inet_tcp *t);
void inet_tcp_send_reset(struct inet *m, struct inet_tcp *t);

/* What to answer a segment with that belongs to no connection. */
struct inet_reply {
    uint32_t seq;
    uint32_t ack;
    uint16_t flags;
    uint16_t window;
    uint32_t ts_value;
    uint32_t ts_echo;
    uint16_t mss;  /* of a SYN; 0: no such option */
    uint8_t scale; /* 0xff: none */
    bool sack;
    bool timestamps;
};
void inet_tcp_reply(struct inet *m, const struct inet_segment *s, const struct inet_reply *reply);
void inet_tcp_refuse(struct inet *m, const struct inet_segment *s);

/* tcp_timer.c */
bool inet_tcp_timers(struct inet *m);
/* The connection is idle from now on, or something came: keep-alive counts anew. */
void inet_tcp_heard(struct inet *m, struct inet_tcp *t);

/* tcp_life.c */
struct inet_entry *inet_tcp_find(struct inet *m, const struct inet_tuple *tuple, uint32_t *hash);
struct inet_listener *inet_tcp_find_listener(const struct inet *m, uint16_t port);
uint32_t inet_port_hash(const struct inet *m, uint16_t port);
/* A connection in state CLOSED, in the table; NULL: the limit is reached or memory is out. */
struct inet_tcp *inet_tcp_new(struct inet *m, const struct inet_tuple *tuple, uint32_t hash);
/* Chooses the initial sequence number, above *floor if there was a connection of that name. */
void inet_tcp_set_isn(struct inet *m, struct inet_tcp *t, const uint32_t *floor);
uint32_t inet_tcp_ts_offset(const struct inet *m, const struct inet_tuple *tuple);
/* The connection is over: takes it out of table, heap and queues; with an error the owner hears
 * ERROR, else CLOSED. One without owner is freed at the end of the frame. */
void inet_tcp_end(struct inet *m, struct inet_tcp *t, int error);
/* As inet_tcp_end without error, but the name stays taken for a while. */
void inet_tcp_time_wait(struct inet *m, struct inet_tcp *t);
/* RFC 9293, 3.10.7.4 and RFC 6191: true if the segment opens a new connection. */
bool inet_time_wait_input(struct inet *m, struct inet_time_wait *w, const struct inet_segment *s);
void inet_time_wait_free(struct inet *m, struct inet_time_wait *w);
void inet_time_wait_expire(struct inet *m);
void inet_tcp_free(struct inet *m, struct inet_tcp *t);
void inet_reap(struct inet *m);

/* socket.c */
int inet_tcp_listen(struct kit_net *net, uint16_t port, uint32_t backlog, kit_tcp_callback callback,
                    void *argument, struct kit_tcp **out);
struct kit_tcp *inet_tcp_accept(struct kit_tcp *handle);
void inet_tcp_set_callback(struct kit_tcp *handle, kit_tcp_callback callback, void *argument);
int inet_tcp_connect(struct kit_net *net, const struct kit_address *remote,
                     kit_tcp_callback callback, void *argument, struct kit_tcp **out);
int inet_tcp_send(struct kit_tcp *handle, const void *data, size_t length);
int inet_tcp_receive(struct kit_tcp *handle, void *buffer, size_t length);
int inet_tcp_peek(struct kit_tcp *handle, const void **data);
void inet_tcp_consume(struct kit_tcp *handle, size_t length);
int inet_tcp_shutdown(struct kit_tcp *handle);
int inet_tcp_option(struct kit_tcp *handle, uint32_t option, uint64_t value);
void inet_tcp_close(struct kit_tcp *handle);
void inet_tcp_abort(struct kit_tcp *handle);
void inet_tcp_info(const struct kit_tcp *handle, struct kit_tcp_info *out);
void inet_close_sockets(struct inet *m);
/* Notes events and has them delivered at the end of the poll. */
void inet_event(struct inet *m, struct inet_socket *socket, uint32_t events);
bool inet_events_deliver(struct inet *m);
void inet_address_out(struct kit_address *out, const struct inet_ip *ip, uint16_t port);
/* 0; KIT_EINVAL: no such family. */
int inet_address_in(const struct kit_address *in, struct inet_ip *out);

#endif
