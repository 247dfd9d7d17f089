/* SPDX-License-Identifier: MIT */
/* The object is a host interface whose calls go to the layer's own end; the sink gathers what the
 * layer writes and gives it to the file in large pieces, and at the latest when nothing moves. */
#include <unikit/net/netif/host_layer.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER = 1 << 16 };

struct host_layer {
    struct kit_host_netif netif; /* first */
    const struct kit_netif_component *component;
    network_interface_t *end;
    struct kit_host_netif *host;
    void *memory;
    int file;
    int error;
    size_t used;
    struct kit_netif_sink sink;
    uint8_t buffer[BUFFER];
};

static struct host_layer *of(const network_interface_t *network)
{
    return (struct host_layer *)(uintptr_t)network;
}

static void layer_put(struct host_layer *self, const uint8_t *data, size_t length)
{
    while (length != 0 && self->error == 0) {
        ssize_t done = write(self->file, data, length);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            self->error = done < 0 ? errno : EIO;
            return;
        }
        data += done;
        length -= (size_t)done;
    }
}

static void layer_flush(struct host_layer *self)
{
    layer_put(self, self->buffer, self->used);
    self->used = 0;
}

static void layer_write(void *context, const void *data, size_t length)
{
    struct host_layer *self = context;
    if (self->used + length > BUFFER)
        layer_flush(self);
    if (length > BUFFER) {
        layer_put(self, data, length);
        return;
    }
    memcpy(self->buffer + self->used, data, length);
    self->used += length;
}

static int layer_send(network_interface_t *network, const void *data, size_t length)
{
    return kit_netif_send(of(network)->end, data, length);
}

static int layer_receive(network_interface_t *network, void *buffer, size_t max_length)
{
    int got = kit_netif_receive(of(network)->end, buffer, max_length);
    if (got <= 0)
        layer_flush(of(network));
    return got;
}

static int layer_configure(network_interface_t *network, const char *ip, const char *netmask)
{
    return kit_netif_configure(of(network)->end, ip, netmask);
}

static int layer_send_batch(network_interface_t *network, const struct kit_frame *frames,
                            size_t count)
{
    return kit_netif_send_batch(of(network)->end, frames, count);
}

static int layer_receive_batch(network_interface_t *network, struct kit_frame *frames, size_t count)
{
    int got = kit_netif_receive_batch(of(network)->end, frames, count);
    if (got <= 0)
        layer_flush(of(network));
    return got;
}

static void layer_note(network_interface_t *network, const struct kit_packet_note *note)
{
    of(network)->end->note(of(network)->end, note);
}

static uint64_t layer_deadline_ns(struct kit_host_netif *netif)
{
    struct host_layer *self = of(&netif->network);
    struct kit_host_netif *host = self->host;
    uint64_t below = host && host->deadline_ns ? host->deadline_ns(host) : KIT_NEVER;
    uint64_t own =
        self->component->deadline_ns ? self->component->deadline_ns(self->end) : KIT_NEVER;
    return own < below ? own : below;
}

static void layer_free(struct host_layer *self)
{
    free(self->memory);
    free(self);
}

static int layer_build(struct host_layer *self, const uint64_t *options, runtime_environment_t *env,
                       network_interface_t *inner)
{
    const struct kit_netif_component *component = self->component;
    size_t size = component->build_size(options, inner);
    if (size == 0)
        return KIT_EINVAL;
    self->memory = aligned_alloc(64, (size + 63) / 64 * 64);
    if (!self->memory)
        return KIT_ENOMEM;
    struct kit_netif_base base = {
        .env = env, .inner = inner, .sink = self->file >= 0 ? &self->sink : NULL};
    return component->build(options, self->memory, size, &base, &self->end);
}

int kit_host_layer_open(const struct kit_netif_component *component, const uint64_t *options,
                        runtime_environment_t *env, network_interface_t *inner,
                        struct kit_host_netif *host, int file, struct kit_host_netif **out)
{
    if (!component->build || !(component->features & KIT_NETIF_LAYER))
        return KIT_ENOTSUP;
    struct host_layer *self = calloc(1, sizeof(*self));
    if (!self)
        return KIT_ENOMEM;
    self->component = component;
    self->host = host;
    self->file = file;
    self->sink = (struct kit_netif_sink){.write = layer_write, .context = self};
    int rc = layer_build(self, options, env, inner);
    if (rc != 0) {
        layer_free(self);
        return rc;
    }
    self->netif.network = (network_interface_t){.send_packet = layer_send,
                                                .receive_packet = layer_receive,
                                                .configure = layer_configure,
                                                .send_batch = layer_send_batch,
                                                .receive_batch = layer_receive_batch,
                                                .note = self->end->note ? layer_note : NULL,
                                                .mtu = self->end->mtu,
                                                .offloads = self->end->offloads};
    memcpy(self->netif.network.mac, self->end->mac, sizeof(self->end->mac));
    self->netif.fd = host ? host->fd : -1;
    self->netif.deadline_ns = layer_deadline_ns;
    layer_flush(self); /* so that a reader sees at once that it is a capture */
    *out = &self->netif;
    return 0;
}

size_t kit_host_layer_counters(const struct kit_host_netif *layer, uint64_t *values, size_t count)
{
    const struct host_layer *self = of(&layer->network);
    return self->component->counters ? self->component->counters(self->end, values, count) : 0;
}

int kit_host_layer_close(struct kit_host_netif *layer)
{
    struct host_layer *self = of(&layer->network);
    if (self->component->close)
        self->component->close(self->end);
    layer_flush(self);
    if (self->file >= 0 && close(self->file) != 0 && self->error == 0)
        self->error = errno;
    int error = self->error;
    layer_free(self);
    return error;
}
