/* SPDX-License-Identifier: MIT */
/* UDP forwarding. Every peer of a forwarded port (address and port on the host) gets a UDP port of
 * its own on the outer stack, so the image tells the peers apart and answers reach the right one.
 * Sessions are found by hash, expire when silent, and the longest silent one makes room. */
#include <unikit/net/netif/user/host.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static struct user_session *session_of(struct kit_list *link)
{
    return KIT_CONTAINER_OF(link, struct user_session, by_age);
}

/* Multiplicative hashing (Knuth, TAOCP 3, 6.4); peers are processes of this host, not attackers
 * with a choice of many addresses. */
static struct user_session **bucket(struct user *user, const struct user_port *port,
                                    const struct sockaddr_in *peer)
{
    uint64_t key = (uint64_t)peer->sin_addr.s_addr << 32 | (uint64_t)peer->sin_port << 16 |
                   (uint64_t)(port - user->ports);
    return &user->buckets[key * UINT64_C(0x9e3779b97f4a7c15) >> 56];
}

static void session_close(struct user_session *session)
{
    struct user *user = session->user;
    struct user_session **at = bucket(user, session->port, &session->peer);
    while (*at != session)
        at = &(*at)->hash_next;
    *at = session->hash_next;
    kit_list_remove(&session->by_age);
    kit_net_udp_close(session->udp);
    free(session);
    user->session_count--;
}

static void session_touch(struct user_session *session)
{
    kit_list_remove(&session->by_age);
    kit_list_push_back(&session->user->sessions, &session->by_age);
    session->used_ns = user_now_ns();
}

/* The image answers. */
static void session_event(void *argument, struct kit_udp *udp)
{
    struct user_session *session = argument;
    struct user *user = session->user;
    struct kit_address from;
    int length;
    session_touch(session);
    while ((length = kit_net_udp_receive(udp, &from, user->scratch, USER_SCRATCH)) >= 0) {
        bool sent = from.port == session->port->image_port &&
                    sendto(session->port->source.fd, user->scratch, (size_t)length, MSG_NOSIGNAL,
                           (const struct sockaddr *)&session->peer, sizeof session->peer) >= 0;
        *(sent ? &user->stats.datagrams_out : &user->stats.datagrams_dropped) += 1;
    }
}

static struct user_session *session_find(struct user *user, struct user_port *port,
                                         const struct sockaddr_in *peer)
{
    struct user_session *session = *bucket(user, port, peer);
    while (session && (session->port != port || session->peer.sin_port != peer->sin_port ||
                       session->peer.sin_addr.s_addr != peer->sin_addr.s_addr))
        session = session->hash_next;
    return session;
}

static struct user_session *session_open(struct user *user, struct user_port *port,
                                         const struct sockaddr_in *peer)
{
    if (user->session_count == user->config.sessions)
        session_close(session_of(user->sessions.next));
    struct user_session *session = calloc(1, sizeof *session);
    if (!session)
        return NULL;
    *session = (struct user_session){.user = user, .port = port, .peer = *peer};
    if (kit_net_udp_open(user->net, 0, session_event, session, &session->udp)) {
        free(session);
        return NULL;
    }
    struct user_session **at = bucket(user, port, peer);
    session->hash_next = *at;
    *at = session;
    kit_list_init(&session->by_age);
    user->session_count++;
    return session;
}

void user_udp_ready(struct user *user, struct user_source *source, uint32_t events)
{
    struct user_port *port = (struct user_port *)source;
    const struct kit_address image = user_image(user, port->image_port);
    (void)events;
    for (unsigned i = 0; i < USER_ACCEPTS; i++) {
        struct sockaddr_in peer;
        socklen_t size = sizeof peer;
        ssize_t length = recvfrom(port->source.fd, user->scratch, USER_SCRATCH, 0,
                                  (struct sockaddr *)&peer, &size);
        if (length < 0 && errno != EAGAIN)
            continue; /* an ICMP error of an earlier answer: that peer is gone */
        if (length < 0)
            return;
        struct user_session *session = session_find(user, port, &peer);
        if (!session)
            session = session_open(user, port, &peer);
        if (session)
            session_touch(session);
        bool sent =
            session && !kit_net_udp_send(session->udp, &image, user->scratch, (size_t)length);
        *(sent ? &user->stats.datagrams_in : &user->stats.datagrams_dropped) += 1;
    }
}

void user_udp_expire(struct user *user, uint64_t now_ns)
{
    while (user_udp_deadline_ns(user) <= now_ns)
        session_close(session_of(user->sessions.next));
}

uint64_t user_udp_deadline_ns(const struct user *user)
{
    if (kit_list_empty(&user->sessions))
        return KIT_NEVER;
    return session_of(user->sessions.next)->used_ns + user->config.session_ns;
}

int user_udp_check(const struct user *user)
{
    uint32_t hashed = 0, aged = 0;
    for (size_t i = 0; i < USER_BUCKETS; i++)
        for (const struct user_session *s = user->buckets[i]; s; s = s->hash_next)
            hashed++;
    uint64_t before = 0;
    for (const struct kit_list *link = user->sessions.next; link != &user->sessions;
         link = link->next, aged++) {
        const struct user_session *session = session_of((struct kit_list *)(uintptr_t)link);
        if (session->used_ns < before || session->user != user)
            return KIT_ECORRUPT;
        before = session->used_ns;
    }
    return hashed == user->session_count && aged == hashed ? 0 : KIT_ECORRUPT;
}

void user_udp_close(struct user *user)
{
    while (!kit_list_empty(&user->sessions))
        session_close(session_of(user->sessions.next));
}
