/* SPDX-License-Identifier: MIT */
/* Where packets go: one network per family, its gateway for the rest, and what is known of paths:
 * a table of the INET_PATHS destinations heard of last whose path carries less than our own link
 * (RFC 1191, section 6; forgotten after ten minutes, section 6.3). */
#include <unikit/net/inet/calls.h>

#define PATH_LIFE_NS (600 * KIT_NS_PER_S)
enum { PATH_MIN = 552 /* what we believe at least: blind attackers want it tiny (RFC 5927) */ };

const struct inet_network *inet_network_of(const struct inet *m, const struct inet_ip *ip)
{
    return &m->networks[inet_is_v4(ip) ? 0 : 1];
}

bool inet_is_broadcast(const struct inet *m, const struct inet_ip *ip)
{
    if (!inet_is_v4(ip))
        return false;
    const struct inet_network *network = &m->networks[0];
    uint32_t host = network->prefix >= 127 ? 0 : UINT32_MAX >> (network->prefix - 96);
    return inet_as_v4(ip) == UINT32_MAX ||
           (host != 0 && network->prefix != 0 &&
            inet_as_v4(ip) == (inet_as_v4(&network->address) | host));
}

static struct inet_path *path_find(struct inet *m, const struct inet_ip *ip)
{
    struct inet_entry *at = *inet_table_chain(&m->paths, inet_hash_ip(&m->key, ip));
    for (; at != NULL; at = at->next) {
        struct inet_path *path = KIT_CONTAINER_OF(at, struct inet_path, entry);
        if (inet_ip_equal(&path->ip, ip))
            return path;
    }
    return NULL;
}

INET_COLD static void path_free(struct inet *m, struct inet_path *path)
{
    inet_table_remove(&m->memory, &m->paths, &path->entry);
    kit_list_remove(&path->link);
    inet_give(&m->memory, path, sizeof(*path));
}

int inet_route(struct inet *m, const struct inet_ip *to, struct inet_route *out)
{
    const struct inet_network *network = inet_network_of(m, to);
    if (network->prefix == 0 || (inet_is_v4(to) && inet_as_v4(to) == 0))
        return KIT_EUNREACH;
    out->source = network->address;
    out->mtu = m->mtu;
    if (inet_ip_same(to, &network->address, network->prefix) || inet_is_broadcast(m, to))
        out->next = *to;
    else if (network->routed)
        out->next = network->gateway;
    else
        return KIT_EUNREACH;
    if (m->paths.count != 0) {
        struct inet_path *path = path_find(m, to);
        if (path != NULL && path->expires_ns <= m->now_ns)
            path_free(m, path);
        else if (path != NULL)
            out->mtu = path->mtu;
    }
    return 0;
}

INET_COLD bool inet_path_shrink(struct inet *m, const struct inet_ip *ip, uint32_t mtu)
{
    struct inet_route route;
    if (mtu < PATH_MIN)
        mtu = PATH_MIN;
    if (inet_route(m, ip, &route) != 0 || mtu >= route.mtu)
        return false;
    struct inet_path *path = path_find(m, ip);
    if (path == NULL) {
        if (m->paths.count >= INET_PATHS)
            path_free(m, KIT_CONTAINER_OF(m->paths_used.next, struct inet_path, link));
        path = inet_take(&m->memory, sizeof(*path));
        if (path == NULL)
            return false;
        *path = (struct inet_path){.ip = *ip, .entry.hash = inet_hash_ip(&m->key, ip)};
        inet_table_insert(&m->memory, &m->paths, &path->entry);
        kit_list_init(&path->link);
    }
    path->mtu = (uint16_t)mtu;
    path->expires_ns = m->now_ns + PATH_LIFE_NS;
    kit_list_remove(&path->link);
    kit_list_push_back(&m->paths_used, &path->link);
    m->counts[INET_PATH_SHRUNK]++;
    return true;
}

INET_COLD void inet_paths_clear(struct inet *m)
{
    while (!kit_list_empty(&m->paths_used))
        path_free(m, KIT_CONTAINER_OF(m->paths_used.next, struct inet_path, link));
}
