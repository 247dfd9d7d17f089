/* SPDX-License-Identifier: MIT */
/* The TCP and UDP calls of app.h: the image's stack, by name. */
#include <unikit/image/runtime/runtime.h>

enum { BACKLOG = 128 };

int kit_tcp_listen(uint16_t port, kit_tcp_callback callback, void *argument, struct kit_tcp **out)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_tcp_listen");
    return kit_net_tcp_listen(kit_runtime.net, port, BACKLOG, callback, argument, out);
}

struct kit_tcp *kit_tcp_accept(struct kit_tcp *listener)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_tcp_accept");
    return kit_net_tcp_accept(listener);
}

void kit_tcp_set_callback(struct kit_tcp *tcp, kit_tcp_callback callback, void *argument)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_tcp_set_callback");
    kit_net_tcp_set_callback(tcp, callback, argument);
}

int kit_tcp_connect(const struct kit_address *remote, kit_tcp_callback callback, void *argument,
                    struct kit_tcp **out)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_tcp_connect");
    return kit_net_tcp_connect(kit_runtime.net, remote, callback, argument, out);
}

int kit_tcp_send(struct kit_tcp *tcp, const void *data, size_t length)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_tcp_send");
    return kit_net_tcp_send(tcp, data, length);
}

int kit_tcp_receive(struct kit_tcp *tcp, void *buffer, size_t length)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_tcp_receive");
    return kit_net_tcp_receive(tcp, buffer, length);
}

int kit_tcp_peek(struct kit_tcp *tcp, const void **data)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_tcp_peek");
    return kit_net_tcp_peek(tcp, data);
}

void kit_tcp_consume(struct kit_tcp *tcp, size_t length)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_tcp_consume");
    kit_net_tcp_consume(tcp, length);
}

int kit_tcp_shutdown(struct kit_tcp *tcp)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_tcp_shutdown");
    return kit_net_tcp_shutdown(tcp);
}

void kit_tcp_close(struct kit_tcp *tcp)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_tcp_close");
    kit_net_tcp_close(tcp);
}

void kit_tcp_abort(struct kit_tcp *tcp)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_tcp_abort");
    kit_net_tcp_abort(tcp);
}

void kit_tcp_info(const struct kit_tcp *tcp, struct kit_tcp_info *out)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_tcp_info");
    kit_net_tcp_info(tcp, out);
}

int kit_udp_open(uint16_t port, kit_udp_callback callback, void *argument, struct kit_udp **out)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_udp_open");
    return kit_net_udp_open(kit_runtime.net, port, callback, argument, out);
}

int kit_udp_send(struct kit_udp *udp, const struct kit_address *to, const void *data, size_t length)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_udp_send");
    return kit_net_udp_send(udp, to, data, length);
}

int kit_udp_receive(struct kit_udp *udp, struct kit_address *from, void *buffer, size_t length)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_udp_receive");
    return kit_net_udp_receive(udp, from, buffer, length);
}

void kit_udp_close(struct kit_udp *udp)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_udp_close");
    kit_net_udp_close(udp);
}

int kit_net_own_address(uint8_t family, struct kit_address *out)
{
    KIT_INSIDE;
    KIT_RUNTIME_FIRST_ONLY("kit_net_own_address");
    return kit_net_address(kit_runtime.net, family, out);
}
