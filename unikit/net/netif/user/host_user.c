/* SPDX-License-Identifier: MIT */
/* The interface towards the image, and the event loop that turns inside its calls. */
#include <unikit/net/netif/user/host.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <unikit/ffi/hooks/guard.h>

static const uint64_t START_NS = KIT_NS_PER_S; /* what an image gets to come up before clients */

static struct user *of(const network_interface_t *network)
{
    return (struct user *)(uintptr_t)network;
}

int user_watch(struct user *user, struct user_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    return epoll_ctl(user->netif.fd, EPOLL_CTL_ADD, source->fd, &event);
}

static void set_ports(struct user *user, bool tcp_only, uint32_t events)
{
    for (size_t i = 0; i < user->port_count; i++) {
        struct user_port *port = &user->ports[i];
        struct epoll_event event = {.events = events, .data.ptr = port};
        if (!tcp_only || port->protocol == KIT_USER_TCP)
            epoll_ctl(user->netif.fd, EPOLL_CTL_MOD, port->source.fd, &event);
    }
}

void user_pause(struct user *user, uint64_t until_ns)
{
    user->paused = true;
    user->paused_until_ns = until_ns;
    set_ports(user, true, 0);
}

void user_resume(struct user *user)
{
    user->starting = user->paused = false;
    user->paused_until_ns = KIT_NEVER;
    set_ports(user, false, EPOLLIN);
}

static struct kit_address address_of(uint32_t ip, uint16_t port)
{
    struct kit_address address = {.port = port, .family = 4};
    ip = htonl(ip);
    memcpy(address.bytes, &ip, sizeof ip);
    return address;
}

struct kit_address user_image(const struct user *user, uint16_t port)
{
    return address_of(user->config.image_address, port);
}

/* Lets the outer stack do what there is to do, within bounds. */
static void run_stack(struct user *user)
{
    user->busy = true;
    for (unsigned i = 0; i < USER_ROUNDS && user->busy && !user_wire_full(&user->wire); i++)
        user->busy = kit_net_poll(user->net);
}

/* Passes frames of the image's side to the stack; how many it took. */
static size_t pass_frames(struct user *user, const struct kit_frame *frames, size_t count)
{
    user->wire.arrived = frames;
    user->wire.arrived_count = count;
    size_t left = count + 1;
    while (user->wire.arrived_count && user->wire.arrived_count < left) {
        left = user->wire.arrived_count;
        kit_net_poll(user->net);
    }
    size_t taken = count - user->wire.arrived_count;
    user->wire.arrived_count = 0;
    return taken;
}

static void introduce(struct user *user, uint64_t now_ns)
{
    uint8_t data[USER_ARP_FRAME];
    const struct kit_frame frame = {.data = data, .length = sizeof data};
    user_arp_request(user, now_ns, data);
    pass_frames(user, &frame, 1);
}

static size_t take_frames(struct user *user, const struct kit_frame *frames, size_t count)
{
    size_t taken = pass_frames(user, frames, count);
    user_arp_hear(user, frames, taken);
    run_stack(user);
    user->busy |= user->starting && user->heard;
    return taken;
}

/* Looks at the sockets once, then lets the stack speak. */
static void run_sockets(struct user *user)
{
    struct epoll_event events[USER_EVENTS];
    uint64_t now = user_now_ns();
    if (user_arp_due(user, now)) {
        introduce(user, now);
        user->paused_until_ns = user->starting ? now : user->paused_until_ns;
    }
    if (user->paused_until_ns <= now)
        user_resume(user);
    int count = epoll_wait(user->netif.fd, events, USER_EVENTS, 0);
    for (int i = 0; i < count; i++) {
        struct user_source *source = events[i].data.ptr;
        source->ready(user, source, events[i].events);
    }
    user_udp_expire(user, now);
    user_tcp_reap(user);
    if (count > 0 || user->busy || !kit_list_empty(&user->dying) ||
        kit_net_deadline_ns(user->net) <= now)
        run_stack(user);
}

/* How many frames the stack took, or KIT_EPANIC: it must not be used again. */
static int pass_guarded(struct user *user, const struct kit_frame *frames, size_t count)
{
    volatile int taken = 0;
    user->broken = true; /* unless it comes back */
    KIT_GUARDED(taken = (int)take_frames(user, frames, count), return KIT_EPANIC);
    user->broken = false;
    return taken;
}

/* Why the frame cannot be taken, or 0. */
static int refusal(const struct user *user, const struct kit_frame *frame)
{
    if (frame->length < KIT_NETIF_HEADER || frame->length > user->wire.slot_size)
        return KIT_EMSGSIZE;
    return frame->flags || frame->gso_type ? KIT_EIO : 0; /* no offloads here */
}

static int user_send_batch(network_interface_t *network, const struct kit_frame *frames,
                           size_t count)
{
    struct user *user = of(network);
    if (user->broken)
        return KIT_EPANIC;
    size_t good = 0;
    int why = 0;
    while (good < count && !(why = refusal(user, &frames[good])))
        good++;
    if (!good)
        return why;
    int taken = pass_guarded(user, frames, good);
    if (taken <= 0)
        return taken ? taken : KIT_EAGAIN;
    for (int i = 0; i < taken; i++)
        user->stats.bytes_out += frames[i].length;
    user->stats.frames_out += (uint64_t)taken;
    return taken;
}

static int user_send(network_interface_t *network, const void *data, size_t length)
{
    const struct kit_frame frame = {.data = (uint8_t *)(uintptr_t)data,
                                    .length = length > UINT32_MAX ? UINT32_MAX : (uint32_t)length};
    int rc = user_send_batch(network, &frame, 1);
    return rc < 0 ? rc : 0;
}

/* Makes frames for the image if there are none yet; false: the stack panicked. */
static bool fill(struct user *user)
{
    if (user->broken)
        return false;
    if (user_wire_free(&user->wire) <= USER_QUEUE / 2)
        return true;
    user->broken = true;
    KIT_GUARDED(run_sockets(user), return false);
    user->broken = false;
    return true;
}

static int user_receive(network_interface_t *network, void *buffer, size_t max_length)
{
    struct user *user = of(network);
    if (user_wire_empty(&user->wire) && !fill(user))
        return KIT_EPANIC;
    int length = user_wire_take(&user->wire, buffer, max_length);
    if (length > 0) {
        user->stats.frames_in++;
        user->stats.bytes_in += (uint64_t)length;
    }
    return length;
}

static int user_receive_batch(network_interface_t *network, struct kit_frame *frames, size_t count)
{
    struct user *user = of(network);
    size_t filled = 0;
    if (!fill(user))
        return KIT_EPANIC;
    while (filled < count && !user_wire_empty(&user->wire)) {
        struct kit_frame *frame = &frames[filled];
        int length = user_wire_take(&user->wire, frame->data, frame->capacity);
        if (length < 0)
            continue; /* dropped */
        *frame = (struct kit_frame){
            .data = frame->data, .length = (uint32_t)length, .capacity = frame->capacity};
        user->stats.bytes_in += (uint64_t)length;
        filled++;
    }
    user->stats.frames_in += filled;
    return (int)filled;
}

static int user_configure(network_interface_t *network, const char *ip, const char *netmask)
{
    return of(network)->wire.end.configure(&of(network)->wire.end, ip, netmask);
}

static uint64_t user_deadline_ns(struct kit_host_netif *netif)
{
    struct user *user = of(&netif->network);
    if (user->busy || !user_wire_empty(&user->wire))
        return 0;
    const uint64_t due[] = {kit_net_deadline_ns(user->net), user_udp_deadline_ns(user)};
    uint64_t first = user->paused_until_ns;
    for (size_t i = 0; i < KIT_ARRAY_SIZE(due); i++)
        first = due[i] < first ? due[i] : first;
    return first;
}

static int open_ports(struct user *user, const struct kit_user_port *ports, size_t count)
{
    user->ports = calloc(count ? count : 1, sizeof *user->ports);
    if (!user->ports)
        return KIT_ENOMEM;
    user->port_count = count;
    for (size_t i = 0; i < count; i++) {
        bool tcp = ports[i].protocol == KIT_USER_TCP;
        if (!tcp && ports[i].protocol != KIT_USER_UDP)
            return KIT_EINVAL;
        user->ports[i] = (struct user_port){
            .source = {.ready = tcp ? user_tcp_ready : user_udp_ready, .fd = ports[i].fd},
            .image_port = ports[i].image_port,
            .protocol = ports[i].protocol};
        if (user_watch(user, &user->ports[i].source, 0))
            return KIT_EINVAL;
    }
    user->starting = user->paused = true;
    user->paused_until_ns = user_now_ns() + START_NS;
    return 0;
}

static int open_stack(struct user *user)
{
    const struct kit_user_config *config = &user->config;
    int rc = user_wire_open(&user->wire, config->mtu);
    if (rc)
        return rc;
    user_env_open(user);
    rc = config->stack->open(config->stack_options, &user->env, &user->wire.end, &user->heap.alloc,
                             &user->net);
    if (rc) {
        user->net = NULL;
        return rc;
    }
    const struct kit_address address = address_of(config->outer_address, 0), none = {.family = 0};
    return kit_net_configure(user->net, &address, config->prefix, &none);
}

int kit_host_user_open(const struct kit_user_config *config, const struct kit_user_port *ports,
                       size_t count, struct kit_host_netif **out)
{
    if (config->mtu < 68 || config->mtu > 65521 || !config->connections || !config->sessions)
        return KIT_EINVAL;
    struct user *user = calloc(1, sizeof *user);
    if (!user)
        return KIT_ENOMEM;
    user->config = *config;
    user->netif = (struct kit_host_netif){
        .network = {.send_packet = user_send,
                    .receive_packet = user_receive,
                    .configure = user_configure,
                    .send_batch = user_send_batch,
                    .receive_batch = user_receive_batch,
                    .mtu = (uint16_t)config->mtu},
        .fd = epoll_create1(EPOLL_CLOEXEC),
        .deadline_ns = user_deadline_ns,
    };
    memcpy(user->netif.network.mac, config->mac, sizeof config->mac);
    kit_list_init(&user->relays);
    kit_list_init(&user->dying);
    kit_list_init(&user->sessions);
    user->scratch = malloc(USER_SCRATCH);
    int rc = user->netif.fd < 0 ? KIT_EIO : user->scratch ? open_stack(user) : KIT_ENOMEM;
    if (!rc)
        rc = open_ports(user, ports, count);
    if (rc) {
        kit_host_user_close(&user->netif);
        return rc;
    }
    user->busy = true; /* the stack announces itself */
    *out = &user->netif;
    return 0;
}

void kit_host_user_stats(const struct kit_host_netif *netif, struct kit_user_stats *out)
{
    const struct user *user = of(&netif->network);
    *out = user->stats;
    out->dropped_full = user->wire.dropped;
    out->memory = user->heap.stats.used;
    out->connections = user->relay_count;
    out->sessions = user->session_count;
}

int kit_host_user_check(const struct kit_host_netif *netif)
{
    const struct user *user = of(&netif->network);
    uint32_t relays = 0;
    for (const struct kit_list *link = user->relays.next; link != &user->relays; link = link->next)
        relays++;
    for (const struct kit_list *link = user->dying.next; link != &user->dying; link = link->next)
        relays++;
    if (relays != user->relay_count || relays > user->config.connections ||
        user->wire.tail - user->wire.head > USER_QUEUE || user_udp_check(user))
        return KIT_ECORRUPT;
    int rc = kit_alloc_check(&user->heap.alloc);
    return rc ? rc : kit_net_check(user->net);
}

void kit_host_user_close(struct kit_host_netif *netif)
{
    struct user *user = of(&netif->network);
    if (user->net && !user->broken) {
        user_tcp_close(user);
        user_udp_close(user);
        kit_net_close(user->net);
    }
    if (user->netif.fd >= 0)
        close(user->netif.fd);
    user_wire_close(&user->wire);
    free(user->scratch);
    free(user->ports);
    free(user);
}
