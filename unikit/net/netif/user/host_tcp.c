/* SPDX-License-Identifier: MIT */
/* TCP forwarding: each accepted socket of the host is relayed to a connection that the outer stack
 * opens into the image.
 *
 * Sockets are watched edge-triggered, once; `readable` and `writable` remember the edges. Data
 * towards the host is written straight from the stack's receive buffer, so a slow host closes the
 * image's window. Data towards the image is read only as far as the stack has room, so a slow image
 * closes the host's; what the stack refuses all the same (2 KiB at most) waits in `pending`.
 * An end of stream passes in its direction alone; a reset or an error on one side resets the other.
 */
#include <unikit/net/netif/user/host.h>

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PENDING = 2048 };

static const uint64_t RETRY_NS = 100 * KIT_NS_PER_MS; /* accepting, when descriptors ran out */

/* Ends the watch before closing: closing would not end it while a child of this process, between
 * fork and exec, has the same socket. */
static void relay_hang_up(struct user_relay *relay)
{
    epoll_ctl(relay->user->netif.fd, EPOLL_CTL_DEL, relay->source.fd, NULL);
    close(relay->source.fd);
    relay->source.fd = -1;
    free(relay->pending);
    relay->pending = NULL;
}

/* The stack's handle was given up already. */
static void relay_free(struct user_relay *relay)
{
    struct user *user = relay->user;
    kit_list_remove(&relay->link);
    free(relay);
    user->relay_count--;
    if (user->paused)
        user_resume(user);
}

static void reset_on_close(int fd)
{
    const struct linger abort_it = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &abort_it, sizeof abort_it);
}

/* Resets both sides. A reset is sent once, and an image that never hears of it might keep its
 * connection for ever; so while the way to the image is crowded the relay waits as `dying`. */
static void relay_reset(struct user_relay *relay)
{
    struct user *user = relay->user;
    if (!relay->connected)
        user->stats.refused++;
    reset_on_close(relay->source.fd);
    relay_hang_up(relay);
    if (user_wire_free(&user->wire) < USER_RESERVE) {
        kit_list_remove(&relay->link);
        kit_list_push_back(&user->dying, &relay->link);
    } else {
        kit_net_tcp_abort(relay->tcp);
        relay_free(relay);
    }
}

void user_tcp_reap(struct user *user)
{
    while (!kit_list_empty(&user->dying) && user_wire_free(&user->wire) >= USER_RESERVE) {
        struct user_relay *relay = KIT_CONTAINER_OF(user->dying.next, struct user_relay, link);
        kit_net_tcp_abort(relay->tcp);
        relay_free(relay);
    }
}

/* Gives `pending` to the stack; 1: all of it, 0: the stack is full, or an error. */
static int relay_flush(struct user_relay *relay)
{
    while (relay->pending_first < relay->pending_last) {
        int sent = kit_net_tcp_send(relay->tcp, relay->pending + relay->pending_first,
                                    relay->pending_last - relay->pending_first);
        if (sent <= 0)
            return sent == KIT_EAGAIN ? 0 : sent;
        relay->pending_first += (uint32_t)sent;
    }
    free(relay->pending);
    relay->pending = NULL;
    return 1;
}

/* Gives freshly read bytes to the stack, and keeps what it refuses. */
static int relay_push(struct user_relay *relay, const uint8_t *data, size_t length)
{
    size_t done = 0;
    while (done < length) {
        int sent = kit_net_tcp_send(relay->tcp, data + done, length - done);
        if (sent == KIT_EAGAIN)
            break;
        if (sent < 0)
            return sent;
        done += (size_t)sent;
    }
    if (done == length)
        return 1;
    relay->pending = malloc(length - done);
    if (!relay->pending)
        return KIT_ENOMEM;
    memcpy(relay->pending, data + done, length - done);
    relay->pending_first = 0;
    relay->pending_last = (uint32_t)(length - done);
    return 0;
}

/* How much to read: what the stack has room for. With no room a little is read all the same, since
 * only a refused send makes the stack tell when there is room again. */
static size_t relay_room(const struct user_relay *relay)
{
    struct kit_tcp_info info;
    kit_net_tcp_info(relay->tcp, &info);
    if (info.send_space < PENDING)
        return PENDING;
    return info.send_space < USER_SCRATCH ? info.send_space : USER_SCRATCH;
}

/* Moves bytes from the host to the image until one of them has to wait; 0 or an error. */
static int relay_in(struct user_relay *relay)
{
    while (!relay->host_ended) {
        if (relay->pending) {
            int rc = relay_flush(relay);
            if (rc <= 0)
                return rc;
        }
        if (!relay->readable)
            return 0;
        size_t room = relay_room(relay);
        ssize_t got = read(relay->source.fd, relay->user->scratch, room);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno != EAGAIN)
            return KIT_ERESET;
        if (got < 0 || ((size_t)got < room && !relay->hung_up))
            relay->readable = false; /* a short read emptied it; news come with a new edge */
        if (got == 0) {
            relay->host_ended = true;
            kit_net_tcp_shutdown(relay->tcp);
            return 0;
        }
        if (got > 0) {
            int rc = relay_push(relay, relay->user->scratch, (size_t)got);
            if (rc <= 0)
                return rc;
        }
    }
    return 0;
}

/* Moves bytes from the image to the host until one of them has to wait; 0 or an error. */
static int relay_out(struct user_relay *relay)
{
    while (!relay->image_ended && relay->writable) {
        const void *data;
        int length = kit_net_tcp_peek(relay->tcp, &data);
        if (length < 0)
            return length == KIT_EAGAIN ? 0 : length;
        if (length == 0) {
            relay->image_ended = true;
            shutdown(relay->source.fd, SHUT_WR);
            return 0;
        }
        ssize_t sent = send(relay->source.fd, data, (size_t)length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN)
            return KIT_ERESET;
        if (sent < 0)
            relay->writable = false;
        else
            kit_net_tcp_consume(relay->tcp, (size_t)sent);
    }
    return 0;
}

static void relay_run(struct user_relay *relay)
{
    if (!relay->connected)
        return;
    int rc = relay_out(relay);
    if (!rc)
        rc = relay_in(relay);
    if (rc < 0) {
        relay_reset(relay);
    } else if (relay->host_ended && relay->image_ended) {
        kit_net_tcp_close(relay->tcp);
        relay_hang_up(relay);
        relay_free(relay);
    }
}

/* The stack's side has news. */
static void relay_event(void *argument, struct kit_tcp *tcp, uint32_t events)
{
    struct user_relay *relay = argument;
    if (relay->source.fd < 0) { /* dying */
        if (events & KIT_NET_ERROR) {
            kit_net_tcp_abort(tcp);
            relay_free(relay);
        }
        return;
    }
    if (events & KIT_NET_CONNECTED)
        relay->connected = true;
    if (events & KIT_NET_ERROR) {
        if (relay->connected)
            relay_out(relay); /* data that came before the end */
        relay_reset(relay);
        return;
    }
    relay_run(relay);
}

/* The host's side has news. */
static void relay_ready(struct user *user, struct user_source *source, uint32_t events)
{
    (void)user;
    struct user_relay *relay = (struct user_relay *)source;
    relay->readable |= (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    relay->writable |= (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0;
    relay->hung_up |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    if (events & EPOLLERR)
        relay_reset(relay);
    else
        relay_run(relay);
}

/* Opens the way into the image for an accepted socket, which it owns from here on. */
static void relay_open(struct user *user, const struct user_port *port, int fd)
{
    struct user_relay *relay = calloc(1, sizeof *relay);
    const int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    user->stats.accepted++;
    if (relay) {
        *relay = (struct user_relay){
            .source = {.ready = relay_ready, .fd = fd}, .user = user, .writable = true};
        struct kit_address image = user_image(user, port->image_port);
        int rc = kit_net_tcp_connect(user->net, &image, relay_event, relay, &relay->tcp);
        if (!rc && user_watch(user, &relay->source, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)) {
            kit_net_tcp_abort(relay->tcp);
            rc = KIT_ENOMEM;
        }
        if (!rc) {
            kit_list_push_back(&user->relays, &relay->link);
            user->relay_count++;
            return;
        }
        free(relay);
    }
    user->stats.refused++;
    reset_on_close(fd);
    close(fd);
}

void user_tcp_ready(struct user *user, struct user_source *source, uint32_t events)
{
    const struct user_port *port = (struct user_port *)source;
    (void)events;
    for (unsigned i = 0; i < USER_ACCEPTS; i++) {
        if (user->relay_count == user->config.connections) {
            user_pause(user, KIT_NEVER); /* until a relay ends */
            return;
        }
        int fd = accept4(port->source.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                user_pause(user, user_now_ns() + RETRY_NS);
            return;
        }
        relay_open(user, port, fd);
    }
}

void user_tcp_close(struct user *user)
{
    struct kit_list *const lists[] = {&user->relays, &user->dying};
    for (size_t i = 0; i < KIT_ARRAY_SIZE(lists); i++)
        while (!kit_list_empty(lists[i])) {
            struct user_relay *relay = KIT_CONTAINER_OF(lists[i]->next, struct user_relay, link);
            if (relay->source.fd >= 0) {
                reset_on_close(relay->source.fd);
                relay_hang_up(relay);
            }
            kit_net_tcp_abort(relay->tcp);
            relay_free(relay);
        }
}
