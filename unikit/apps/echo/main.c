/* SPDX-License-Identifier: MIT */
/* Echo by TCP and UDP (RFC 862), by events.
 *
 * Back pressure: data is peeked, sent, and consumed only as far as the sending side took it. While
 * it takes nothing, nothing is read, the receive window fills, and the peer has to wait.
 * Half-close: when the peer has ended its stream and everything was sent back, we end ours. */
#include <unikit/app.h>

enum { DATAGRAM_MAX = 2048 };

/* Echoes until one side blocks; false when the connection is over. */
static bool echo(struct kit_tcp *tcp)
{
    for (;;) {
        const void *data;
        int got = kit_tcp_peek(tcp, &data);
        if (got == KIT_EAGAIN)
            return true;
        if (got <= 0)
            return false;
        int sent = kit_tcp_send(tcp, data, (size_t)got);
        if (sent == KIT_EAGAIN)
            return true;
        if (sent < 0)
            return false;
        kit_tcp_consume(tcp, (size_t)sent);
    }
}

static void on_connection(void *argument, struct kit_tcp *tcp, uint32_t events)
{
    (void)argument;
    if (events & KIT_NET_ERROR)
        kit_tcp_abort(tcp);
    else if (!echo(tcp))
        kit_tcp_close(tcp); /* what is queued, and our FIN behind it, is still delivered */
}

static void on_listener(void *argument, struct kit_tcp *listener, uint32_t events)
{
    struct kit_tcp *tcp;
    (void)argument;
    (void)events;
    while ((tcp = kit_tcp_accept(listener)) != NULL) {
        kit_tcp_set_callback(tcp, on_connection, NULL);
        on_connection(NULL, tcp, KIT_NET_READABLE);
    }
}

static void on_datagram(void *argument, struct kit_udp *udp)
{
    static uint8_t datagram[DATAGRAM_MAX];
    struct kit_address from;
    int length;
    (void)argument;
    while ((length = kit_udp_receive(udp, &from, datagram, sizeof datagram)) >= 0) {
        /* A datagram may be lost; one that was cut, or that the queue has no room for, is. And two
         * echo servers that talk to each other would never end. */
        if (length <= DATAGRAM_MAX && from.port != (uint16_t)kit_app_option("port"))
            kit_udp_send(udp, &from, datagram, (size_t)length);
    }
}

int init_application(void)
{
    uint16_t port = (uint16_t)kit_app_option("port");
    struct kit_tcp *tcp;
    struct kit_udp *udp;
    int rc = kit_tcp_listen(port, on_listener, NULL, &tcp);
    if (rc == 0)
        rc = kit_udp_open(port, on_datagram, NULL, &udp);
    if (rc != 0) {
        kit_log("echo: cannot listen on port %u: %s", port,
                rc == KIT_EEXIST ? "it is taken" : "out of memory");
        return 1;
    }
    kit_log("echo: listening on %u", port);
    return 0;
}
